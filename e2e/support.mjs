// The harness: processes, ports, waiting.
//
// It starts a Redis, edges and the demo on free ports of the loopback, and ends what it started, by
// process id. Nothing waits for a length of time: everything waits for an event or asks again and
// again, with one generous deadline that only a failing test sees.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

// Beyond any time that something takes which works, on a machine however busy.
export const DEADLINE_MS = 20_000;

export const API_KEY = "key-of-the-e2e-suite";

// The binary under test.
export const SIGNAL =
  process.env.SIGNAL_BIN ?? fileURLToPath(new URL("../target/release/signal", import.meta.url));
const LOG_LINES_MAX = 200;

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
// How the test runner ends a file that takes too long.
process.on("SIGTERM", () => process.exit(143));

// A folder that is gone with this process.
export const scratch = mkdtempSync(join(tmpdir(), "signal-e2e-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

// Rejects if a promise takes longer than what works ever does.
export async function within(what, promise) {
  const timer = new AbortController();
  const late = pause(DEADLINE_MS, null, { signal: timer.signal, ref: true }).then(() => {
    throw new Error(`in vain: ${typeof what === "function" ? what() : what}`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
  }
}

// Asks again and again until the answer is truthy, and returns it.
export async function until(what, ask) {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`in vain: ${what}`);
    await pause(10);
  }
}

// === Processes ===

// A child process whose output is kept for the message of a failure.
export class Process {
  constructor(command, args, { environment = {}, cwd = scratch } = {}) {
    const env = { PATH: process.env.PATH, HOME: scratch, TMPDIR: scratch, ...environment };
    this.name = [command.split("/").at(-1), ...args].join(" ");
    this.lines = [];
    this.watchers = new Set();
    this.child = spawn(command, args, { env, cwd, stdio: ["ignore", "pipe", "pipe"] });
    running.add(this.child);
    this.exited = new Promise((resolve) => {
      this.child.on("error", (error) => resolve({ error }));
      this.child.on("close", (code, signal) => resolve({ code, signal }));
    }).finally(() => running.delete(this.child));
    for (const stream of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => this.#note(line));
    }
  }

  #note(line) {
    this.lines.push(line);
    if (this.lines.length > LOG_LINES_MAX) this.lines.shift();
    for (const watcher of this.watchers) watcher(line);
  }

  // The first truthy result of `test` for a line of output, past or to come.
  async line(what, test) {
    const found = this.lines.map(test).find(Boolean);
    if (found) return found;
    const next = new Promise((resolve, reject) => {
      const watcher = (line) => {
        const result = test(line);
        if (!result) return;
        this.watchers.delete(watcher);
        resolve(result);
      };
      this.watchers.add(watcher);
      this.exited.then((exit) => {
        const how = exit.error ?? exit.signal ?? exit.code;
        reject(new Error(`${this.name} ended (${how}):\n${this.lines.join("\n")}`));
      });
    });
    return within(() => `${what} of ${this.name}:\n${this.lines.join("\n")}`, next);
  }

  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    return within(`end of ${this.name}`, this.exited);
  }
}

// Runs a command to its end.
export async function run(command, args, { environment, input } = {}) {
  const env = { PATH: process.env.PATH, HOME: scratch, ...environment };
  const child = spawn(command, args, { env, cwd: scratch });
  running.add(child);
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("utf8").on("data", (text) => (output[name] += text));
  }
  child.stdin.end(input);
  const [code] = await within(`end of ${command} ${args.join(" ")}`, once(child, "close"));
  running.delete(child);
  return { code, ...output };
}

export const signal = (args, options) => run(SIGNAL, args, options);

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

// A Redis that keeps nothing.
export async function startRedis({ port } = {}) {
  port ??= await freePort();
  const settings = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const redis = new Process("redis-server", [...settings.map(String), "--dir", scratch]);
  await redis.line("readiness", (line) => line.includes("Ready to accept connections"));
  return Object.assign(redis, { port });
}

// The path of Bun. Its package may have been installed without running its install script.
export function bun() {
  const folder = fileURLToPath(new URL("node_modules/", import.meta.url));
  const path = join(folder, ".bin/bun");
  if (spawnSync(path, ["--version"]).status !== 0) {
    spawnSync(process.execPath, [join(folder, "bun/install.js")], { cwd: join(folder, "bun") });
  }
  return path;
}

// === Edges ===

export const redisSettings = (redis) => ({
  APP_ENV_WEBSOCKET_REDIS_MODE: "single",
  APP_ENV_WEBSOCKET_REDIS_PORT: String(redis.port),
});

// Two workers, so that messages also cross from one to the other.
const EDGE_SETTINGS = {
  SIGNAL_LISTEN: "127.0.0.1:0",
  SIGNAL_ADMIN_LISTEN: "127.0.0.1:0",
  SIGNAL_WORKERS: "2",
  SIGNAL_LOG_FORMAT: "json",
};

const SERVE_SETTINGS = {
  SIGNAL_AUTH: "insecure-dev",
  SIGNAL_ROOMS: "*",
  SIGNAL_API_KEY: API_KEY,
  SIGNAL_DRAIN_DELAY: "0s",
  SIGNAL_DRAIN_WINDOW: "1s",
};

// An edge on free ports, unless told otherwise.
export class Edge extends Process {
  static serve({ redis, environment } = {}) {
    const settings = { ...SERVE_SETTINGS, ...(redis && redisSettings(redis)), ...environment };
    return Edge.#start("serve", settings);
  }

  static demo(environment) {
    return Edge.#start("demo", environment);
  }

  static async #start(command, settings) {
    const edge = new Edge(SIGNAL, [command], { environment: { ...EDGE_SETTINGS, ...settings } });
    Object.assign(edge, await edge.line("address", addresses));
    await until(`readiness of ${edge.name}`, () => edge.isReady());
    return edge;
  }

  get url() {
    return `ws://${this.address}/ws`;
  }

  async isReady() {
    const response = await fetch(`http://${this.address}/readyz`);
    await response.arrayBuffer();
    return response.status === 200;
  }

  async info() {
    return (await fetch(`http://${this.admin}/v1/info`)).json();
  }

  // Posts to the publish API; text goes as it is.
  async publish(message, { key = API_KEY } = {}) {
    const response = await fetch(`http://${this.admin}/v1/publish`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}` },
      body: typeof message === "string" ? message : JSON.stringify(message),
    });
    return { status: response.status, answer: await response.json() };
  }

  // Nothing may be left of clients that are gone.
  async forgotten() {
    await until(`empty indexes of ${this.name}`, async () => {
      const { connections, rooms, users, outboxBytes } = await this.info();
      const counts = [...Object.values(connections), rooms, users, outboxBytes];
      return counts.every((count) => count === 0);
    });
  }
}

// The addresses in the log line that tells them.
function addresses(line) {
  if (!line.startsWith("{") || !line.includes('"listening"')) return null;
  const { address, admin } = JSON.parse(line).fields;
  return { address, admin };
}
