// A client in whatever runtime runs this: logs in, joins, asks, hears what is published, and leaves.
//
//   <runtime> smoke.mjs ws://… json|msgpack|plain [encryption] [ws]

import { connect } from "../clients/js/dist/signal.js";

const [url, protocol, encryption, implementation] = process.argv.slice(2);
const WebSocket = implementation === "ws" ? (await import("ws")).WebSocket : globalThis.WebSocket;
const signal = connect({ url, protocol, encryption, WebSocket, credentials: { userId: "smoke" } });
signal.on("state", (change) => console.log(JSON.stringify(change)));
await signal.join("smoke");
console.log(JSON.stringify({ joined: signal.clientId }));
const { data, meta } = await signal.once("order.created");
console.log(JSON.stringify({ heard: data, to: meta.to, encrypted: signal.diagnostics().isEncrypted }));
signal.close();
