// Subscribe, then load, then apply what came meanwhile; and all of it again whenever messages may have
// been missed. One load at a time: what makes it stale while it runs makes it run once more.

import { abortable } from "./events.js";

const FOLLOWED_MAX = 10_000;

/** @type {(client: any, rooms: string | string[], options: import("./signal.d.ts").Follow<any> & { signal?: any }, backoff: (attempt: number) => number) => { ready: Promise<void>, stop: () => void }} */
export function follow(client, rooms, { load, reset, apply, events, signal, spreadMs = 1000 }, backoff) {
  const names = [rooms].flat();
  const stopping = new AbortController();
  // Null while messages are applied as they come.
  /** @type {any} */
  let waiting = [];
  let isLoading = false;
  let isStale = false;
  let resolveReady, rejectReady;
  const ready = new Promise((resolve, reject) => ([resolveReady, rejectReady] = [resolve, reject]));
  ready.catch(() => {});

  const stop = (reason) => {
    if (stopping.signal.aborted) return;
    stopping.abort(reason);
    offs.forEach((off) => off());
    signal?.removeEventListener("abort", abort);
    rejectReady(stopping.signal.reason);
  };
  const abort = () => stop(signal.reason);
  const pause = (ms) => {
    let timer;
    const over = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
    return abortable(stopping.signal, over, () => clearTimeout(timer)).catch(() => {});
  };

  // Messages that come before `load` begins are in what it loads.
  const once = async () => {
    await client.join(names, { acceptDegraded: true, signal: stopping.signal });
    isStale = false;
    waiting = [];
    const snapshot = await load({ signal: stopping.signal });
    if (isStale || stopping.signal.aborted) return;
    reset(snapshot);
    for (const [event, data, meta] of waiting) apply(event, data, meta);
    waiting = null;
    resolveReady();
  };

  const reload = async (delayMs = 0) => {
    isStale = true;
    waiting ??= [];
    if (isLoading) return;
    isLoading = true;
    if (delayMs > 0) await pause(delayMs);
    for (let attempt = 1; isStale && !stopping.signal.aborted; ) {
      try {
        await once();
      } catch (error) {
        if (["denied", "left", "closed"].includes(error.code)) stop(error);
        if (stopping.signal.aborted) break;
        isStale = true;
        client.report(error, "load_failed");
        await pause(backoff(attempt));
        attempt += 1;
      }
    }
    isLoading = false;
  };

  const isOurs = ({ event, to }) =>
    (to ? names.includes(to.room) : true) && (!events || events.includes(event));
  const offs = [
    client.on("*", (data, meta) => {
      if (!isOurs(meta)) return;
      if (!waiting) return apply(meta.event, data, meta);
      if (waiting.push([meta.event, data, meta]) <= FOLLOWED_MAX) return;
      waiting = [];
      isStale = true;
    }),
    client.on("resync", (list) => {
      const concerns = !list || list.some((name) => names.includes(name));
      // Everyone hears it in the same instant, and loads from the same place.
      if (concerns) reload(Math.random() * spreadMs);
    }),
  ];
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) abort();
  else reload();
  return { ready, stop: () => stop() };
}
