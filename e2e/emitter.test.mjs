// The `WebSocketEmitter` of the npm package, and two edges on one Redis.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { Client, fence, joined } from "./client.mjs";
import { Redis, startEmitter } from "./ignis.mjs";
import { Edge, startRedis } from "./support.mjs";

describe("npm WebSocketEmitter to two edges", () => {
  let redis, control, emitter, edges;
  let clients = [];

  before(async () => {
    redis = await startRedis();
    control = new Redis({ port: redis.port });
    emitter = await startEmitter(redis);
    edges = [await Edge.serve({ redis }), await Edge.serve({ redis })];
  });

  afterEach(async () => {
    await Promise.all(clients.map((client) => client.close()));
    clients = [];
    await Promise.all(edges.map((edge) => edge.forgotten()));
  });

  after(async () => {
    await emitter.shutdown();
    await control.quit();
    await Promise.all(edges.map((edge) => edge.stop()));
    await redis.stop();
  });

  async function connect(...wanted) {
    clients = await Promise.all(
      wanted.map(({ edge, ...who }) => Client.connect(edges[edge].url, who)),
    );
    await joined(control, clients);
    return clients;
  }

  // Two members on each edge, one of them twice the same user, and one who is in no room.
  const people = [
    { edge: 0, userId: "ann", rooms: ["branch:1"] },
    { edge: 0, userId: "bob", rooms: ["branch:1", "branch:2"] },
    { edge: 1, userId: "ann", rooms: ["branch:1"] },
    { edge: 1, userId: "cat", rooms: ["branch:2"] },
    { edge: 1, userId: "dan", rooms: [] },
  ];

  const received = (event) =>
    clients.map((client) =>
      client.deliveries.filter((message) => message.event === event).map(({ data }) => data),
    );

  test("a room's members get its messages once, in order, but for the excluded", async () => {
    const [ann, , annAgain] = await connect(...people);
    const toRoom = (room, number, exclude) =>
      emitter.toRoom({ room, event: "order.created", data: { number }, exclude });
    await toRoom("branch:1", 1);
    await toRoom("branch:1", 2, [annAgain.id]);
    await toRoom("branch:1", 3, [ann.id, annAgain.id, "6f1d5c9a-0000-4000-8000-000000000000"]);
    await toRoom("branch:2", 4);
    await toRoom("branch:1", 5, []);
    await toRoom("nobody-is-here", 6);
    await fence(control, clients);
    const numbers = received("order.created").map((list) => list.map(({ number }) => number));
    const branchOneOf = (list) => list.filter((number) => number !== 4);
    assert.deepEqual(numbers[0], [1, 2, 5]);
    assert.deepEqual(branchOneOf(numbers[1]), [1, 2, 3, 5]);
    assert.equal(numbers[1].filter((number) => number === 4).length, 1);
    assert.deepEqual(numbers[2], [1, 5]);
    assert.deepEqual(numbers[3], [4]);
    assert.deepEqual(numbers[4], []);
  });

  test("all connections of a user get what is for the user, and nobody else", async () => {
    await connect(...people);
    for (const number of [1, 2, 3]) {
      await emitter.toUser({ userId: "ann", event: "payment.flagged", data: { number } });
    }
    await emitter.toUser({ userId: "nobody", event: "payment.flagged", data: { number: 4 } });
    await fence(control, clients);
    const all = [{ number: 1 }, { number: 2 }, { number: 3 }];
    assert.deepEqual(received("payment.flagged"), [all, [], all, [], []]);
  });

  test("one client gets what is for the client, and nobody else", async () => {
    const [, bob, , , dan] = await connect(...people);
    for (const clientId of [bob.id, dan.id, "6f1d5c9a-0000-4000-8000-000000000000"]) {
      await emitter.toClient({ clientId, event: "print", data: clientId });
    }
    await fence(control, clients);
    assert.deepEqual(received("print"), [[], [bob.id], [], [], [dan.id]]);
  });

  test("everyone who is logged in gets a broadcast, and nobody else", async () => {
    await connect(...people);
    const stranger = await Client.open(edges[0].url);
    await emitter.broadcast({ event: "notice", data: { text: "Till reconciliation" } });
    await emitter.broadcast({ event: "notice", data: null });
    await emitter.broadcast({ event: "nothing" });
    await fence(control, clients);
    for (const client of clients) {
      assert.deepEqual(client.deliveredFrames, [
        '{"event":"notice","data":{"text":"Till reconciliation"}}',
        '{"event":"notice","data":null}',
        '{"event":"nothing"}',
      ]);
    }
    assert.deepEqual(stranger.frames, []);
    await stranger.close();
  });

  test("10 000 messages to a room: none lost, none twice, none out of order", async () => {
    const messages = 10_000;
    const room = "busy";
    const crowd = [0, 1, 0, 1, 0, 1].map((edge, n) => ({ edge, userId: `u-${n}`, rooms: [room] }));
    await connect(...crowd);
    const expected = Array.from({ length: messages }, (_, number) => ({
      event: "tick",
      data: { number, text: "x".repeat(number % 300) },
    }));
    const sent = expected.map(({ event, data }) => emitter.toRoom({ room, event, data }));
    await Promise.all(sent);
    await Promise.all(clients.map((client) => client.count(messages)));
    await fence(control, clients);
    for (const client of clients) {
      assert.deepEqual(client.deliveries.map(({ data }) => data.number), [...expected.keys()]);
      assert.deepEqual(client.deliveries, expected);
    }
  });
});
