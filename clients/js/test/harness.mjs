// What the tests of the client share: a client that is closed with its test, and a clock in their hands.

import { connect } from "../dist/signal.js";
import { FakeServer } from "../src/testing.js";

// A client on a fake server, and what it said of itself.
export function start(t, options = {}, server = new FakeServer(options.server)) {
  const client = connect({ url: "ws://fake", WebSocket: server.WebSocket, random: () => 0.5, ...options });
  const states = [];
  client.on("state", (change) => states.push(change));
  t.after(() => client.close());
  return { client, server, states };
}

// Lets everything run that waits for nothing but its turn.
export async function settle() {
  for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
}

// Takes over the clock; `pass` lets time go by.
export function takeClock(t) {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_700_000_000_000 });
  return async (ms) => {
    await settle();
    t.mock.timers.tick(ms);
    await settle();
  };
}
