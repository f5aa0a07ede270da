// The transcripts of the documents are true: each is replayed against an edge, byte for byte.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { once } from "node:events";
import { describe, test } from "node:test";
import { WebSocket } from "ws";

import { API_KEY, Edge, startRedis, until, within } from "./support.mjs";
import { JWT_SECRET, mint } from "./token.mjs";

const FOLDER = new URL("../docs/transcripts/", import.meta.url);

class Replay {
  #known = new Map();
  #frames = [];
  #settings = { SIGNAL_API_KEY: API_KEY, SIGNAL_JWT_SECRET: JWT_SECRET, SIGNAL_ROOMS: "", SIGNAL_DRAIN_WINDOW: "0s" };

  constructor(t) {
    this.test = t;
  }

  async step(line) {
    const [, kind, rest] = /^(\S+) ?(.*)$/.exec(line);
    const steps = {
      "#": () => {},
      edge: () => this.#set(rest),
      connect: () => this.#connect(rest),
      ">": () => this.socket.send(this.#fill(rest)),
      "<": () => this.#expect(rest, false),
      ">x": () => this.socket.send(Buffer.from(rest, "hex")),
      "<x": () => this.#expect(rest, true),
      "!": () => this.#happen(rest),
      x: () => this.#closed(rest),
    };
    assert.ok(steps[kind], `no such line: ${line}`);
    await steps[kind]();
  }

  #set(setting) {
    const [name, value] = setting.split("=");
    this.#settings[name] = value;
  }

  async #connect(subprotocol) {
    if (this.#settings.APP_ENV_WEBSOCKET_REDIS_MODE) {
      this.redis = await startRedis();
      this.#settings.APP_ENV_WEBSOCKET_REDIS_PORT = String(this.redis.port);
    }
    this.edge = await Edge.serve({ environment: this.#settings });
    this.test.after(async () => {
      this.socket.terminate();
      await this.edge.stop();
      await this.redis?.stop("SIGKILL");
    });
    this.socket = new WebSocket(this.edge.url, subprotocol ? [subprotocol] : []);
    this.ended = new Promise((resolve) => {
      this.socket.on("close", (code, reason) => resolve(`${code} ${reason}`));
    });
    this.socket.on("message", (data, isBinary) => this.#frames.push({ data, isBinary }));
    await within("connection", once(this.socket, "open"));
    assert.equal(this.socket.protocol, subprotocol);
  }

  // Puts in what is known: tokens, and what was seen before.
  #fill(text) {
    return text
      .replaceAll(/"\$token\((\d+)\)"/g, (_, seconds) => JSON.stringify(mint("ann", { seconds: Number(seconds), rooms: ["branch:*"] })))
      .replaceAll(/"\$(\w+)"/g, (whole, name) => this.#known.get(name) ?? whole);
  }

  async #expect(text, isBinary) {
    await until(`a frame like ${text}`, () => this.#frames.length > 0);
    const frame = this.#frames.shift();
    assert.equal(frame.isBinary, isBinary);
    if (isBinary) return text === "..." || assert.equal(frame.data.toString("hex"), text.replaceAll(" ", ""));
    const names = [];
    const pattern = this.#fill(text)
      .replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
      .replaceAll(/"\\\$(\w+)"/g, (_, name) => (names.push(name), '("[^"]*"|-?[\\d.]+|null|\\[[^\\]]*\\])'));
    const match = new RegExp(`^${pattern}$`).exec(frame.data.toString());
    assert.ok(match, `${frame.data} is not ${text}`);
    names.forEach((name, index) => this.#known.set(name, match[index + 1]));
  }

  async #happen(what) {
    // What was sent before has been dealt with once a ping is answered.
    this.socket.ping();
    await within("pong", once(this.socket, "pong"));
    if (what === "drain") return this.edge.child.kill("SIGTERM");
    if (what === "bus down") {
      await this.redis.stop("SIGKILL");
      return until("the edge notices", async () => !(await this.edge.isReady()));
    }
    if (what === "bus up") {
      this.redis = await startRedis({ port: this.redis.port });
      // Its connection for publishing comes back by itself, not with those that listen.
      const unheard = { room: "unheard", event: "unheard", data: null };
      return until("the edge publishes", async () => (await this.edge.publish(unheard)).status === 200);
    }
    const [, message] = /^publish (.*)$/.exec(what);
    const { status, answer } = await this.edge.publish(this.#fill(message));
    assert.equal(status, 200, JSON.stringify(answer));
  }

  async #closed(expected) {
    assert.equal(await within("close", this.ended), expected);
  }

  // Nothing has come that the transcript does not have.
  finish() {
    assert.deepEqual(this.#frames.map(({ data }) => data.toString()), []);
  }
}

describe("transcripts", () => {
  for (const name of readdirSync(FOLDER).filter((name) => name.endsWith(".txt"))) {
    test(name, async (t) => {
      const replay = new Replay(t);
      const lines = readFileSync(new URL(name, FOLDER), "utf8").split("\n");
      for (const [index, line] of lines.entries()) {
        if (line.trim() === "") continue;
        try {
          await replay.step(line);
        } catch (error) {
          error.message = `${name}:${index + 1}: ${error.message}`;
          throw error;
        }
      }
      replay.finish();
    });
  }
});
