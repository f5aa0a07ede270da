// A real Traefik with the very files of deploy/traefik, in front of two edges and a real Redis: the
// upgrade works, both edges get clients, a drain loses nobody, and an edge without its bus gets no one.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";

import { Client } from "./client.mjs";
import { Redis } from "./ignis.mjs";
import { Edge, Process, freePort, scratch, startRedis, until, within } from "./support.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const TRAEFIK = process.env.TRAEFIK ?? here(".cache/venv/bin/traefik");
const V1 = "signal.v1.json";

// Installs what is missing; it takes no time when there is nothing to do.
function install() {
  const { status, stderr } = spawnSync(here("../scripts/lint-deploy.sh"), ["tools"]);
  assert.equal(status, 0, String(stderr));
}

// Traefik with the files of deploy/: only the addresses and the path, which are of containers, are
// others.
class Traefik extends Process {
  static async start(edges) {
    const [web, admin] = [await freePort(), await freePort()];
    const file = join(scratch, `traefik-${web}.yaml`);
    const replace = (text, from, to) => {
      assert.equal(text.split(from).length, 2, `${from} is not once in static.yaml`);
      return text.replace(from, to);
    };
    let settings = readFileSync(here("../deploy/traefik/static.yaml"), "utf8");
    settings = replace(settings, '":80"', `"127.0.0.1:${web}"`);
    settings = replace(settings, '":8080"', `"127.0.0.1:${admin}"`);
    settings = replace(settings, "/etc/traefik/dynamic.yaml", here("../deploy/traefik/dynamic.yaml"));
    writeFileSync(file, settings);
    const environment = { SIGNAL_EDGES: edges.map(({ address }) => address).join(",") };
    const traefik = new Traefik(TRAEFIK, [`--configFile=${file}`], { environment });
    Object.assign(traefik, { address: `127.0.0.1:${web}`, admin: `127.0.0.1:${admin}` });
    for (const edge of edges) await traefik.sees(edge, 1);
    return traefik;
  }

  get url() {
    return `ws://${this.address}/ws`;
  }

  // Waits until it takes an edge for healthy (1) or not (0).
  async sees(edge, up) {
    const line = `traefik_service_server_up{service="signal@file",url="http://${edge.address}"} ${up}`;
    await until(`${line} of ${this.name}\n${this.lines.join("\n")}`, async () => {
      const response = await fetch(`http://${this.admin}/metrics`).catch(() => null);
      return (await response?.text())?.includes(line);
    });
  }
}

// A Redis where another one was.
async function restart({ port }) {
  const settings = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", scratch];
  const redis = new Process("redis-server", settings);
  await redis.line("readiness", (line) => line.includes("Ready to accept connections"));
  return redis;
}

// Which edge gave a client its id: its first 48 bits are the edge's.
const instanceOf = (clientId) => `signal-${clientId.replace("-", "").slice(0, 12)}`;

async function clientsOf(edge) {
  return (await edge.info()).connections.authenticated ?? 0;
}

// A client that comes back whenever it is closed, and remembers what it saw of the room's numbers.
class Member {
  constructor(url, { isV1, published }) {
    Object.assign(this, { url, isV1, published, lives: [], refusals: [], stopped: false });
    this.#connect();
  }

  get life() {
    return this.lives.at(-1);
  }

  // How far it is: in the room, as far as it can tell.
  get isIn() {
    return this.life?.inFrom !== null && this.life?.closed === null;
  }

  #connect() {
    const life = { instance: null, inFrom: null, numbers: [], goodbye: null, closed: null };
    const socket = (this.socket = new WebSocket(this.url, this.isV1 ? [V1] : []));
    const send = (message) => socket.send(JSON.stringify(message));
    socket.on("open", () => {
      this.lives.push(life);
      send({ event: "authenticate", data: {} });
      send({ event: "join", data: { rooms: ["till"] }, ...(this.isV1 && { id: 1 }) });
    });
    socket.on("message", (bytes) => {
      const { event, data } = JSON.parse(bytes.toString());
      if (event === "connected") life.instance = instanceOf(data.id);
      if (event === "goodbye") life.goodbye = data;
      // From here on nothing may be missed: the acknowledgement says so where there is one, and
      // otherwise the first message does.
      if (event === "ack") life.inFrom = this.published() + 1;
      if (event === "number") {
        life.inFrom ??= data;
        life.numbers.push(data);
      }
    });
    socket.on("unexpected-response", (_, { statusCode }) => this.refusals.push(statusCode));
    socket.on("error", () => {});
    socket.on("close", (code, reason) => {
      Object.assign(life, { closed: { code, reason: reason.toString() }, closedAt: this.published() });
      // At once, without the wait that a client has: the worst that can happen to a fleet.
      if (!this.stopped) this.#connect();
    });
  }

  stop() {
    this.stopped = true;
    this.socket.close();
  }
}

describe("edges behind Traefik", () => {
  let redis, control, edges, traefik;
  const drain = { SIGNAL_DRAIN_DELAY: "4s", SIGNAL_DRAIN_WINDOW: "3s" };

  before(async () => {
    install();
    redis = await startRedis();
    control = new Redis({ port: redis.port });
    edges = await Promise.all([0, 1].map(() => Edge.serve({ redis, environment: drain })));
    for (const edge of edges) edge.instance = (await edge.info()).instance;
    traefik = await Traefik.start(edges);
  });

  afterEach(() => Promise.all(edges.map((edge) => edge.forgotten())));

  after(async () => {
    await traefik.stop("SIGKILL");
    await control.quit();
    await Promise.all(edges.map((edge) => edge.stop("SIGKILL")));
    await redis.stop();
  });

  const connect = (count) =>
    Promise.all(Array.from({ length: count }, () => Client.connect(traefik.url)));
  const close = (clients) => Promise.all(clients.map((client) => client.close()));

  const publish = (number) => {
    const envelope = { serverId: "e2e", type: "room", target: "till", event: "number", data: number };
    return control.publish("ws:room:till", JSON.stringify(envelope));
  };

  test("an upgrade goes through, and nothing but the WebSocket is passed on", async () => {
    const client = await Client.open(traefik.url, { protocols: ["unknown", V1] });
    assert.equal(client.socket.protocol, V1);
    client.send("authenticate", { userId: "ann" });
    assert.equal((await client.message("connected")).data.userId, "ann");
    await client.close();
    for (const path of ["/livez", "/readyz", "/metrics", "/v1/info", "/ws/", "/"]) {
      assert.equal((await fetch(`http://${traefik.address}${path}`)).status, 404, path);
    }
    // What the edge says to a request that is no upgrade comes back as it is.
    assert.equal((await fetch(`http://${traefik.address}/ws`)).status, 426);
  });

  test("a page of the host that clients see may connect, another may not", async () => {
    const client = await Client.open(traefik.url, { origin: `http://${traefik.address}` });
    await client.close();
    const foreign = new WebSocket(traefik.url, { origin: "https://elsewhere.example" });
    const refusal = new Promise((resolve) => {
      foreign.on("unexpected-response", (_, { statusCode }) => resolve(statusCode));
    });
    foreign.on("error", () => {});
    assert.equal(await within("refusal", refusal), 403);
    foreign.terminate();
  });

  test("both edges get clients, and about as many", async () => {
    const clients = await connect(60);
    const counts = await Promise.all(edges.map(clientsOf));
    assert.equal(counts[0] + counts[1], 60);
    // Fewest connections of two, and there are two; what is between is the burst.
    assert.ok(Math.min(...counts) >= 20, `${counts}`);
    await close(clients);
  });

  test("an edge that drains under load loses nobody", async () => {
    let published = 0;
    const options = { published: () => published };
    const members = Array.from({ length: 200 }, (_, index) => {
      return new Member(traefik.url, { ...options, isV1: index % 2 === 0 });
    });
    let isPublishing = true;
    const producer = (async () => {
      while (isPublishing) {
        // Counted before it is sent: a member that joins now must get the next one.
        await publish((published += 1));
        await pause(5);
      }
    })();
    await until("members in the room", () => members.every((member) => member.isIn));

    const [leaving, staying] = edges;
    const moved = members.filter(({ life }) => life.instance === leaving.instance);
    assert.ok(moved.length > 50 && moved.length < 150, `${moved.length} of 200`);
    leaving.child.kill("SIGTERM");
    // Not ready, but open: Traefik has time to look elsewhere before anyone is refused.
    await traefik.sees(leaving, 0);
    assert.equal(members.filter(({ lives }) => lives.length > 1).length, 0, "closed before the delay");
    const { code } = await within("end of the drained edge", leaving.exited);
    assert.equal(code, 0);
    await until("members back in the room", () => members.every((member) => member.isIn));
    const last = published + 20;
    await until("some more messages", () => published >= last);
    isPublishing = false;
    await producer;
    await until("the last message", () =>
      members.every(({ life }) => life.numbers.at(-1) === published),
    );

    for (const member of members) {
      assert.deepEqual(member.refusals, [], "refused on the way back");
      assert.equal(member.lives.length, moved.includes(member) ? 2 : 1);
      assert.equal(member.life.instance, staying.instance);
      for (const { inFrom, numbers, closed, closedAt } of member.lives) {
        // Without a gap from the join to the close: what was queued still went out.
        const end = closed ? numbers.at(-1) : published;
        const first = Math.min(inFrom, numbers[0]);
        assert.deepEqual(numbers, Array.from({ length: end - first + 1 }, (_, i) => first + i));
        if (closed) assert.ok(end <= closedAt);
      }
      if (moved.includes(member)) {
        const [{ closed, goodbye }] = member.lives;
        const expected = member.isV1 ? [4101, "Server draining"] : [1001, "Server shutting down"];
        assert.deepEqual([closed.code, closed.reason], expected);
        assert.equal(goodbye?.reason, member.isV1 ? "draining" : undefined);
      }
    }
    // Spread over the window: with a message every few milliseconds, all at once would be at very few.
    const closedAt = new Set(moved.map(({ lives }) => lives[0].closedAt));
    assert.ok(closedAt.size > moved.length / 10, `closed at ${closedAt.size} moments`);
    const stopped = members.map((member) => new Promise((resolve) => member.socket.on("close", resolve)));
    for (const member of members) member.stop();
    await within("end of the members", Promise.all(stopped));

    // It starts anew where it was, and is found again; the next clients even out the two.
    const settled = await connect(20);
    assert.equal(await clientsOf(staying), 20);
    const environment = { ...drain, SIGNAL_LISTEN: leaving.address, SIGNAL_ADMIN_LISTEN: leaving.admin };
    edges[0] = await Edge.serve({ redis, environment });
    edges[0].instance = (await edges[0].info()).instance;
    await traefik.sees(edges[0], 1);
    const fresh = [];
    for (let index = 0; index < 20; index += 1) fresh.push(...(await connect(1)));
    assert.deepEqual(await Promise.all(edges.map(clientsOf)), [20, 20]);
    await close([...settled, ...fresh]);
  });
});

describe("an edge whose Redis goes away", () => {
  let redises, edges, traefik;

  before(async () => {
    install();
    // One each, so that one can be taken from under its edge.
    redises = [await startRedis(), await startRedis()];
    edges = await Promise.all(redises.map((redis) => Edge.serve({ redis })));
    traefik = await Traefik.start(edges);
  });

  after(async () => {
    await traefik.stop("SIGKILL");
    await Promise.all(edges.map((edge) => edge.stop()));
    await Promise.all(redises.map((redis) => redis.stop("SIGKILL")));
  });

  test("keeps its clients and gets no new ones, until its Redis is back", async () => {
    const clients = await Promise.all(Array.from({ length: 20 }, () => Client.connect(traefik.url)));
    const [healthy, deaf] = edges;
    const before = await Promise.all(edges.map(clientsOf));
    assert.ok(Math.min(...before) > 0, `${before}`);

    await redises[1].stop("SIGKILL");
    await traefik.sees(deaf, 0);
    const newcomers = await Promise.all(Array.from({ length: 20 }, () => Client.connect(traefik.url)));
    assert.equal(await clientsOf(deaf), before[1], "clients left, or new ones came");
    assert.equal(await clientsOf(healthy), before[0] + 20);
    assert.equal((await fetch(`http://${deaf.address}/livez`)).status, 200);

    redises[1] = await restart(redises[1]);
    await traefik.sees(deaf, 1);
    const more = await Promise.all(Array.from({ length: 30 }, () => Client.connect(traefik.url)));
    assert.ok((await clientsOf(deaf)) > before[1]);
    await Promise.all([...clients, ...newcomers, ...more].map((client) => client.close()));

    // Without any Redis there is no edge to go to, and Traefik says so itself.
    await Promise.all(redises.map((redis) => redis.stop("SIGKILL")));
    for (const edge of edges) await traefik.sees(edge, 0);
    assert.equal((await fetch(`http://${traefik.address}/ws`)).status, 503);
    await Promise.all(edges.map((edge) => edge.forgotten()));
  });
});
