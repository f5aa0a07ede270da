// What a producer wrote arrives as it wrote it: the text of `data` in the frame is the text of `data`
// in the publish, byte for byte.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";

import { Client, fence, joined } from "./client.mjs";
import { Redis, startEmitter } from "./ignis.mjs";
import { Edge, startRedis } from "./support.mjs";

const large = JSON.stringify(
  Object.fromEntries(
    Array.from({ length: 2500 }, (_, n) => [`key-${n}`, `value ${n} ☕ "quoted" \\`]),
  ),
);
assert.ok(Buffer.byteLength(large) > 100_000);

// JSON texts; whoever parses and prints them again changes most of them.
const TEXTS = {
  "an integer beyond 2^53": "12345678901234567890",
  "a price": "1.10",
  "an exponent": "1E+2",
  "negative zero": "-0",
  "a number beyond any double": "1e999",
  null: "null",
  "an emoji": '"☕ 👩‍👩‍👧‍👦"',
  "an escaped emoji": '"\\ud83d\\ude00"',
  "half of an escaped emoji": '"\\ud83d"',
  "line separators, as they are": '"\u2028\u2029"',
  "line separators, escaped": '"\\u2028\\u2029"',
  "escaped slashes and letters": '"\\/\\u0041"',
  "keys in their order, and twice": '{"10":1,"9":2,"a":3,"a":4}',
  "white space": '{ "total" :\t1.10,\n  "lines" : [ ] }',
  "names that mean something elsewhere": '{"__proto__":1,"event":"x","data":"y","serverId":"z"}',
  "100 KB": large,
};

const ROOM = "ws:room:branch:1";

describe("payloads", () => {
  let redis, control, emitter, edges, clients;

  before(async () => {
    redis = await startRedis();
    control = new Redis({ port: redis.port });
    emitter = await startEmitter(redis);
    const environment = { APP_ENV_WEBSOCKET_REDIS_CODEC: "msgpack" };
    edges = [await Edge.serve({ redis }), await Edge.serve({ redis, environment })];
  });

  beforeEach(async () => {
    const who = { userId: "ann", rooms: ["branch:1"] };
    clients = await Promise.all(edges.map((edge) => Client.connect(edge.url, who)));
    await joined(control, clients);
  });

  afterEach(async () => {
    await Promise.all(clients.map((client) => client.close()));
    await Promise.all(edges.map((edge) => edge.forgotten()));
  });

  after(async () => {
    await emitter.shutdown();
    await control.quit();
    await Promise.all(edges.map((edge) => edge.stop()));
    await redis.stop();
  });

  async function assertFrames(expected) {
    await fence(control, clients);
    for (const { deliveredFrames } of clients) assert.deepEqual(deliveredFrames, expected);
  }

  const frame = (text) => `{"event":"payload","data":${text}}`;

  for (const [name, text] of Object.entries(TEXTS)) {
    test(`${name} arrives as it was published on Redis`, async () => {
      const head = '{"serverId":"e2e","type":"room","target":"branch:1","event":"payload"';
      await control.publish(ROOM, `${head},"data":${text}}`);
      await assertFrames([frame(text)]);
    });

    test(`${name} arrives as it was posted to an edge`, async () => {
      for (const edge of edges) {
        const { status } = await edge.publish(`{"room":"branch:1","event":"payload","data":${text}}`);
        assert.equal(status, 200);
      }
      await assertFrames([frame(text), frame(text)]);
    });
  }

  test("what the npm emitter sends arrives as it printed it", async () => {
    const values = Object.values(TEXTS).map((text) => JSON.parse(text));
    for (const data of values) {
      await emitter.toRoom({ room: "branch:1", event: "payload", data });
    }
    await assertFrames(values.map((value) => frame(JSON.stringify(value))));
  });

  test("an event has any name", async () => {
    const strange = ['"quoted"', "back\\slash", "line\nfeed", "ünïcödé ☕\u2028", "ws:x"];
    const events = [...strange, "a".repeat(300)];
    for (const event of events) {
      await emitter.toRoom({ room: "branch:1", event, data: 1 });
      await edges[1].publish({ room: "branch:1", event, data: 1 });
    }
    await fence(control, clients);
    const expected = events.flatMap((event) => [{ event, data: 1 }, { event, data: 1 }]);
    for (const { deliveries } of clients) assert.deepEqual(deliveries, expected);
  });

  test("what is no envelope is dropped, and what comes after it is not", async () => {
    const good = { serverId: "e2e", type: "room", target: "branch:1", event: "payload", data: 1 };
    const bad = [
      "",
      "not json",
      "[]",
      "null",
      '{"serverId":"e2e"',
      JSON.stringify({ ...good, type: "planet" }),
      JSON.stringify({ ...good, target: undefined }),
      JSON.stringify({ ...good, target: "branch:2" }),
      JSON.stringify({ ...good, event: undefined }),
      JSON.stringify({ ...good, serverId: 7 }),
      JSON.stringify({ ...good, data: "x".repeat(600 * 1024) }),
      Buffer.from(JSON.stringify({ ...good, data: "\u00ff" }), "latin1"),
      Buffer.from([0x9b, 0x01]),
    ];
    for (const envelope of bad) await control.publish(ROOM, envelope);
    await control.publish(ROOM, JSON.stringify(good));
    await assertFrames([frame("1")]);
  });
});
