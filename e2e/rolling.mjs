// A rolling restart, measured: three edges behind Traefik, on one Redis, with many clients and a steady
// stream of messages. Each edge in turn gets SIGTERM, drains, ends and is started again.
//
//   node rolling.mjs [--clients 2000] [--rate 200] [--chart ../docs/rolling-restart.svg]
//
// Prints what it counted and draws reconnects per second and delivery latency. It needs the Traefik
// that scripts/lint-deploy.sh installs into e2e/.cache (or TRAEFIK=path), and uses deploy/traefik as is,
// but for its ports.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import Redis from "ioredis";
import { WebSocket } from "ws";

import { Edge, Process, freePort, scratch, startRedis, until } from "./support.mjs";

const { values: options } = parseArgs({
  options: {
    clients: { type: "string", default: "2000" },
    rate: { type: "string", default: "200" },
    chart: { type: "string" },
  },
});
const CLIENTS = Number(options.clients);
const RATE = Number(options.rate);
const ROOMS = Math.max(1, CLIENTS / 10);
const EDGES = 3;
const DRAIN = { SIGNAL_DRAIN_DELAY: "3s", SIGNAL_DRAIN_WINDOW: "10s", SIGNAL_LOG: "warn,signal=info" };
const QUIET_SECONDS = 5;
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const began = Date.now();
const second = (time = Date.now()) => Math.floor((time - began) / 1000);
const seconds = []; // { reconnects, latencies }
const at = (time) => (seconds[second(time)] ??= { reconnects: 0, latencies: [] });
const restarts = [];
const counts = { reconnects: 0, refused: 0, missedWhileConnected: 0, doubled: 0, closes: {} };

// A client of signal.v1 that reconnects as it is told, and checks the numbers of its room.
class Till {
  constructor(number, url) {
    Object.assign(this, { number, url, room: `room-${number % ROOMS}`, online: false, last: null });
    this.connect();
  }

  connect() {
    this.retry = null;
    this.socket = new WebSocket(this.url, ["signal.v1.json"]);
    this.socket.on("open", () => {
      this.send({ event: "authenticate", data: { userId: `till-${this.number}` } });
      this.send({ event: "join", data: { rooms: [this.room] }, id: 1 });
    });
    this.socket.on("message", (data) => this.message(JSON.parse(data.toString())));
    this.socket.on("unexpected-response", () => counts.refused++);
    this.socket.on("error", () => {});
    this.socket.on("close", (code) => {
      if (stopped) return;
      this.online = false;
      counts.closes[code] = (counts.closes[code] ?? 0) + 1;
      setTimeout(() => this.connect(), this.retry ?? 500 + Math.random() * 1000);
    });
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  message({ event, data, id }) {
    if (event === "goodbye") this.retry = data.retryAfterMs;
    if (event === "ack" && id === 1) {
      // Nothing published after this is missed, until the close.
      Object.assign(this, { online: true, last: null });
      if (this.wasOnline) {
        counts.reconnects++;
        at(Date.now()).reconnects++;
      }
      this.wasOnline = true;
    }
    if (event !== "n") return;
    at(Date.now()).latencies.push(Date.now() - data.ts);
    if (this.online && this.last !== null) {
      if (data.n <= this.last) counts.doubled++;
      counts.missedWhileConnected += Math.max(0, data.n - this.last - 1);
    }
    this.last = data.n;
  }
}

let stopped = false;
const redis = await startRedis();
const edges = await Promise.all(Array.from({ length: EDGES }, () => Edge.serve({ redis, environment: DRAIN })));
const port = await startTraefik(edges.map((edge) => edge.address));
const tills = [];
for (let number = 0; number < CLIENTS; number++) {
  tills.push(new Till(number, `ws://127.0.0.1:${port}/ws`));
  if (number % 50 === 49) await until("a batch of clients", () => tills.slice(-50).every((till) => till.online));
}

const publisher = new Redis(redis.port, "127.0.0.1");
const numbers = new Array(ROOMS).fill(0);
let published = 0;
const start = Date.now();
const publishing = setInterval(() => {
  for (const due = ((Date.now() - start) / 1000) * RATE; published < due; published++) {
    const index = published % ROOMS;
    const data = { n: ++numbers[index], ts: Date.now() };
    const envelope = { serverId: "emitter", type: "room", target: `room-${index}`, event: "n", data };
    publisher.publish(`ws:room:room-${index}`, JSON.stringify(envelope));
  }
}, 5);

await pause(QUIET_SECONDS * 1000);
for (let index = 0; index < EDGES; index++) {
  restarts.push(second());
  const { address } = edges[index];
  const { code } = await drained(edges[index]);
  console.log(`edge ${index + 1} ended with ${code}`);
  edges[index] = await Edge.serve({ redis, environment: { ...DRAIN, SIGNAL_LISTEN: address } });
  await until("every client is back", () => tills.every((till) => till.online));
  await pause(QUIET_SECONDS * 1000);
}
clearInterval(publishing);
stopped = true;
const closes = Object.entries(counts.closes).map(([code, count]) => `${code}: ${count}`).join(", ");
for (let index = 0; index < seconds.length; index++) seconds[index] ??= { reconnects: 0, latencies: [] };
const all = seconds.flatMap((each) => each?.latencies ?? []).sort((a, b) => a - b);
const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
console.log(`${CLIENTS} clients, ${RATE} messages/s, ${EDGES} edges restarted in ${second()} s`);
console.log(`deliveries ${all.length}, p50 ${quantile(all, 0.5)} ms, p99 ${quantile(all, 0.99)} ms`);
console.log(`reconnects ${counts.reconnects} (most in a second: ${Math.max(...seconds.map((each) => each?.reconnects ?? 0))}), refused ${counts.refused}`);
console.log(`closes ${closes}`);
console.log(`missed while connected ${counts.missedWhileConnected}, doubled ${counts.doubled}`);
if (options.chart) writeFileSync(options.chart, chart());
process.exit(counts.missedWhileConnected + counts.doubled > 0 ? 1 : 0);

// SIGTERM, and the exit once the drain is over.
async function drained(edge) {
  edge.child.kill("SIGTERM");
  return edge.exited;
}

async function startTraefik(addresses) {
  const [web, admin] = [await freePort(), await freePort()];
  const settings = join(scratch, "static.yaml");
  const text = readFileSync(here("../deploy/traefik/static.yaml"), "utf8")
    .replace('":80"', `"127.0.0.1:${web}"`)
    .replace('":8080"', `"127.0.0.1:${admin}"`)
    .replace("/etc/traefik/dynamic.yaml", here("../deploy/traefik/dynamic.yaml"));
  writeFileSync(settings, text);
  const traefik = process.env.TRAEFIK ?? here(".cache/venv/bin/traefik");
  new Process(traefik, [`--configFile=${settings}`], { environment: { SIGNAL_EDGES: addresses.join(",") } });
  await until("traefik sends to an edge", async () => {
    const response = await fetch(`http://127.0.0.1:${web}/ws`).catch(() => null);
    return response?.status === 426;
  });
  return web;
}

// Two panels over the same seconds, as SVG.
function chart() {
  const width = 860;
  const panel = { left: 60, width: 780, height: 150 };
  const count = seconds.length;
  const x = (index) => panel.left + (index / count) * panel.width;
  const step = panel.width / count;
  const reconnects = seconds.map((each) => each?.reconnects ?? 0);
  const latencies = seconds.map((each) => (each?.latencies ?? []).sort((a, b) => a - b));
  const [p50, p99] = [0.5, 0.99].map((share) => latencies.map((sorted) => quantile(sorted, share)));
  const scale = (values, top) => {
    const max = Math.max(1, ...values);
    return { max, y: (value) => top + panel.height - (value / max) * panel.height };
  };
  const upper = scale(reconnects, 50);
  const lower = scale(p99, 270);
  const bars = reconnects
    .map((value, index) => `<rect x="${x(index).toFixed(1)}" y="${upper.y(value).toFixed(1)}" width="${(step * 0.8).toFixed(1)}" height="${(50 + panel.height - upper.y(value)).toFixed(1)}" fill="#3b6ea5"/>`)
    .join("");
  const line = (values, color) =>
    `<polyline fill="none" stroke="${color}" stroke-width="1.5" points="${values.map((value, index) => `${x(index + 0.5).toFixed(1)},${lower.y(value).toFixed(1)}`).join(" ")}"/>`;
  const marks = restarts
    .map((index, edge) => `<line x1="${x(index)}" x2="${x(index)}" y1="40" y2="420" stroke="#999" stroke-dasharray="3 3"/><text x="${x(index) + 4}" y="20">SIGTERM to edge ${edge + 1}</text>`)
    .join("");
  const axis = (scaleOf, top, title) =>
    `<text x="${panel.left}" y="${top - 12}" font-weight="600">${title}</text><text x="${panel.left - 6}" y="${top + 8}" text-anchor="end">${scaleOf.max}</text><text x="${panel.left - 6}" y="${top + panel.height}" text-anchor="end">0</text><line x1="${panel.left}" x2="${panel.left + panel.width}" y1="${top + panel.height}" y2="${top + panel.height}" stroke="#666"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} 460" font-family="sans-serif" font-size="11" fill="#222"><rect width="${width}" height="460" fill="#fff"/>
${axis(upper, 50, "Reconnects per second")}${bars}
${axis(lower, 270, "Delivery latency, ms (p50 dark, p99 light)")}${line(p99, "#e09f3e")}${line(p50, "#335c67")}
${marks}<text x="${panel.left + panel.width}" y="445" text-anchor="end">${count} s, ${CLIENTS} clients, ${RATE} messages/s</text></svg>\n`;
}
