// What a fleet costs Redis as it grows: 1, 2, 4 and 8 edges with Signal's exact subscriptions, beside as
// many servers of the npm package with its pattern subscriptions, on the same traffic in turns.
//
//   node scale-out.mjs [--publishes 20000] [--edges 1,2,4,8] [--charts ../docs]
//
// Prints, by kind of target, how many edges Redis gave each message to (what PUBLISH answers; of Signal
// also what the edges count) and Redis' CPU time, and draws both. Each fleet has a Redis of its own.

import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { Client, joined } from "./client.mjs";
import { Redis, TypeScriptServer } from "./ignis.mjs";
import { Edge, startRedis, until } from "./support.mjs";

const MEMBERS = 10;
// Each waits for its answer, so that Redis takes messages one by one, as from producers.
const PUBLISHERS = 4;
// In turns, so that what else the machine does falls on both.
const ROUNDS = 5;
const DATA = { text: "x".repeat(200) };
const FLEETS = {
  signal: { title: "Signal, exact subscriptions", start: (redis) => Edge.serve({ redis }) },
  script: { title: "TypeScript server, patterns", start: (redis) => TypeScriptServer.start(redis) },
};
const KINDS = {
  client: { title: "to a client", edgesMin: 1 },
  user: { title: "to a user", edgesMin: 1 },
  "room-one": { title: "to a room of 10 on one edge", edgesMin: 1 },
  "room-two": { title: "to a room of 10 on two edges", edgesMin: 2 },
};

function usage(problem) {
  console.error(`scale-out.mjs: ${problem}`);
  process.exit(64);
}

function parse() {
  let values;
  try {
    values = parseArgs({
      options: {
        publishes: { type: "string", default: "20000" },
        edges: { type: "string", default: "1,2,4,8" },
        charts: { type: "string" },
      },
    }).values;
  } catch (error) {
    return usage(error.message);
  }
  const isCount = (number) => Number.isInteger(number) && number > 0;
  const publishes = Number(values.publishes);
  if (!isCount(publishes) || publishes % ROUNDS > 0) usage(`--publishes is a multiple of ${ROUNDS}`);
  const edges = values.edges.split(",").map(Number);
  if (!edges.every(isCount)) usage("--edges is a list of numbers above 0");
  return { publishes, edges, charts: values.charts };
}

// === A fleet ===

class Fleet {
  static async start(name, count) {
    const redis = await startRedis();
    const edges = await Promise.all(Array.from({ length: count }, () => FLEETS[name].start(redis)));
    const fleet = new Fleet(name, redis, edges);
    await fleet.connect();
    return fleet;
  }

  constructor(name, redis, edges) {
    Object.assign(this, { name, redis, edges, delivered: 0 });
    this.control = new Redis({ port: redis.port });
    this.publishers = Array.from({ length: PUBLISHERS }, () => new Redis({ port: redis.port }));
  }

  // Ten clients on each edge, all in a room of that edge, the second half also in one with the first
  // half of the next edge.
  async connect() {
    const count = this.edges.length;
    this.clients = [];
    for (const [index, edge] of this.edges.entries()) {
      for (let member = 0; member < MEMBERS; member++) {
        const pair = member < MEMBERS / 2 ? (index + count - 1) % count : index;
        const rooms = [`one-${index}`, `two-${pair}`];
        this.clients.push(await Client.connect(edge.url, { userId: `user-${index}-${member}`, rooms }));
      }
    }
    await joined(this.control, this.clients);
    for (const { socket } of this.clients) {
      socket.removeAllListeners("message");
      socket.on("message", () => this.delivered++);
    }
  }

  target(kind, number) {
    const { id, userId } = this.clients[number % this.clients.length];
    const index = number % this.edges.length;
    const targets = { client: id, user: userId, "room-one": `one-${index}`, "room-two": `two-${index}` };
    return [kind.split("-")[0], targets[kind]];
  }

  // Publishes, waits until all has arrived, and says what it took.
  async measure(kind, publishes) {
    const members = kind.startsWith("room") ? MEMBERS : 1;
    const [cpu, counted, delivered] = [await this.cpuMs(), await this.counted(), this.delivered];
    let number = 0;
    let receivers = 0;
    const publish = async (publisher) => {
      while (number < publishes) {
        const [type, target] = this.target(kind, number++);
        const envelope = { serverId: "scale-out", type, target, event: "n", data: DATA };
        const heard = await publisher.publish(`ws:${type}:${target}`, JSON.stringify(envelope));
        receivers += heard;
      }
    };
    await Promise.all(this.publishers.map(publish));
    const expected = delivered + publishes * members;
    await until("deliveries", () => this.delivered >= expected);
    if (this.delivered > expected) throw new Error(`${this.delivered - expected} deliveries too many`);
    return { publishes, receivers, counted: (await this.counted()) - counted, cpu: (await this.cpuMs()) - cpu };
  }

  // Of Redis. `INFO cpu` is what getrusage says, as /proc/PID/stat is, in microseconds.
  async cpuMs() {
    const text = await this.control.info("cpu");
    const seconds = (name) => Number(new RegExp(`^used_cpu_${name}:(.*)`, "m").exec(text)[1]);
    return (seconds("user") + seconds("sys")) * 1000;
  }

  // Messages from the bus, as the edges count them; the package counts none.
  async counted() {
    if (this.name !== "signal") return 0;
    const pages = await Promise.all(
      this.edges.map(async ({ admin }) => (await fetch(`http://${admin}/metrics`)).text()),
    );
    return pages.reduce((sum, page) => sum + Number(/^signal_bus_messages_total (\d+)/m.exec(page)[1]), 0);
  }

  async stop() {
    for (const { socket } of this.clients) socket.terminate();
    for (const connection of [this.control, ...this.publishers]) connection.disconnect();
    await Promise.all(this.edges.map((edge) => edge.stop("SIGKILL")));
    await this.redis.stop();
  }
}

// === The measurement ===

// Rows of { edges, kind, signal, script }.
async function measureAll({ edges, publishes }) {
  const rows = [];
  for (const count of edges) {
    const fleets = {};
    for (const name of Object.keys(FLEETS)) fleets[name] = await Fleet.start(name, count);
    for (const [kind, { edgesMin }] of Object.entries(KINDS)) {
      if (count < edgesMin) continue;
      // One that is not counted, to warm up.
      for (const fleet of Object.values(fleets)) await fleet.measure(kind, publishes / ROUNDS);
      const row = { edges: count, kind };
      for (const name of Object.keys(FLEETS)) row[name] = { publishes: 0, receivers: 0, counted: 0, cpu: 0 };
      for (let round = 0; round < ROUNDS; round++) {
        for (const [name, fleet] of Object.entries(fleets)) {
          const measured = await fleet.measure(kind, publishes / ROUNDS);
          for (const key of Object.keys(measured)) row[name][key] += measured[key];
        }
      }
      console.error(JSON.stringify(row));
      rows.push(row);
    }
    for (const fleet of Object.values(fleets)) await fleet.stop();
  }
  return rows;
}

const perEdge = ({ receivers, publishes }, { edges }) => receivers / publishes / edges;
const perThousand = ({ cpu, publishes }) => (cpu / publishes) * 1000;

function table(rows) {
  const names = Object.keys(FLEETS);
  const head = [
    "target",
    "edges",
    "messages per edge and publish: Signal",
    "TypeScript",
    "counted by Signal",
    "Redis' CPU, ms per 1000 publishes: Signal",
    "TypeScript",
  ];
  const body = Object.keys(KINDS).flatMap((kind) =>
    rows
      .filter((row) => row.kind === kind)
      .map((row) => [
        KINDS[kind].title,
        row.edges,
        ...names.map((name) => perEdge(row[name], row).toFixed(2)),
        (row.signal.counted / row.signal.publishes / row.edges).toFixed(2),
        ...names.map((name) => perThousand(row[name]).toFixed(1)),
      ]),
  );
  return [head, head.map(() => "---"), ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

// === Charts ===

const COLORS = { signal: "#2f7ed8", script: "#e08a1e" };
const STYLE = `<style>
.paper{fill:#fff}.ink{fill:#222}.line{stroke:#888;stroke-width:.6}
@media (prefers-color-scheme:dark){.paper{fill:#161b22}.ink{fill:#e6edf3}}
</style>`;

// A panel for each kind of target, edges to the right, the value upwards from zero.
function chart(title, rows, value, counts) {
  const [width, height, gap, left, top] = [170, 130, 34, 44, 74];
  const all = rows.flatMap((row) => Object.keys(FLEETS).map((name) => value(row[name], row)));
  const max = Math.max(...all) * 1.05;
  const panels = Object.entries(KINDS).map(([kind, { title }], panel) => {
    const x0 = left + panel * (width + gap);
    const x = (edges) => x0 + 10 + (counts.indexOf(edges) / Math.max(1, counts.length - 1)) * (width - 20);
    const y = (amount) => top + height - (amount / max) * height;
    const grid = [0, max / 1.05]
      .map((amount) => `<line class="line" x1="${x0}" x2="${x0 + width}" y1="${y(amount).toFixed(1)}" y2="${y(amount).toFixed(1)}"/><text class="ink" x="${x0 - 5}" y="${(y(amount) + 4).toFixed(1)}" text-anchor="end">${short(amount)}</text>`)
      .join("");
    const ticks = counts.map((edges) => `<text class="ink" x="${x(edges).toFixed(1)}" y="${top + height + 16}" text-anchor="middle">${edges}</text>`).join("");
    const lines = Object.keys(FLEETS).map((name) => {
      const points = rows.filter((row) => row.kind === kind).map((row) => [x(row.edges).toFixed(1), y(value(row[name], row)).toFixed(1)]);
      const dots = points.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${COLORS[name]}"/>`).join("");
      return `<polyline fill="none" stroke="${COLORS[name]}" stroke-width="2" points="${points.map((point) => point.join()).join(" ")}"/>${dots}`;
    });
    return `<text class="ink" x="${x0}" y="${top - 10}">${title}</text>${grid}${ticks}${lines.join("")}`;
  });
  const total = left + Object.keys(KINDS).length * (width + gap);
  const legend = Object.entries(FLEETS)
    .map(([name, { title }], index) => `<rect x="${left + index * 220}" y="32" width="12" height="12" fill="${COLORS[name]}"/><text class="ink" x="${left + 18 + index * 220}" y="42">${title}</text>`)
    .join("");
  const bottom = top + height + 40;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total} ${bottom}" font-family="sans-serif" font-size="11">${STYLE}<rect class="paper" width="${total}" height="${bottom}" rx="6"/>
<text class="ink" x="${left}" y="20" font-size="13" font-weight="600">${title}</text>${legend}
${panels.join("\n")}
<text class="ink" x="${total - gap}" y="${bottom - 8}" text-anchor="end">edges</text></svg>\n`;
}

const short = (amount) => (amount === 0 ? "0" : amount >= 10 ? amount.toFixed(0) : amount.toFixed(1));

const options = parse();
const rows = await measureAll(options);
console.log(table(rows));
console.log(`${options.publishes} publishes each, ${cpus().length} × ${cpus()[0].model}, ${new Date().toISOString().slice(0, 10)}`);
if (options.charts) {
  const write = (name, svg) => writeFileSync(join(options.charts, name), svg);
  write("scale-out-messages.svg", chart("Bus messages that each edge receives per publish", rows, perEdge, options.edges));
  write("scale-out-cpu.svg", chart("CPU of Redis, ms per 1000 publishes", rows, perThousand, options.edges));
}
process.exit(0);
