// What clients see of each fault of the bus, and for how long: real redis-servers, edges with their
// default settings, steady numbered traffic, one fault at a time.
//
//   node faults.mjs [--runs 3] [--only NAME]... [--out results.jsonl]
//   node faults.mjs --table results.jsonl     the Markdown table of docs/redis.md
//   node faults.mjs --list                    the faults' names
//
// One edge publishes, as for producers that post to it, and says of each message whether Redis took it:
// only what Redis took can be lost. Two others have a plain and a signal.v1 client each, in every room.
// It exits 1 if a loss was not announced to a signal.v1 client, a message came twice, or traffic did not
// come back by itself.

import { appendFileSync, readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Cluster, plainNode } from "./cluster.mjs";
import { Edge, freePort, run, until } from "./support.mjs";
import { Listener, Network, Readiness, Traffic, roomNames } from "./traffic.mjs";

const ROOMS = roomNames(24);
// The default rooms, on each worker.
const ROOMS_OF_EVERYONE = 4;
const PUBLISH_INTERVAL_MS = 100;
// Undisturbed, before the fault, and up to a probe's interval more: a fault can come at any moment of it.
const QUIET_MS = 2_000;
const PROBE_MS = 5_000;
// After the end of the fault at the least: longer than a dead connection can look alive.
const OBSERVED_MS_MIN = 13_000;
// All is well if every room was heard and every edge was ready for so long.
const WELL_MS = 3_000;
const HEARD_WITHIN_MS = 1_000;
const RECOVERY_MS_MAX = 90_000;

// A node timeout of 5 s, a usual value in production. Redis' own default is 15 s; failovers take that
// much longer.
const NODE_SETTINGS = ["--include", fileURLToPath(new URL("../deploy/redis/cluster.conf", import.meta.url))];
const DOWN_MS = 3_000;
const STOPPED_MS = 8_000;
const DEAD_MS = 20_000;
// A quarter of a master's share.
const SLOTS_MOVED = 1_365;

// Each injects its fault and returns when it has ended by itself.
const FAULTS = {
  "redis-killed": {
    what: "Redis killed, started again 3 s later",
    async inject({ redis }) {
      await redis.stop("SIGKILL");
      await pause(DOWN_MS);
      await redis.start();
    },
  },
  "redis-stopped": {
    what: "Redis stopped for 8 s (SIGSTOP), as by a stalled host",
    async inject({ redis }) {
      redis.signal("SIGSTOP");
      await pause(STOPPED_MS);
      redis.signal("SIGCONT");
    },
  },
  "subscribers-killed": {
    what: "subscribers cut (`CLIENT KILL TYPE pubsub`), as by an output buffer that is full",
    async inject({ redis }) {
      await redis.ask("client", "kill", "type", "pubsub");
    },
  },
  "connections-dead": {
    what: "connections dead without a word, new ones work (a firewall forgot them)",
    network: true,
    async inject({ network }) {
      network.forget();
    },
  },
  "network-dead": {
    what: "no network between edges and Redis for 20 s",
    network: true,
    async inject({ network }) {
      network.die();
      await pause(DEAD_MS);
      network.heal();
    },
  },
  "edge-killed": {
    what: "an edge killed; its clients reconnect to another after 0.5–0.75 s",
    async inject({ edges }) {
      await edges[0].stop("SIGKILL");
    },
  },
  ...Object.fromEntries(
    ["classic", "sharded"].flatMap((pubsub) => [
      [
        `master-killed-${pubsub}`,
        {
          what: `cluster, ${pubsub}: a master killed, its replica takes over`,
          pubsub,
          async inject({ cluster }) {
            await (await busyMaster(cluster)).stop("SIGKILL");
          },
          // It comes back as a replica, and nobody should notice.
          async afterwards({ cluster }) {
            await cluster.nodes.find((node) => !node.isRunning()).start();
            await cluster.whole();
          },
        },
      ],
      [
        `slots-moved-${pubsub}`,
        {
          what: `cluster, ${pubsub}: ${SLOTS_MOVED} slots moved to another master`,
          pubsub,
          async inject({ cluster }) {
            const [from, to] = await Promise.all(cluster.nodes.slice(0, 2).map((node) => node.ask("cluster", "myid")));
            const address = `127.0.0.1:${cluster.nodes[0].port}`;
            const which = ["--cluster-from", from, "--cluster-to", to, "--cluster-slots", String(SLOTS_MOVED)];
            const { code, stdout } = await run("redis-cli", ["--cluster", "reshard", address, ...which, "--cluster-yes"]);
            if (code !== 0) throw new Error(stdout.slice(-1000));
          },
        },
      ],
      [
        `rolling-restart-${pubsub}`,
        {
          what: `cluster, ${pubsub}: all six nodes restarted one by one, each away for 3 s, masters after \`CLUSTER FAILOVER\``,
          pubsub,
          inject: ({ cluster }) => restartOneByOne(cluster),
        },
      ],
    ]),
  ),
};

// The master that links of every edge lead to, in classic mode too: workers take masters in the order of
// their addresses.
async function busyMaster(cluster) {
  for (const node of cluster.nodes) if (await cluster.isMaster(node)) return node;
  throw new Error("no master");
}

async function restartOneByOne(cluster) {
  const restarted = async (node) => {
    await node.stop("SIGTERM");
    await pause(DOWN_MS);
    await node.start();
    await cluster.whole();
  };
  const roles = await Promise.all(cluster.nodes.map((node) => cluster.isMaster(node)));
  for (const [index, node] of cluster.nodes.entries()) if (!roles[index]) await restarted(node);
  for (const [index, node] of cluster.nodes.entries()) {
    if (!roles[index]) continue;
    const replica = await cluster.replica(node);
    await replica.ask("cluster", "failover");
    await until("the replica is the master", () => cluster.isMaster(replica));
    await cluster.whole();
    await restarted(node);
  }
}

// === One run ===

// What a fault happens to: Redis, perhaps a network, two edges with clients and one that publishes.
async function startFleet({ pubsub, network: hasNetwork }) {
  const fleet = { edges: [], stops: [] };
  let settings;
  if (pubsub) {
    fleet.cluster = await Cluster.start(NODE_SETTINGS);
    fleet.stops.push(() => fleet.cluster.stop());
    settings = fleet.cluster.settings(pubsub);
  } else {
    fleet.redis = await plainNode(await freePort()).start();
    fleet.stops.push(() => fleet.redis.stop());
    settings = at(fleet.redis.port);
  }
  fleet.publisher = await Edge.serve({ environment: settings });
  if (hasNetwork) {
    fleet.network = await new Network(fleet.redis.port).listen();
    fleet.stops.push(() => fleet.network.close());
    settings = at(fleet.network.port);
  }
  for (let count = 0; count < 2; count++) fleet.edges.push(await Edge.serve({ environment: settings }));
  for (const edge of [fleet.publisher, ...fleet.edges]) {
    fleet.stops.unshift(() => edge.stop("SIGKILL"));
  }
  return fleet;
}

const at = (port) => ({
  APP_ENV_WEBSOCKET_REDIS_MODE: "single",
  APP_ENV_WEBSOCKET_REDIS_PORT: String(port),
});

// A plain and a signal.v1 client on each edge, which land on its two workers. A room is at home where it
// is joined first, so each brings half of them, and a link that is down is felt on every edge.
async function startListeners(fleet, hasNext) {
  const listeners = [];
  for (const [index, edge] of fleet.edges.entries()) {
    for (const isV1 of [false, true]) {
      const listener = new Listener(ROOMS, isV1);
      const half = ROOMS.filter((_, room) => room % 2 === Number(isV1));
      await listener.connect(edge, hasNext && index === 0 ? fleet.edges[1] : null, half);
      listeners.push(listener);
    }
    await until("rooms joined", async () => {
      const { rooms } = await edge.info();
      return rooms >= ROOMS.length + ROOMS_OF_EVERYONE;
    });
  }
  for (const listener of listeners) listener.join(ROOMS);
  return listeners;
}

async function measure(name) {
  const fault = FAULTS[name];
  const fleet = await startFleet(fault);
  const listeners = await startListeners(fleet, name === "edge-killed");
  const traffic = new Traffic(fleet.publisher, ROOMS, PUBLISH_INTERVAL_MS);
  await until("traffic", () => listeners.every((listener) => listener.isHearing(HEARD_WITHIN_MS)));
  await pause(QUIET_MS + Math.random() * PROBE_MS);
  const watches = fleet.edges.map((edge) => new Readiness(edge));
  for (const listener of listeners) listener.begin();

  const began = Date.now();
  await fault.inject(fleet);
  // What ends by itself begins and ends at the same moment.
  const ended = Date.now() - began < DOWN_MS - 500 ? began : Date.now();
  const isWell = () =>
    Date.now() - ended > OBSERVED_MS_MIN &&
    watches.every(({ isReady, readyAt }) => isReady && Date.now() - (readyAt ?? ended) > WELL_MS) &&
    listeners.every((listener) => listener.isHearing(HEARD_WITHIN_MS));
  const recovered = await holds(isWell);
  const times = timesOf(watches, listeners, began, ended);
  if (recovered && fault.afterwards) {
    await fault.afterwards(fleet);
    await holds(isWell);
  }
  await traffic.stop();
  const complete = () => listeners.every((listener) => listener.isComplete(traffic));
  const result = { fault: name, ...times, ...traffic.counts, recovered: recovered && (await holds(complete)) };
  Object.assign(result, judge(listeners, traffic, began));
  await Promise.all(watches.map((watch) => watch.stop()));
  for (const listener of listeners) listener.close();
  for (const stop of fleet.stops) await stop();
  return result;
}

// Waits until it is true; says whether it came true in time.
async function holds(ask) {
  for (const deadline = Date.now() + RECOVERY_MS_MAX; !ask(); await pause(20)) {
    if (Date.now() > deadline) return false;
  }
  return true;
}

// In milliseconds. The rest is `null` where it did not happen.
function timesOf(watches, listeners, began, ended) {
  const last = (times) => (times.length === 0 ? null : Math.max(...times) - ended);
  const seen = watches.filter(({ notReadyAt }) => notReadyAt !== null);
  const resyncs = listeners.flatMap(({ isV1, resyncs }) => (isV1 ? resyncs.map(({ at }) => at) : []));
  const closes = listeners.flatMap(({ closedAt }) => (closedAt === null ? [] : [closedAt]));
  return {
    lasted: ended - began,
    notReady: seen.length === 0 ? null : Math.min(...seen.map(({ notReadyAt }) => notReadyAt)) - began,
    notReadyFor: Math.max(...watches.map(({ notReadyFor }) => notReadyFor)),
    ready: last(seen.map(({ readyAt }) => readyAt)),
    resync: last(resyncs),
    resyncs: Math.max(0, ...listeners.map(({ resyncs }) => resyncs.length)),
    closed: last(closes),
    silence: Math.max(...listeners.map(({ silence }) => silence)),
    reasons: [...new Set(watches.flatMap(({ reasons }) => [...reasons]))],
  };
}

function judge(listeners, traffic, began) {
  // Messages that were under way when the fault began are before it.
  const losses = listeners.map((listener) => listener.losses(traffic, began - QUIET_MS));
  const ofV1 = losses.filter((_, index) => listeners[index].isV1);
  return {
    lost: Math.max(...losses.map(({ lost }) => lost)),
    unannounced: Math.max(...ofV1.map(({ unannounced }) => unannounced)),
    doubled: Math.max(...listeners.map(({ doubled }) => doubled)),
  };
}

// === The table ===

function table(results) {
  const rows = Object.entries(FAULTS).flatMap(([name, { what }]) => {
    const runs = results.filter(({ fault }) => fault === name);
    if (runs.length === 0) return [];
    const seconds = (key, among = runs) =>
      range(among.map((each) => each[key]), (ms) => (Math.max(0, ms) / 1000).toFixed(1));
    const lost = range(runs.map((each) => each.lost), String);
    const doubled = range(runs.map((each) => each.doubled), String);
    const twice = doubled === "0" ? "" : `, gets ${doubled} twice`;
    const plain = (lost === "0" ? "misses nothing" : `misses ${lost} messages`) + twice;
    return [[what, plain, told(name, runs, seconds), seconds("silence"), seconds("notReady"), seconds("ready")]];
  });
  const head = ["fault", "a plain client", "a `signal.v1` client", "a room is silent, s", "edge not ready after, s", "ready after its end, s"];
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

// What a client of signal.v1 is told of what it missed.
function told(name, runs, seconds) {
  if (runs.some(({ unannounced }) => unannounced > 0)) return "**is not told of all**";
  if (name === "edge-killed") return "sees the close at once, and reloads";
  if (name.startsWith("rolling-restart")) return `\`resync\` each time, ${range(runs.map(({ resyncs }) => resyncs), String)} in all`;
  const toldOnes = runs.filter(({ resync }) => resync !== null);
  if (toldOnes.length === 0) return "misses nothing";
  const some = toldOnes.length < runs.length ? ", if it misses any" : "";
  const often = toldOnes.some(({ resyncs }) => resyncs > 1);
  const times = often ? `${range(toldOnes.map(({ resyncs }) => resyncs), String)} times, the last ` : "";
  return `\`resync\` ${times}${seconds("resync", toldOnes)} s after its end${some}`;
}

// The least and the most, or one of them if they look alike.
function range(values, format) {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return "–";
  const [least, most] = [Math.min(...known), Math.max(...known)].map(format);
  const some = known.length < values.length ? "–, " : "";
  return some + (least === most ? least : `${least}–${most}`);
}

// === Arguments ===

function usage(problem) {
  console.error(`faults.mjs: ${problem}`);
  process.exit(64);
}

function parse() {
  try {
    return parseArgs({
      options: {
        runs: { type: "string", default: "3" },
        only: { type: "string", multiple: true, default: Object.keys(FAULTS) },
        out: { type: "string" },
        table: { type: "string" },
        list: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    return usage(error.message);
  }
}

const options = parse();
const runs = Number(options.runs);
if (!(Number.isInteger(runs) && runs > 0)) usage("--runs is a number above 0");
const unknown = options.only.find((name) => !(name in FAULTS));
if (unknown) usage(`there is no fault ${unknown}, see --list`);
if (options.list) {
  for (const [name, { what }] of Object.entries(FAULTS)) console.log(`${name.padEnd(26)} ${what}`);
  process.exit(0);
}
if (options.table) {
  const lines = readFileSync(options.table, "utf8").split("\n").filter(Boolean);
  console.log(table(lines.map((line) => JSON.parse(line))));
  process.exit(0);
}
const results = [];
for (let index = 0; index < runs; index++) {
  for (const name of options.only) {
    const result = await measure(name);
    results.push(result);
    const line = JSON.stringify(result);
    console.error(line);
    if (options.out) appendFileSync(options.out, `${line}\n`);
  }
}
console.log(table(results));
const isBad = ({ unannounced, doubled, recovered }) => unannounced > 0 || doubled > 0 || !recovered;
process.exit(results.some(isBad) ? 1 : 0);
