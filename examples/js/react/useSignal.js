// Hooks for Signal. Make one client for the application, outside of components, and pass it to them.

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";

// The state of the connection: `online`, `recovering`, …
export function useConnection(signal) {
  const subscribe = useCallback((changed) => signal.on("state", changed), [signal]);
  return useSyncExternalStore(subscribe, () => signal.state, () => "connecting");
}

// What `load` returns for a room, kept current: `reduce(value, event, data)` returns the next value. It
// may see what the snapshot already has. Rooms stay joined, since another component may want them; a
// page with many calls `signal.leave(room)` by itself.
export function useRoom(signal, room, { initial, load, reduce }) {
  const [value, setValue] = useState(initial);
  const latest = useRef({ load, reduce });
  latest.current = { load, reduce };
  useEffect(() => {
    const view = signal.follow(room, {
      load: (context) => latest.current.load(room, context),
      reset: setValue,
      apply: (event, data) => setValue((value) => latest.current.reduce(value, event, data)),
    });
    return view.stop;
  }, [signal, room]);
  return value;
}

// Calls the newest listener for each event that comes.
export function useEvent(signal, event, listener) {
  const latest = useRef(listener);
  latest.current = listener;
  useEffect(() => signal.on(event, (data, meta) => latest.current(data, meta)), [signal, event]);
}
