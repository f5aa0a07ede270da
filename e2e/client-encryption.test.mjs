// The JavaScript client's encryption against an edge that encrypts: what it hears, what the wire shows,
// and who else is in the room.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { WebSocket } from "ws";

import { connect } from "../clients/js/dist/signal.js";
import { Client } from "./client.mjs";
import { encrypts } from "./encrypts.mjs";
import { Edge, startRedis, until, within } from "./support.mjs";

const ROOM = "branch:1";

describe("an encrypted client", { skip: !(await encrypts()) }, () => {
  let redis, edge;

  before(async () => {
    redis = await startRedis();
    edge = await Edge.serve({ redis, environment: { SIGNAL_ENCRYPTION: "optional" } });
  });
  afterEach(() => edge.forgotten());
  after(async () => {
    await edge.stop();
    await redis.stop("SIGKILL");
  });

  // A client, and the frames that its sockets got, before anything is opened.
  function open(t, protocol, options = {}) {
    const frames = [];
    class Observed extends WebSocket {
      constructor(...args) {
        super(...args);
        this.on("message", (data) => frames.push(Buffer.from(data).toString("latin1")));
      }
    }
    const credentials = { userId: "ann" };
    const reconnect = { minMs: 20, maxMs: 100 };
    const signal = connect({ url: edge.url, WebSocket: Observed, protocol, credentials, reconnect, encryption: true, ...options });
    t.after(() => signal.close());
    return { signal, frames };
  }

  for (const protocol of ["json", "msgpack", "plain"]) {
    test(`${protocol}: everything that is delivered is sealed, and is what was published`, async (t) => {
      const { signal, frames } = open(t, protocol);
      await within("join", signal.join(ROOM));
      const plain = await Client.connect(edge.url, { userId: "bob", rooms: [ROOM] });
      let isMember = false;
      signal.on("marker", () => (isMember = true));
      await until("two members", async () => {
        await edge.publish({ room: ROOM, event: "marker" });
        return isMember && plain.messages.some(({ event }) => event === "marker");
      });
      const data = { id: "o-1", total: "3.80", secret: "very-secret", note: "naïve 🧾" };
      for (const target of [{ room: ROOM }, { user: "ann" }, { client: signal.clientId }, { all: true }]) {
        const heard = signal.once("order.created");
        await edge.publish({ ...target, event: "order.created", data });
        const { data: got, meta } = await within("delivery", heard);
        assert.deepEqual(got, data);
        const [kind] = Object.keys(target);
        const to = kind === "room" ? { room: ROOM } : { [kind]: true };
        assert.deepEqual(meta.to, protocol === "plain" ? undefined : to);
      }
      assert.ok(signal.diagnostics().isEncrypted);
      assert.ok(frames.slice(1).every((frame) => frame.includes("encrypted") && !frame.includes("very-secret")));
      // Its neighbour in the room, who asked for no encryption, reads on.
      const neighbours = plain.messages.find(({ event }) => event === "order.created");
      assert.deepEqual(neighbours.data, data);
      assert.equal(signal.state, "online");
      signal.close();
      await plain.close();
    });
  }

  for (const protocol of ["json", "msgpack"]) {
    test(`${protocol}: a room is sealed once for the members on a worker`, async (t) => {
      const members = Array.from({ length: 5 }, () => open(t, protocol));
      await Promise.all(members.map(({ signal }) => within("join", signal.join(ROOM))));
      for (const { frames } of members) frames.length = 0;
      const heard = members.map(({ signal }) => signal.once("order.created"));
      await edge.publish({ room: ROOM, event: "order.created", data: { id: "o-1" } });
      for (const { data } of await within("deliveries", Promise.all(heard))) assert.deepEqual(data, { id: "o-1" });
      // The edge of the harness has two workers.
      const last = [...new Set(members.map(({ frames }) => frames.at(-1)))];
      assert.ok(last.length <= 2, `${last.length} different frames`);
      for (const frame of last) assert.match(frame, /kid/);
      for (const { signal } of members) signal.close();
    });

    test(`${protocol}: rooms are left and joined, and keys change, without a loss`, async (t) => {
      const { signal } = open(t, protocol);
      const { signal: other } = open(t, protocol);
      signal.on("resync", (rooms, { reason }) => assert.notEqual(reason, "room key"));
      await within("join", other.join(["branch:0", "branch:1", "branch:2"]));
      for (let round = 0; round < 30; round += 1) {
        const room = `branch:${round % 3}`;
        await within("join", signal.join(room));
        const heard = [signal, other].map((client) => client.once("now"));
        await edge.publish({ room, event: "now", data: round });
        for (const { data } of await within("delivery", Promise.all(heard))) assert.equal(data, round);
        await signal.leave(room);
      }
      await assert.rejects(signal.request("pay", { order: "o-1" }), { code: "unsupported" });
      assert.deepEqual([signal.state, other.state], ["online", "online"]);
      for (const client of [signal, other]) client.close();
    });
  }

  test("many messages at once are opened in order", async (t) => {
    const { signal } = open(t, "json");
    await within("join", signal.join(ROOM));
    const seen = [];
    signal.on("number", (number) => seen.push(number));
    const numbers = Array.from({ length: 500 }, (_, number) => number);
    for (let start = 0; start < numbers.length; start += 100) {
      const batch = numbers.slice(start, start + 100);
      await edge.publish(batch.map((data) => ({ room: ROOM, event: "number", data })));
    }
    await until("all of them", () => seen.length === numbers.length);
    assert.deepEqual(seen, numbers);
    signal.close();
  });
});
