// The rooms that the application wants, and how far each one is; and the joins that wait. Pure: it
// sends nothing. As many rooms as the application joins; the edge has a limit of its own.

export const WANTED = "wanted";
// Joined, but the bus has not confirmed it yet.
export const DEGRADED = "degraded";
export const JOINED = "joined";

export class Rooms {
  // By their names, { name, status }.
  #rooms = new Map();
  #joins = new Set();

  get names() {
    return [...this.#rooms.keys()];
  }

  get all() {
    return [...this.#rooms.values()];
  }

  // Wants these rooms; returns those that are new.
  want(names) {
    const fresh = names.filter((name) => !this.#rooms.has(name));
    for (const name of fresh) this.#rooms.set(name, { name, status: WANTED });
    return fresh;
  }

  // Forgets them; returns those that were wanted.
  forget(names, error) {
    const gone = names.filter((name) => this.#rooms.delete(name));
    this.#reject(({ names }) => names.some((name) => gone.includes(name)), error);
    return gone;
  }

  // Those of the names that are still the same wish.
  select(names) {
    return names.map((name) => this.#rooms.get(name)).filter(Boolean);
  }

  isCurrent(room) {
    return this.#rooms.get(room.name) === room;
  }

  has(name) {
    return this.#rooms.has(name);
  }

  // The connection is gone, and every membership with it.
  reset() {
    for (const room of this.#rooms.values()) room.status = WANTED;
  }

  // What was joined before the bus confirmed it is confirmed; null is all.
  confirm(names) {
    for (const room of this.#rooms.values()) {
      if (room.status === DEGRADED && (!names || names.includes(room.name))) room.status = JOINED;
    }
  }

  // A promise for the moment when all of them are joined, and what gives it up.
  wait(names, acceptDegraded) {
    const join = { names, acceptDegraded };
    const promise = new Promise((resolve, reject) => Object.assign(join, { resolve, reject }));
    // Not everyone waits for a join; a refusal is also an event.
    promise.catch(() => {});
    this.#joins.add(join);
    return { promise, giveUp: () => this.#joins.delete(join) };
  }

  settle() {
    for (const join of this.#joins) {
      const statuses = join.names.map((name) => this.#rooms.get(name)?.status);
      const degraded = statuses.includes(DEGRADED);
      const isDone = statuses.every((status) => status === JOINED || status === DEGRADED);
      if (!isDone || (degraded && !join.acceptDegraded)) continue;
      this.#joins.delete(join);
      join.resolve({ rooms: join.names, degraded });
    }
  }

  end(error) {
    this.#reject(() => true, error);
  }

  #reject(test, error) {
    for (const join of this.#joins) if (test(join) && this.#joins.delete(join)) join.reject(error);
  }
}
