// Requests that wait for an answer, and those that wait for a connection. Each has a time limit, so
// neither list outgrows what the application asks for within it; the second one has a bound besides.

import { SignalError } from "./errors.js";
import { abortable } from "./events.js";

export class Requests {
  // By their ids.
  #waiting = new Map();
  #queue = [];
  #count = 0;

  get waiting() {
    return this.#waiting.size;
  }

  get queued() {
    return this.#queue.length;
  }

  // A request and the promise of its answer; its time counts from here.
  create(event, data, { timeout, signal }) {
    const request = { event, data };
    const answer = new Promise((resolve, reject) => {
      request.settle = (error, value) => {
        forget();
        if (error) reject(error);
        else resolve(value);
      };
    });
    const forget = () => {
      clearTimeout(request.timer);
      this.#waiting.delete(request.id);
      const index = this.#queue.indexOf(request);
      if (index >= 0) this.#queue.splice(index, 1);
    };
    const late = () => request.settle(new SignalError("timeout", `${event} was not answered in time`));
    request.timer = setTimeout(late, timeout);
    return { request, answer: abortable(signal, answer, forget) };
  }

  enqueue(request) {
    this.#queue.push(request);
  }

  dequeue() {
    return this.#queue.shift();
  }

  // Gives it the id that its answer will carry.
  await(request) {
    request.id = String((this.#count += 1));
    this.#waiting.set(request.id, request);
  }

  answer(id, error, data) {
    this.#waiting.get(String(id))?.settle(error, data);
  }

  // Nobody will answer what has been sent.
  fail(error) {
    for (const request of [...this.#waiting.values()]) request.settle(error);
  }

  end(error) {
    this.fail(error);
    for (const request of [...this.#queue]) request.settle(error);
  }
}
