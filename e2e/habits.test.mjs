// What existing clients on the npm package `ws` rely on in the plain protocol: shapes, replies to
// mistakes, ping and pong, close codes, and what a stopping edge does.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, before, describe, test } from "node:test";
import { WebSocket } from "ws";

import { Client } from "./client.mjs";
import { Edge, until, within } from "./support.mjs";

const UUID_V8 = /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const MESSAGE_BYTES_MAX = 128 * 1024;

const error = (message) => JSON.stringify({ event: "error", data: { message } });

describe("habits of ws clients", () => {
  let edge;

  before(async () => {
    edge = await Edge.serve({ environment: { SIGNAL_SUBPROTOCOLS: "pos.v1" } });
  });
  afterEach(() => edge.forgotten());
  after(() => edge.stop());

  // All that has been sent before is dealt with when a ping has been answered.
  async function roundTrip(client, payload = "round trip") {
    client.socket.ping(payload);
    const [answer] = await within("pong", once(client.socket, "pong"));
    return answer.toString();
  }

  test("connected has the shape that clients expect", async () => {
    const client = await Client.connect(edge.url, { userId: "ann" });
    const { id, userId, time } = client.messages[0].data;
    const expected = { event: "connected", data: { id, userId, time } };
    assert.deepEqual(client.frames, [JSON.stringify(expected)]);
    assert.match(id, UUID_V8);
    assert.equal(userId, "ann");
    assert.equal(new Date(time).toISOString(), time);
    await client.close();
  });

  test("without a user id there is none in connected", async () => {
    for (const credentials of [undefined, null, {}, { userId: 7 }, "anything", [1]]) {
      const client = await Client.open(edge.url);
      client.send("authenticate", credentials);
      const { data } = await client.message("connected");
      assert.deepEqual(Object.keys(data), ["id", "time"]);
      await client.close();
    }
  });

  test("authenticate, join and leave may come in one burst", async () => {
    const client = await Client.open(edge.url);
    client.send("authenticate", { userId: "ann" });
    client.send("join", { rooms: ["branch:1", "branch:2"] });
    client.send("leave", { rooms: ["branch:2"] });
    await roundTrip(client);
    await edge.publish({ room: "branch:2", event: "left" });
    await edge.publish({ room: "branch:1", event: "joined", data: 1 });
    await client.message("joined");
    await edge.publish({ room: "ws-default", event: "default", data: 2 });
    await client.message("default");
    assert.deepEqual(client.messages.map(({ event }) => event), ["connected", "joined", "default"]);
    await client.close();
  });

  test("mistakes are answered, and the connection stays", async () => {
    const client = await Client.open(edge.url);
    const invalid = ["", "not json", "{", "[]", "null", "7", '"text"', '{"event":"x"} trailing'];
    for (const text of invalid) client.socket.send(text);
    client.socket.send("{}");
    for (const event of [null, "", false, 0, 7, ["join"]]) client.send(event, {});
    client.send("heartbeat");
    client.send("join", { rooms: ["branch:1"] });
    client.send("anything", { at: "all" });
    client.send("authenticate", { userId: "ann" });
    client.send("authenticate", { userId: "bob" });
    client.send("heartbeat");
    client.send("nobody.handles.this", {});
    client.send("join", { rooms: "branch:1" });
    client.send("join", null);
    client.send("leave", { rooms: [7, "not joined"] });
    await roundTrip(client);
    const frames = client.frames.filter((frame) => !frame.includes('"connected"'));
    assert.deepEqual(frames, [
      ...invalid.map(() => error("Invalid message format")),
      error("Not authenticated"),
      error("Not authenticated"),
      error("Already authenticated"),
    ]);
    assert.equal((await client.message("connected")).data.userId, "ann");
    await client.close();
  });

  test("a binary frame is read as the text it contains", async () => {
    const client = await Client.open(edge.url);
    client.socket.send(Buffer.from('{"event":"authenticate","data":{"userId":"ann"}}'));
    assert.equal((await client.message("connected")).data.userId, "ann");
    await client.close();
  });

  test("a message may come in fragments, with a ping between them", async () => {
    const client = await Client.open(edge.url);
    const parts = ['{"event":"authen', 'ticate","data":{"userId":"an', 'n"}}'];
    client.socket.send(parts[0], { fin: false });
    assert.equal(await roundTrip(client, "between"), "between");
    client.socket.send(parts[1], { fin: false });
    client.socket.send(parts[2], { fin: true });
    assert.equal((await client.message("connected")).data.userId, "ann");
    await client.close();
  });

  test("a ping is answered with its payload", async () => {
    const client = await Client.connect(edge.url);
    for (const payload of ["", "x", "x".repeat(125)]) {
      assert.equal(await roundTrip(client, payload), payload);
    }
    await client.close();
  });

  test("the client's close is answered with its code", async () => {
    for (const code of [1000, 1001, 3000, 4999]) {
      const client = await Client.connect(edge.url);
      client.socket.close(code, "bye");
      assert.equal((await client.closed).code, code);
    }
  });

  test("a message over 128 KiB closes with 1009, one of 128 KiB does not", async () => {
    const client = await Client.connect(edge.url);
    const frame = (bytes) => `{"event":"heartbeat","data":"${"x".repeat(bytes - 31)}"}`;
    assert.equal(Buffer.byteLength(frame(MESSAGE_BYTES_MAX)), MESSAGE_BYTES_MAX);
    client.socket.send(frame(MESSAGE_BYTES_MAX));
    await roundTrip(client);
    client.socket.send(frame(MESSAGE_BYTES_MAX + 1));
    assert.equal((await within("close", client.closed)).code, 1009);
    assert.equal(client.deliveries.length, 1);
  });

  test("text that is no UTF-8 closes with 1007", async () => {
    const client = await Client.connect(edge.url);
    client.socket.send(Buffer.from([0x7b, 0xff, 0x7d]), { binary: false });
    assert.equal((await within("close", client.closed)).code, 1007);
  });

  test("a subprotocol is echoed if it is known", async () => {
    const client = await Client.open(edge.url, { protocols: ["unheard.of", "pos.v1"] });
    assert.equal(client.socket.protocol, "pos.v1");
    await client.close();
  });

  test("a page of another origin is refused, one of this host is not", async () => {
    const client = await Client.open(edge.url, { origin: `http://${edge.address}` });
    await client.close();
    const foreign = new WebSocket(edge.url, { origin: "https://elsewhere.example" });
    foreign.on("error", () => {});
    const [, response] = await within("refusal", once(foreign, "unexpected-response"));
    assert.equal(response.statusCode, 403);
    foreign.terminate();
  });
});

describe("time limits", () => {
  let edge;

  before(async () => {
    edge = await Edge.serve({
      environment: {
        SIGNAL_AUTH_TIMEOUT: "300ms",
        SIGNAL_PING_INTERVAL: "100ms",
        SIGNAL_HEARTBEAT_TIMEOUT: "2s",
      },
    });
  });
  after(() => edge.stop());

  test("who does not log in is closed with 4001, whatever else is sent", async () => {
    const silent = await Client.open(edge.url);
    const busy = await Client.open(edge.url);
    const timer = setInterval(() => busy.send("heartbeat"), 20);
    for (const client of [silent, busy]) {
      const { code, reason } = await within("close", client.closed);
      assert.deepEqual([code, reason], [4001, "Authentication timeout"]);
    }
    clearInterval(timer);
    assert.deepEqual(silent.frames, []);
    await edge.forgotten();
  });

  test("who answers no ping is closed with 4002, who does is not", async () => {
    const lively = await Client.connect(edge.url);
    const silent = await Client.open(edge.url, { autoPong: false });
    silent.send("authenticate", {});
    const { code, reason } = await within("close", silent.closed);
    assert.deepEqual([code, reason], [4002, "Heartbeat timeout"]);
    assert.equal(lively.socket.readyState, WebSocket.OPEN);
    await lively.close();
    await edge.forgotten();
  });
});

describe("an edge that is told to stop", () => {
  for (const signal of ["SIGTERM", "SIGINT"]) {
    test(`${signal}: clients are closed with 1001, and the process ends with 0`, async () => {
      const edge = await Edge.serve();
      const clients = [];
      for (let number = 0; number < 20; number += 1) {
        clients.push(await Client.connect(edge.url, { userId: `u-${number}`, rooms: ["r"] }));
      }
      const stranger = await Client.open(edge.url);
      const stopped = edge.stop(signal);
      for (const client of [...clients, stranger]) {
        const { code, reason } = await within("close", client.closed);
        assert.deepEqual([code, reason], [1001, "Server shutting down"]);
      }
      assert.deepEqual(await stopped, { code: 0, signal: null });
    });
  }

  test("a second SIGTERM does not wait for the drain", async () => {
    // Far beyond the deadline of the test: only the second signal can end this.
    const environment = { SIGNAL_DRAIN_DELAY: "1h", SIGNAL_DRAIN_WINDOW: "1h" };
    const edge = await Edge.serve({ environment });
    const client = await Client.connect(edge.url, { userId: "u" });
    edge.child.kill("SIGTERM");
    await until("the drain has begun", async () => !(await edge.isReady()));
    const stopped = edge.stop("SIGTERM");
    assert.equal((await within("close", client.closed)).code, 1001);
    assert.deepEqual(await stopped, { code: 0, signal: null });
  });
});
