// A server for unit tests of applications, in the same process and without a network.
//
//   const server = new FakeServer();
//   const signal = connect({ url: "ws://test", WebSocket: server.WebSocket });
//   await signal.join("branch:12");
//   server.deliver({ room: "branch:12", event: "order.created", data: { id: "o-1" } });
//
// It speaks `signal.v1.json`, or the plain protocol, as an edge does: acknowledgements, rooms, `resync`,
// `expiring`, `goodbye`, close codes. It keeps what clients sent in `received`, without a bound.

const CODES = { 4003: "Authentication failed", 4101: "Server draining" };

/** @typedef {import("./testing.d.ts").FakeServer} Types */

/** @implements {Types} */
export class FakeServer {
  // `login(credentials)` returns what goes into `connected`, or throws to reject.
  /** @param {{ login?: (credentials: any, connection: any) => any, deny?: string[], heartbeat?: number, protocol?: "json" | "plain" }} [options] */
  constructor({ login = () => ({}), deny = [], heartbeat = 90_000, protocol = "json" } = {}) {
    this.#login = login;
    this.#heartbeat = heartbeat;
    this.#protocol = protocol;
    this.deny = new Set(deny);
    this.connections = new Set();
    this.received = [];
    this.dials = 0;
    // Dials fail, as with no network.
    this.isDown = false;
    // Frames of clients are lost, and nothing is answered, as on a dead link.
    this.isSilent = false;
    this.degraded = false;
    this.#handlers = new Map();
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(server, url, protocol === "plain" ? "" : (protocols[0] ?? ""));
      }
    };
  }

  /** @type {(credentials: any, connection: any) => any} */
  #login;
  #heartbeat;
  #protocol;
  #handlers;
  #ids = 0;
  #waiting = new Set();

  // What a client's request is answered with; what the handler throws is the error.
  on(event, handler) {
    this.#handlers.set(event, handler);
    return this;
  }

  // Publishes to `{ room }`, `{ user }`, `{ client }` or `{ all: true }`.
  /** @type {Types["deliver"]} */
  deliver({ room, user, client, event, data, id }) {
    for (const connection of this.connections) {
      if (!connection.clientId) continue;
      if (room !== undefined && !connection.rooms.has(room)) continue;
      if (user !== undefined && connection.userId !== user) continue;
      if (client !== undefined && connection.clientId !== client) continue;
      /** @type {object} */
      let to = { all: true };
      if (room !== undefined) to = { room };
      else if (user !== undefined) to = { user: true };
      else if (client !== undefined) to = { client: true };
      connection.say(this.#protocol === "plain" ? { event, data } : { event, data, to, id });
    }
  }

  // Says something of the edge's own to everyone who is logged in.
  say(event, data) {
    for (const connection of this.connections) if (connection.clientId) connection.say({ event, data });
  }

  resync(rooms = null, reason = "bus") {
    this.say("resync", { rooms, reason });
  }

  // As an edge that drains.
  goodbye(retryAfterMs = 0) {
    this.say("goodbye", { reason: "draining", retryAfterMs });
    this.close(4101);
  }

  // Closes every connection with a code.
  close(code, reason = CODES[code] ?? "") {
    for (const connection of [...this.connections]) connection.shut(code, reason);
  }

  // Ends every connection without a word.
  cut() {
    this.close(1006);
  }

  // The next message of an event that a client sends.
  next(event) {
    return new Promise((resolve) => this.#waiting.add({ event, resolve }));
  }

  // Takes a message as it comes from a client; a server that unwraps it first calls this.
  hear(connection, message) {
    this.received.push(message);
    for (const waiter of this.#waiting) {
      if (waiter.event === message.event && this.#waiting.delete(waiter)) waiter.resolve(message);
    }
    this.#react(connection, message);
  }

  async #react(connection, { event, data, id }) {
    const isPlain = this.#protocol === "plain";
    /** @param {any} [data] */
    const answer = (data = null) => {
      if (!isPlain && id !== undefined) connection.say({ event: "ack", data, id });
    };
    const fail = (code, message) =>
      connection.say({ event: "error", data: isPlain ? { message } : { code, message }, id });
    if (event === "authenticate") return this.#authenticate(connection, data, fail);
    if (!connection.clientId) return fail("not_authenticated", "Not authenticated");
    if (event === "heartbeat") return answer();
    if (event === "join") {
      const rooms = data.rooms.filter((room) => !this.deny.has(room));
      for (const room of rooms) connection.rooms.add(room);
      const denied = data.rooms.filter((room) => this.deny.has(room));
      return answer({ rooms, denied, ...(this.degraded && { degraded: true }) });
    }
    if (event === "leave") {
      return answer({ rooms: data.rooms.filter((room) => connection.rooms.delete(room)) });
    }
    try {
      if (event === "refresh") return answer(await this.#login(data, connection));
      const handler = this.#handlers.get(event);
      if (!handler) return fail("unsupported", "Nothing handles this event");
      answer(await handler(data, connection));
    } catch (error) {
      fail(error.code ?? (event === "refresh" ? "authentication_failed" : "failed"), error.message);
    }
  }

  async #authenticate(connection, data, fail) {
    try {
      const granted = await this.#login(data, connection);
      connection.clientId = `client-${(this.#ids += 1)}`;
      connection.userId = granted?.userId ?? data?.userId;
      const { clientId: id, userId } = connection;
      const v1 = { server: { instance: "fake", version: "0" }, heartbeat: this.#heartbeat };
      const limits = { message: 131_072, rooms: 128 };
      const more = this.#protocol === "plain" ? {} : { ...v1, limits };
      const time = new Date().toISOString();
      connection.say({ event: "connected", data: { id, userId, time, ...more, ...granted } });
    } catch (error) {
      fail(error.code ?? "authentication_failed", error.message);
      connection.shut(4003, CODES[4003]);
    }
  }
}

// As much of a WebSocket as the client uses.
class FakeSocket {
  /** @type {((event: object) => void) | null | undefined} */
  onopen;
  /** @type {((event: object) => void) | null | undefined} */
  onmessage;
  /** @type {((event: object) => void) | null | undefined} */
  onclose;

  constructor(server, url, protocol) {
    this.url = url;
    this.readyState = 0;
    this.bufferedAmount = 0;
    this.protocol = protocol;
    this.rooms = new Set();
    this.server = server;
    server.dials += 1;
    queueMicrotask(() => {
      if (this.readyState !== 0) return;
      if (server.isDown) return this.shut(1006, "");
      this.readyState = 1;
      server.connections.add(this);
      this.onopen?.({ target: this });
    });
  }

  send(frame) {
    if (this.readyState !== 1 || this.server.isSilent) return;
    queueMicrotask(() => this.hear(frame));
  }

  hear(frame) {
    this.server.hear(this, JSON.parse(frame));
  }

  // From the server to the client.
  say(message) {
    if (!this.server.isSilent) this.write(JSON.stringify(message));
  }

  write(frame) {
    queueMicrotask(() => this.readyState === 1 && this.onmessage?.({ data: frame, target: this }));
  }

  close(code = 1005, reason = "") {
    if (this.readyState < 2) this.shut(code, reason);
  }

  shut(code, reason) {
    if (this.readyState === 3) return;
    queueMicrotask(() => {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.server.connections.delete(this);
      this.onclose?.({ code, reason, wasClean: code !== 1006, target: this });
    });
  }
}
