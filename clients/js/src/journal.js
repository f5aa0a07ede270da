// What happened lately, for support: frames without credentials, and changes of state. It forgets its
// oldest entries.

const FRAMES_MAX = 50;
const HISTORY_MAX = 30;
const TEXT_MAX = 300;

const note = (list, entry, countMax) => {
  list.push(entry);
  if (list.length > countMax) list.shift();
  return entry;
};

export class Journal {
  #frames = [];
  #history = [];

  frame(way, { event, data, to, id }, bytes) {
    const isSecret = event === "authenticate" || event === "refresh";
    const frame = { at: Date.now(), way, event, data: isSecret ? "…" : data, to, id, bytes };
    return note(this.#frames, frame, FRAMES_MAX);
  }

  change(change) {
    note(this.#history, { at: Date.now(), ...change }, HISTORY_MAX);
  }

  get last() {
    return this.#history.at(-1);
  }

  // Data is shortened only here, since frames come often and reports are rare.
  report() {
    const text = (data) => (data === undefined ? undefined : JSON.stringify(data).slice(0, TEXT_MAX));
    const frames = this.#frames.map((frame) => ({ ...frame, data: text(frame.data) }));
    return { frames, history: [...this.#history] };
  }
}
