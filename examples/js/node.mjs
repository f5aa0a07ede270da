// Prints the orders of a branch, for as long as it runs.
//
//   signal demo
//   node --experimental-websocket examples/js/node.mjs [branch]

import { connect } from "../../clients/js/dist/signal.js";

const branch = process.argv[2] ?? "1";
const signal = connect({ url: "ws://127.0.0.1:3000/ws", credentials: { userId: "printer" } });
process.on("SIGINT", () => signal.close());

signal.on("state", ({ state, reason }) => console.error(state, reason ?? ""));
await signal.join(`branch:${branch}`);
for await (const { data } of signal.events("order.created")) {
  console.log(data.id, data.total, data.currency);
}
