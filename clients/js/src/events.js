// Who listens to what. A listener that throws is reported and stops nobody else; an iterator that is
// not read fast enough fails instead of losing events.

import { SignalError } from "./errors.js";

const ITERATED_MAX = 10_000;

// A promise that also rejects, and cleans up, when the signal aborts.
export function abortable(signal, promise, clean) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => {
      clean?.();
      reject(signal.reason);
    };
    const done = () => signal.removeEventListener("abort", abort);
    promise.then(resolve, reject).finally(done);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
  });
}

// As event targets of browsers and of Node do.
function report(error) {
  if (globalThis.reportError) return globalThis.reportError(error);
  queueMicrotask(() => {
    throw error;
  });
}

export class Events {
  // By event, a set of [listener].
  #listeners = new Map();

  get size() {
    return [...this.#listeners.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** @type {(event: string, listener: Function, options?: { signal?: AbortSignal }) => () => void} */
  on(event, listener, { signal } = {}) {
    if (signal?.aborted) return () => {};
    const entries = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, entries);
    const entry = [listener];
    const off = () => {
      if (entries.delete(entry) && entries.size === 0) this.#listeners.delete(event);
      signal?.removeEventListener("abort", off);
    };
    entries.add(entry);
    signal?.addEventListener("abort", off);
    return off;
  }

  emit(event, ...details) {
    for (const [listener] of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener(...details);
      } catch (error) {
        report(error);
      }
    }
  }

  // The first for which `test` holds; rejects with what `ended` returns once it returns something.
  /** @type {(event: string, options: { signal?: AbortSignal, test?: (data: any) => boolean, ended: () => any }) => Promise<any>} */
  next(event, { signal, test = () => true, ended }) {
    const offs = [];
    const clean = () => offs.forEach((off) => off());
    const promise = new Promise((resolve, reject) => {
      const end = () => {
        const error = ended();
        if (error) reject(error);
        return error;
      };
      if (end()) return;
      offs.push(this.on(event, (data, meta) => test(data) && resolve({ data, meta })));
      offs.push(this.on("state", end));
    }).finally(clean);
    return abortable(signal, promise, clean);
  }

  // Listens from now on, and is read with `for await`.
  /** @type {(event: string, options: { signal?: any, ended: () => any }) => AsyncIterableIterator<any>} */
  iterate(event, { signal, ended }) {
    /** @type {any[]} */
    const waiting = [];
    let error;
    /** @type {(value?: any) => void} */
    let wake = () => {};
    const offs = [
      this.on(event, (data, meta) => {
        if (waiting.push({ data, meta }) > ITERATED_MAX) {
          error = new SignalError("overflow", "events came faster than they were read");
        }
        wake();
      }),
      this.on("state", () => wake()),
    ];
    const finish = async () => {
      offs.forEach((off) => off());
      return { done: true, value: undefined };
    };
    const next = async () => {
      for (;;) {
        if (error || signal?.aborted) {
          await finish();
          throw error ?? signal.reason;
        }
        if (waiting.length > 0) return { done: false, value: waiting.shift() };
        if (ended()) return finish();
        await abortable(signal, new Promise((resolve) => (wake = resolve))).catch(() => {});
      }
    };
    /** @type {AsyncIterableIterator<any>} */
    const iterator = { next, return: finish, [Symbol.asyncIterator]: () => iterator };
    return iterator;
  }
}
