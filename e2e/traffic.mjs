// Numbered traffic through a fleet, and what becomes of each message: what publishes, what listens, what
// watches whether edges are ready, and a network that can go dead.

import { once } from "node:events";
import { Agent, request } from "node:http";
import { connect, createServer } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { WebSocket } from "ws";

import { API_KEY, within } from "./support.mjs";

const LOOK_INTERVAL_MS = 20;
// Of a client whose edge is gone; half as much again by chance.
const RECONNECT_MS = 500;

export const roomNames = (count) => Array.from({ length: count }, (_, index) => `room-${index}`);

// Publishes to each room at an interval, each message with the next number of its room, and notes which
// of them Redis took.
export class Traffic {
  constructor(edge, rooms, intervalMs) {
    Object.assign(this, { rooms, intervalMs, running: true });
    const [hostname, port] = edge.admin.split(":");
    const headers = { authorization: `Bearer ${API_KEY}` };
    this.agent = new Agent({ keepAlive: true });
    this.options = { hostname, port, path: "/v1/publish", method: "POST", headers, agent: this.agent };
    // Of each room: number → when it was sent. The rest was refused, or nobody knows.
    this.taken = rooms.map(() => new Map());
    this.counts = { taken: 0, refused: 0, uncertain: 0 };
    this.loops = rooms.map((room, index) => this.#loop(room, index));
  }

  async #loop(room, index) {
    await pause((this.intervalMs * index) / this.rooms.length);
    for (let number = 1; this.running; number++) {
      const next = pause(this.intervalMs);
      const sent = Date.now();
      const { status, answer } = await this.#post({ room, event: "n", data: [index, number] });
      if (status === 200) {
        this.counts.taken++;
        this.taken[index].set(number, sent);
      } else if (status === 202) {
        this.counts.refused++;
      } else if (status === 502) {
        this.counts.uncertain++;
      } else {
        throw new Error(`the publish API answered ${status}: ${JSON.stringify(answer)}`);
      }
      await next;
    }
  }

  #post(message) {
    return new Promise((resolve, reject) => {
      const posting = request(this.options, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part) => (text += part));
        response.on("end", () => resolve({ status: response.statusCode, answer: JSON.parse(text) }));
      });
      posting.on("error", reject).end(JSON.stringify(message));
    });
  }

  async stop() {
    this.running = false;
    await Promise.all(this.loops);
    this.agent.destroy();
  }
}

// A client in every room, plain or of signal.v1. It notes what came and what was announced.
export class Listener {
  constructor(rooms, isV1) {
    Object.assign(this, { rooms, isV1, closedAt: null, doubled: 0, resyncs: [], rejoins: [] });
    // Of each room: the numbers that came, and when the last one did.
    this.got = rooms.map(() => new Set());
    this.heardAt = rooms.map(() => 0);
    // Since this moment, and for how long at most nothing came in some room.
    this.silenceSince = Infinity;
    this.silence = 0;
  }

  // Connects to an edge; when it is gone, to the next one. It may begin with some of the rooms.
  async connect(edge, next = null, first = this.rooms) {
    this.socket = new WebSocket(edge.url, this.isV1 ? ["signal.v1.json"] : []);
    this.socket.on("error", () => {});
    this.socket.on("message", (text) => this.#message(JSON.parse(text)));
    this.socket.on("close", () => {
      if (next === null) return;
      this.closedAt = Date.now();
      setTimeout(() => this.connect(next), RECONNECT_MS * (1 + Math.random() / 2));
    });
    await within(`connection to ${edge.url}`, once(this.socket, "open"));
    this.#send({ event: "authenticate", data: {} });
    this.join(first);
  }

  join(rooms) {
    this.#send({ event: "join", data: { rooms }, id: 1 });
  }

  #send(message) {
    this.socket.send(JSON.stringify(message));
  }

  #message({ event, data, id }) {
    const now = Date.now();
    if (event === "resync") this.resyncs.push({ at: now, rooms: data.rooms });
    if (event === "ack" && id === 1) this.rejoins.push(now);
    if (event !== "n") return;
    const [index, number] = data;
    if (this.got[index].has(number)) this.doubled++;
    this.got[index].add(number);
    this.silence = Math.max(this.silence, this.#silent(index, now));
    this.heardAt[index] = now;
  }

  #silent(index, now) {
    return now - Math.max(this.heardAt[index], Math.min(this.silenceSince, now));
  }

  // Whether every room has been heard within so long.
  isHearing(withinMs) {
    return this.heardAt.every((at) => Date.now() - at <= withinMs);
  }

  // Forgets what came before it was there, and measures silence from now on.
  begin() {
    this.silenceSince = Date.now();
    this.silence = 0;
    this.resyncs = [];
    this.rejoins = [];
  }

  // What Redis took since `from` and this client did not get: all, and what nobody told it of. A client
  // that had to reconnect reloads without being told.
  losses({ taken }, from) {
    let lost = 0;
    let unannounced = 0;
    for (const [index, numbers] of taken.entries()) {
      for (const [number, sent] of numbers) {
        if (sent < from || this.got[index].has(number)) continue;
        lost++;
        const covers = ({ at, rooms }) => at >= sent && (rooms === null || rooms.includes(this.rooms[index]));
        if (!this.resyncs.some(covers) && !this.rejoins.some((at) => at >= sent)) unannounced++;
      }
    }
    return { lost, unannounced };
  }

  // Whether the last message that Redis took is here, for each room.
  isComplete({ taken }) {
    return taken.every((numbers, index) => this.got[index].has([...numbers.keys()].at(-1)));
  }

  close() {
    this.socket.removeAllListeners("close");
    this.socket.terminate();
  }
}

// Asks an edge again and again whether it is ready.
export class Readiness {
  constructor(edge) {
    const [hostname, port] = edge.address.split(":");
    this.agent = new Agent({ keepAlive: true });
    this.options = { hostname, port, path: "/readyz", agent: this.agent };
    this.begin();
    this.running = true;
    this.loop = this.#loop();
  }

  // Forgets what was.
  begin() {
    // When it was not ready first, when it was ready again, and how long it was not, in total.
    Object.assign(this, { isReady: true, notReadyAt: null, readyAt: null, notReadyFor: 0 });
    this.reasons = new Set();
  }

  async #loop() {
    while (this.running) {
      const answer = await this.#ask();
      if (answer === null) return;
      this.#note(answer);
      await pause(LOOK_INTERVAL_MS);
    }
  }

  #ask() {
    return new Promise((resolve) => {
      const asking = request(this.options, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part) => (text += part));
        response.on("end", () => resolve(JSON.parse(text)));
      });
      // The edge was killed.
      asking.on("error", () => resolve(null)).end();
    });
  }

  #note({ ready, reasons }) {
    const now = Date.now();
    if (!ready) this.notReadyAt ??= now;
    if (!ready && this.isReady) this.since = now;
    if (ready && !this.isReady) {
      this.readyAt = now;
      this.notReadyFor += now - this.since;
    }
    this.isReady = ready;
    for (const reason of reasons) this.reasons.add(reason.replace(/\d+ s\b/, "N s").replace(/[\d.]+:\d+/g, "HOST"));
  }

  async stop() {
    this.running = false;
    await this.loop;
    this.agent.destroy();
  }
}

// A TCP proxy to Redis, on which bytes can get stuck: without a word, as on a network that is gone.
export class Network {
  constructor(target) {
    Object.assign(this, { target, pairs: new Set(), isDead: false });
    this.server = createServer((client) => this.#accept(client));
  }

  async listen() {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    this.port = this.server.address().port;
    return this;
  }

  #accept(client) {
    const server = connect(this.target, "127.0.0.1");
    const pair = [client, server];
    this.pairs.add(pair);
    for (const [from, to] of [pair, [server, client]]) {
      from.setNoDelay(true);
      from.on("data", (bytes) => to.write(bytes));
      from.on("error", () => {});
      from.on("close", () => {
        to.destroy();
        this.pairs.delete(pair);
      });
    }
    if (this.isDead) this.#stick(pair);
  }

  #stick(pair) {
    for (const socket of pair) socket.pause();
  }

  // Connections that are there are dead for good; new ones work, as after a firewall's restart.
  forget() {
    for (const pair of this.pairs) this.#stick(pair);
  }

  // Nothing gets through, until `heal`.
  die() {
    this.isDead = true;
    this.forget();
  }

  // What got stuck arrives.
  heal() {
    this.isDead = false;
    for (const pair of this.pairs) for (const socket of pair) socket.resume();
  }

  close() {
    this.server.close();
    for (const pair of this.pairs) for (const socket of pair) socket.destroy();
  }
}
