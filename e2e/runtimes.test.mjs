// The JavaScript client where there is no browser: Node with its own WebSocket and with that of the
// npm package `ws`, and Bun.

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";

import { bun, Edge, Process, within } from "./support.mjs";

const SCRIPT = fileURLToPath(new URL("smoke.mjs", import.meta.url));
const NODE = process.execPath;

describe("runtimes", () => {
  let edge;
  before(async () => (edge = await Edge.serve()));
  after(() => edge.stop());

  const runtimes = {
    "Node, its own WebSocket": [NODE, ["--experimental-websocket", "--no-warnings", SCRIPT]],
    "Node, with ws": [NODE, [SCRIPT], "ws"],
    Bun: [bun(), [SCRIPT]],
  };
  for (const [name, [command, args, implementation = ""]] of Object.entries(runtimes)) {
    for (const protocol of ["json", "msgpack"]) {
      test(`${name}: ${protocol}`, async () => {
        const child = new Process(command, [...args, edge.url, protocol, "off", implementation]);
        await child.line("join", (line) => line.includes('"joined"'));
        await edge.publish({ room: "smoke", event: "order.created", data: { id: "o-1" } });
        const heard = await child.line("delivery", (line) => line.includes('"heard"') && JSON.parse(line));
        assert.deepEqual(heard, { heard: { id: "o-1" }, to: { room: "smoke" }, encrypted: false });
        assert.equal((await within("end", child.exited)).code, 0);
        await edge.forgotten();
      });
    }
  }
});
