// Whether the edge under test was built with encryption: the tests of it are left out if not.

import { connect } from "../clients/js/dist/signal.js";
import { WebSocket } from "ws";

import { Edge, within } from "./support.mjs";

export async function encrypts() {
  const edge = await Edge.serve({ environment: { SIGNAL_ENCRYPTION: "required" } });
  const signal = connect({ url: edge.url, WebSocket, encryption: true });
  try {
    return await within("an answer", signal.ready().then(() => true, () => false));
  } finally {
    signal.close();
    await edge.stop();
  }
}
