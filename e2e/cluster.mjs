// A Redis Cluster of three masters and three replicas, as an operator forms one: `redis-cli --cluster
// create`. Each node can be killed, stopped and started again on its port.

import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

import { Process, run, scratch, until } from "./support.mjs";

export const MASTERS = 3;
const NODES = 2 * MASTERS;

// A node's bus port is its port and this, so that ports are below those of outgoing connections.
const BUS_OFFSET = 10_000;
const PORT_MIN = 11_000;
const PORT_MAX = 21_000;

// A redis-server that can be started again where it was.
export class Node {
  constructor(port, args, command = "redis-server") {
    Object.assign(this, { port, args, command });
  }

  async start() {
    this.process = new Process(this.command, this.args);
    await this.process.line("readiness", (line) => line.includes("Ready to accept connections"));
    return this;
  }

  isRunning() {
    return this.process.child.exitCode === null && this.process.child.signalCode === null;
  }

  signal(name) {
    this.process.child.kill(name);
  }

  async stop(signal = "SIGKILL") {
    await this.process.stop(signal);
  }

  // What a command of redis-cli answers.
  async ask(...args) {
    const { stdout } = await run("redis-cli", ["-p", String(this.port), ...args]);
    return stdout.trim();
  }
}

// A plain node on a port, with a folder of its own.
export function plainNode(port, args = []) {
  const folder = mkdtempSync(join(scratch, "node-"));
  const own = ["--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"];
  return new Node(port, [...own, ...args].map(String));
}

export class Cluster {
  // Six plain nodes, made into a cluster; the arguments say that they are nodes of one.
  static async start(args) {
    const ports = await clusterPorts();
    const nodes = ports.map((port) => plainNode(port, args));
    const cluster = new Cluster(nodes);
    await Promise.all(nodes.map((node) => node.start()));
    const addresses = ports.map((port) => `127.0.0.1:${port}`);
    const create = ["--cluster", "create", ...addresses, "--cluster-replicas", "1", "--cluster-yes"];
    const { code, stdout } = await run("redis-cli", create);
    if (code !== 0) throw new Error(stdout);
    await cluster.whole();
    return cluster;
  }

  constructor(nodes) {
    this.nodes = nodes;
  }

  // The edges' settings, with two of the nodes as seeds.
  settings(pubsub) {
    return {
      APP_ENV_WEBSOCKET_REDIS_MODE: "cluster",
      APP_ENV_WEBSOCKET_REDIS_CLUSTER_NODES: [0, MASTERS]
        .map((index) => `127.0.0.1:${this.nodes[index].port}`)
        .join(),
      APP_ENV_WEBSOCKET_REDIS_PUBSUB: pubsub,
    };
  }

  // Waits until every node takes the cluster for whole, and every replica follows its master.
  async whole() {
    for (const node of this.nodes) {
      await until(`a whole cluster, as ${node.port} sees it`, async () => {
        const info = await node.ask("cluster", "info");
        const nodes = await node.ask("cluster", "nodes");
        const link = await node.ask("info", "replication");
        return (
          /cluster_state:ok/.test(info) &&
          !/fail|handshake/.test(nodes) &&
          nodes.split("\n").filter((line) => /\bmaster\b/.test(line) && /\d+-\d+/.test(line.split(" ").slice(8).join(" "))).length === MASTERS &&
          /role:master|master_link_status:up/.test(link)
        );
      });
    }
  }

  async isMaster(node) {
    return /role:master/.test(await node.ask("info", "replication"));
  }

  // The replica of a master.
  async replica(master) {
    const id = await master.ask("cluster", "myid");
    const line = (await master.ask("cluster", "nodes")).split("\n").find((line) => line.includes(`slave ${id}`));
    const port = Number(/:(\d+)@/.exec(line)[1]);
    return this.nodes.find((node) => node.port === port);
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.stop().catch(() => {})));
  }
}

const taken = new Set();

// Ports that are free, as are the bus ports that go with them.
export async function clusterPorts() {
  const ports = [];
  while (ports.length < NODES) {
    const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN));
    if (taken.has(port)) continue;
    if ((await isFree(port)) && (await isFree(port + BUS_OFFSET))) {
      taken.add(port);
      ports.push(port);
    }
  }
  return ports.sort((a, b) => a - b);
}

async function isFree(port) {
  const server = createServer();
  const free = Promise.race([
    once(server.listen(port, "127.0.0.1"), "listening").then(() => true),
    once(server, "error").then(() => false),
  ]);
  if (!(await free.catch(() => false))) return false;
  server.close();
  await once(server, "close");
  return true;
}
