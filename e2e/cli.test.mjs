// The tools of the binary: emit, on Redis and through an edge; tail; token.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";

import { Client, fence, joined } from "./client.mjs";
import { Redis } from "./ignis.mjs";
import {
  API_KEY,
  Edge,
  Process,
  SIGNAL,
  freePort,
  redisSettings,
  scratch,
  signal,
  startRedis,
} from "./support.mjs";

const EXIT_USAGE = 64;
const EXIT_UNAVAILABLE = 69;
const JWT_SECRET = "a-secret-of-the-e2e-suite-that-is-long-enough";

describe("the command line", () => {
  let redis, control, edges, clients;

  before(async () => {
    redis = await startRedis();
    control = new Redis({ port: redis.port });
    edges = [await Edge.serve({ redis }), await Edge.serve({ redis })];
  });

  async function connect() {
    const people = [
      [0, { userId: "ann", rooms: ["branch:1"] }],
      [1, { userId: "bob", rooms: ["branch:1"] }],
      [1, { userId: "ann", rooms: [] }],
    ];
    clients = await Promise.all(
      people.map(([edge, who]) => Client.connect(edges[edge].url, who)),
    );
    await joined(control, clients);
    return clients;
  }

  afterEach(async () => {
    await Promise.all((clients ?? []).map((client) => client.close()));
    clients = [];
    await Promise.all(edges.map((edge) => edge.forgotten()));
  });

  after(async () => {
    await control.quit();
    await Promise.all(edges.map((edge) => edge.stop()));
    await redis.stop();
  });

  async function received() {
    await fence(control, clients);
    return clients.map(({ deliveredFrames }) => deliveredFrames);
  }

  async function emit(args, options) {
    const { code, stdout, stderr } = await signal(["emit", ...args], options);
    assert.equal(code, 0, stderr);
    return stdout;
  }

  const ways = {
    "on Redis": () => [[], { environment: redisSettings(redis) }],
    "through an edge": () => [["--via", `http://${edges[0].admin}`, "--key", API_KEY], {}],
    "through an edge, with the key of the environment": () => [
      ["--via", `http://${edges[1].admin}`],
      { environment: { SIGNAL_API_KEY: API_KEY } },
    ],
  };

  for (const [way, settings] of Object.entries(ways)) {
    const emitThisWay = (args, input) => {
      const [where, options] = settings();
      return emit([...where, ...args], { ...options, input });
    };

    test(`signal emit ${way} reaches a room, but for the excluded`, async () => {
      const [ann, bob] = await connect();
      const toRoom = ["--room", "branch:1", "--event", "order.created"];
      await emitThisWay([...toRoom, "--data", '{"total":1.10}']);
      await emitThisWay([...toRoom, "--data", "2", "--exclude", ann.id]);
      await emitThisWay([...toRoom, "--data", "3", "--exclude", ann.id, "--exclude", bob.id]);
      const first = '{"event":"order.created","data":{"total":1.10}}';
      const second = '{"event":"order.created","data":2}';
      assert.deepEqual(await received(), [[first], [first, second], []]);
    });

    test(`signal emit ${way} reaches a user, a client, everyone`, async () => {
      const [, bob] = await connect();
      await emitThisWay(["--user", "ann", "--event", "for.user"]);
      await emitThisWay(["--client", bob.id, "--event", "for.client"]);
      const user = '{"event":"for.user"}';
      assert.deepEqual(await received(), [[user], ['{"event":"for.client"}'], [user]]);
      for (const client of clients) client.frames.length = 0;
      await emitThisWay(["--all", "--event", "notice", "--data", '"hello"']);
      const notice = '{"event":"notice","data":"hello"}';
      assert.deepEqual(await received(), [[notice], [notice], [notice]]);
    });

    test(`signal emit ${way} takes data from a file and from standard input`, async () => {
      await connect();
      const path = join(scratch, "data.json");
      writeFileSync(path, '{"id":12345678901234567890}\n');
      const toBob = ["--user", "bob", "--event", "e", "--data"];
      await emitThisWay([...toBob, `@${path}`]);
      await emitThisWay([...toBob, "-"], '[1.10,"☕"]\n');
      const [, bob] = await received();
      assert.deepEqual(bob, [
        '{"event":"e","data":{"id":12345678901234567890}}',
        '{"event":"e","data":[1.10,"☕"]}',
      ]);
    });
  }

  test("signal emit ends with 64 for what cannot be, with one sentence", async () => {
    const toAll = ["emit", "--all", "--event", "e"];
    const via = ["--via", `http://${edges[0].admin}`];
    const cases = [
      { args: toAll, says: /REDIS_MODE.*--via/ },
      { args: [...toAll, ...via, "--data", "{broken"], says: /--data is not JSON/ },
      { args: [...toAll, ...via, "--key", "wrong"], says: /key/ },
      { args: toAll, environment: { SIGNAL_ROOM: "*" }, says: /SIGNAL_ROOM .*SIGNAL_ROOMS/ },
    ];
    for (const { args, environment, says } of cases) {
      const { code, stderr } = await signal(args, { environment });
      assert.equal(code, EXIT_USAGE, stderr);
      assert.match(stderr, says);
      assert.equal(stderr.trim().split("\n").length, 1, stderr);
    }
  });

  test("signal emit ends with 69 when nobody is there", async () => {
    const port = String(await freePort());
    const toAll = ["emit", "--all", "--event", "e"];
    const cases = [
      { args: [...toAll, "--via", `http://127.0.0.1:${port}`, "--key", API_KEY] },
      { args: toAll, environment: redisSettings({ port }) },
    ];
    for (const { args, environment } of cases) {
      const { code, stderr } = await signal(args, { environment });
      assert.equal(code, EXIT_UNAVAILABLE, stderr);
    }
  });

  test("signal token mints what an edge with jwt believes, and signal tail prints", async () => {
    const secret = { SIGNAL_JWT_SECRET: JWT_SECRET };
    const edge = await Edge.serve({
      redis,
      environment: { ...secret, SIGNAL_AUTH: "jwt", SIGNAL_ROOMS: "" },
    });
    const minted = await signal(["token", "--user", "eve", "--room", "branch:*"], {
      environment: secret,
    });
    assert.equal(minted.code, 0, minted.stderr);
    const token = minted.stdout.trim();

    const client = await Client.open(edge.url);
    client.send("authenticate", { token });
    const { data } = await client.message("connected");
    assert.equal(data.userId, "eve");
    Object.assign(client, { id: data.id, userId: data.userId, rooms: ["branch:1"] });
    client.send("join", { rooms: ["office", "branch:1"] });
    await joined(control, [client]);
    await edge.publish({ room: "office", event: "not.for.eve" });
    await edge.publish({ room: "branch:1", event: "for.eve" });
    await fence(control, [client]);
    assert.deepEqual(client.deliveries, [{ event: "for.eve" }]);
    await client.close();

    const tail = new Process(SIGNAL, ["tail", "--url", edge.url, "--token", token]);
    await tail.line("login", (line) => line.includes("connected"));
    await edge.publish({ user: "eve", event: "for.eve", data: { total: "1.10" } });
    await tail.line("event", (line) => /for\.eve\s+\{"total":"1\.10"\}/.test(line));
    await tail.stop("SIGKILL");
    await edge.forgotten();

    const stranger = await Client.open(edge.url);
    stranger.send("authenticate", { token: `${token}x` });
    const { code, reason } = await stranger.closed;
    assert.deepEqual([code, reason], [4003, "Authentication failed"]);
    const refusal = { event: "error", data: { message: "Authentication failed" } };
    assert.deepEqual(stranger.messages, [refusal]);
    await edge.forgotten();
    await edge.stop();
  });
});
