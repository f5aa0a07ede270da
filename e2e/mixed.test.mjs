// A fleet in the middle of its migration: an edge of Signal and a server of the npm package on one
// Redis, each delivering what the other publishes, each client getting each message once.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";

import { Client, FENCE, fence, joined } from "./client.mjs";
import { Redis, TypeScriptServer, startEmitter } from "./ignis.mjs";
import { Edge, startRedis } from "./support.mjs";

const EVENT = "order.created";

// Every client, its server, and its rooms; one room is on both servers, each of the others on one.
const PEOPLE = {
  signalOne: { server: "signal", userId: "ann", rooms: ["both", "on-signal"] },
  signalTwo: { server: "signal", userId: "bob", rooms: ["on-signal"] },
  scriptOne: { server: "script", userId: "ann", rooms: ["both", "on-script"] },
  scriptTwo: { server: "script", userId: "cat", rooms: ["on-script"] },
};
const EVERYONE = Object.keys(PEOPLE);

describe("a mixed fleet", () => {
  let redis, control, emitter, servers, clients;

  before(async () => {
    redis = await startRedis();
    control = new Redis({ port: redis.port });
    emitter = await startEmitter(redis);
    servers = { signal: await Edge.serve({ redis }), script: await TypeScriptServer.start(redis) };
  });

  beforeEach(async () => {
    clients = {};
    for (const [name, { server, ...who }] of Object.entries(PEOPLE)) {
      clients[name] = await Client.connect(servers[server].url, who);
    }
    await joined(control, Object.values(clients));
  });

  afterEach(async () => {
    await Promise.all(Object.values(clients).map((client) => client.close()));
    await Promise.all(Object.values(servers).map((server) => server.forgotten()));
  });

  after(async () => {
    await emitter.shutdown();
    await control.quit();
    await Promise.all(Object.values(servers).map((server) => server.stop()));
    await redis.stop();
  });

  // Who got what: the data of each client's messages, by name; those without any are left out.
  async function received() {
    await fence(control, Object.values(clients));
    const entries = Object.entries(clients).map(([name, { deliveries }]) => {
      for (const { event } of deliveries) assert.equal(event, EVENT);
      return [name, deliveries.map(({ data }) => data)];
    });
    return Object.fromEntries(entries.filter(([, list]) => list.length > 0));
  }

  const each = (names, data) => Object.fromEntries(names.map((name) => [name, [data]]));

  // How each producer says the same; a producer that cannot say something leaves it out.
  const producers = {
    "the npm emitter": {
      all: (data) => emitter.broadcast({ event: EVENT, data }),
      room: (room, data) => emitter.toRoom({ room, event: EVENT, data }),
      user: (userId, data) => emitter.toUser({ userId, event: EVENT, data }),
      client: (clientId, data) => emitter.toClient({ clientId, event: EVENT, data }),
      allBut: (exclude, room, data) => emitter.toRoom({ room, event: EVENT, data, exclude }),
    },
    "Signal's publish API": {
      all: (data) => publish({ all: true, event: EVENT, data }),
      room: (room, data) => publish({ room, event: EVENT, data }),
      user: (user, data) => publish({ user, event: EVENT, data }),
      client: (client, data) => publish({ client, event: EVENT, data }),
      allBut: (exclude, room, data) => publish({ room, event: EVENT, data, exclude }),
    },
    "the TypeScript server's send": {
      all: (data) => script(undefined, data),
      room: (room, data) => script(room, data),
      client: (client, data) => script(client, data),
    },
  };

  async function publish(message) {
    const { status, answer } = await servers.signal.publish(message);
    assert.equal(status, 200, JSON.stringify(answer));
  }

  // `send` does not wait for Redis: what it publishes last tells that the rest has been published.
  async function script(destination, data) {
    const last = FENCE;
    await servers.script.send(destination, EVENT, data);
    await servers.script.send(clients.signalOne.id, last, { number: data });
    await clients.signalOne.when("what was sent last", () =>
      clients.signalOne.messages.some((it) => it.event === last && it.data.number === data),
    );
  }

  for (const [producer, to] of Object.entries(producers)) {
    test(`${producer} reaches everyone once with a broadcast`, async () => {
      await to.all("for all");
      assert.deepEqual(await received(), each(EVERYONE, "for all"));
    });

    test(`${producer} reaches the members of a room once, wherever they are`, async () => {
      await to.room("both", "for both");
      assert.deepEqual(await received(), each(["signalOne", "scriptOne"], "for both"));
    });

    test(`${producer} reaches a room that is on one server only`, async () => {
      await to.room("on-signal", "signal");
      await to.room("on-script", "script");
      assert.deepEqual(await received(), {
        ...each(["signalOne", "signalTwo"], "signal"),
        ...each(["scriptOne", "scriptTwo"], "script"),
      });
    });

    test(`${producer} reaches one client of either server`, async () => {
      await to.client(clients.signalTwo.id, "signal");
      await to.client(clients.scriptTwo.id, "script");
      const expected = { ...each(["signalTwo"], "signal"), ...each(["scriptTwo"], "script") };
      assert.deepEqual(await received(), expected);
    });

    if (to.user) {
      test(`${producer} reaches all connections of a user`, async () => {
        await to.user("ann", "for ann");
        assert.deepEqual(await received(), each(["signalOne", "scriptOne"], "for ann"));
      });
    }

    if (to.allBut) {
      test(`${producer} leaves out the excluded of both servers`, async () => {
        await to.allBut([clients.signalTwo.id, clients.scriptOne.id], "on-signal", "signal");
        await to.allBut([clients.signalTwo.id, clients.scriptOne.id], "both", "both");
        const { signalOne, ...others } = await received();
        assert.deepEqual(signalOne.sort(), ["both", "signal"]);
        assert.deepEqual(others, {});
      });
    }
  }

  test("each server answers a login in the same shape", async () => {
    for (const server of Object.values(servers)) {
      for (const userId of ["eve", undefined]) {
        const client = await Client.connect(server.url, { userId });
        const { data } = await client.message("connected");
        const keys = userId ? ["id", "userId", "time"] : ["id", "time"];
        assert.deepEqual(Object.keys(data), keys);
        assert.equal(new Date(data.time).toISOString(), data.time);
        await client.close();
      }
    }
  });
});
