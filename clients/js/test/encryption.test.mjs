// Encryption on a fake server that seals as docs/protocol.md says: session keys, room keys, and what
// must not be taken for a message.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { FakeServer } from "../src/testing.js";
import { start } from "./harness.mjs";

const { subtle } = crypto;
const CURVE = { name: "ECDH", namedCurve: "P-256" };
const toBase64 = (bytes) => Buffer.from(bytes).toString("base64");
const fromBase64 = (text) => Buffer.from(text, "base64");
const aes = (bytes) => subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]);

async function seal(key, message) {
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const text = Buffer.from(JSON.stringify(message));
  return { iv: toBase64(iv), ct: toBase64(await subtle.encrypt({ name: "AES-GCM", iv }, key, text)) };
}

// A server that agrees on keys, and seals what it says from `connected` on.
class SealingServer extends FakeServer {
  constructor(options = {}) {
    super({ ...options, login: (data, connection) => this.agree(data, connection) });
    this.frames = [];
    this.roomKeys = new Map();
    const server = this;
    this.WebSocket = class extends this.WebSocket {
      chain = Promise.resolve();

      say(message) {
        this.chain = this.chain.then(() => server.sealed(this, message)).then((frames) => {
          for (const frame of frames) server.write(this, frame);
        });
      }

      hear(frame) {
        const message = JSON.parse(frame);
        server.frames.push(message);
        if (message.event !== "encrypted") return server.hear(this, message);
        const algorithm = { name: "AES-GCM", iv: fromBase64(message.data.iv) };
        this.incoming = (this.incoming ?? Promise.resolve())
          .then(() => subtle.decrypt(algorithm, this.key, fromBase64(message.data.ct)))
          .then((text) => server.hear(this, JSON.parse(Buffer.from(text))));
      }
    };
  }

  write(connection, message) {
    connection.write(JSON.stringify(message));
  }

  async agree({ publicKey }, connection) {
    if (!publicKey) return {};
    const pair = await subtle.generateKey(CURVE, false, ["deriveBits"]);
    const theirs = await subtle.importKey("raw", fromBase64(publicKey), CURVE, false, []);
    const shared = await subtle.deriveBits({ name: "ECDH", public: theirs }, pair.privateKey, 256);
    const secret = await subtle.importKey("raw", shared, "HKDF", false, ["deriveBits"]);
    const salt = crypto.getRandomValues(new Uint8Array(32));
    const info = Buffer.from("ignis-ecdh-p256-aes-256-gcm-v1");
    const bits = await subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, secret, 256);
    connection.key = await aes(bits);
    const serverPublicKey = toBase64(await subtle.exportKey("raw", pair.publicKey));
    return { serverPublicKey, salt: toBase64(salt) };
  }

  // The frames for a message: a room's key goes ahead of its first use.
  async sealed(connection, message) {
    if (!connection.key || message.event === "connected") return [message];
    const session = async (inner) => ({ event: "encrypted", data: await seal(connection.key, inner) });
    const room = this.roomKeys.get(message.to?.room);
    if (!room) return [await session(message)];
    const frames = [];
    if (!connection.known?.has(room.kid)) {
      connection.known = new Set([...(connection.known ?? []), room.kid]);
      const data = { room: message.to.room, kid: room.kid, key: toBase64(room.bytes) };
      if (!room.isWithheld) frames.push(await session({ event: "roomkey", data }));
    }
    return [...frames, { event: "encrypted", data: { kid: room.kid, ...(await seal(room.key, message)) } }];
  }

  async setRoomKey(room, kid, { isWithheld = false } = {}) {
    const bytes = crypto.getRandomValues(new Uint8Array(32));
    this.roomKeys.set(room, { kid, bytes, key: await aes(bytes), isWithheld });
  }
}

const encrypted = (t, options = {}, server = new SealingServer()) =>
  start(t, { encryption: "required", ...options }, server);

describe("encryption", () => {
  test("everything but the login is sealed, both ways, in order", async (t) => {
    const { client, server } = encrypted(t, { rooms: ["a"] });
    server.on("echo", (data) => data);
    await client.ready();
    assert.ok(client.diagnostics().isEncrypted);
    const answers = Array.from({ length: 50 }, (_, number) => client.request("echo", number));
    assert.deepEqual(await Promise.all(answers), answers.map((_, number) => number));
    const seen = [];
    client.on("e", (data) => seen.push(data));
    const last = client.once("last");
    for (let number = 0; number < 50; number += 1) server.deliver({ room: "a", event: "e", data: number });
    server.deliver({ all: true, event: "last" });
    await last;
    assert.deepEqual(seen, answers.map((_, number) => number));
    assert.deepEqual([...new Set(server.frames.slice(1).map(({ event }) => event))], ["encrypted"]);
    const ivs = server.frames.slice(1).map(({ data }) => data.iv);
    assert.equal(new Set(ivs).size, ivs.length);
  });

  test("on the plain protocol too", async (t) => {
    const server = new SealingServer({ protocol: "plain" });
    const { client } = encrypted(t, { protocol: "plain" }, server);
    await client.join("a");
    while (server.received.length < 2) await new Promise((resolve) => setImmediate(resolve));
    const heard = client.once("e");
    server.deliver({ room: "a", event: "e", data: { total: "3.80" } });
    assert.deepEqual((await heard).data, { total: "3.80" });
  });

  test("room keys come before their use, and are replaced", async (t) => {
    const { client, server } = encrypted(t);
    await client.join(["a", "b"]);
    for (const [room, kid] of [["a", 1], ["b", 2], ["a", 3]]) {
      await server.setRoomKey(room, kid);
      for (const data of [1, 2]) {
        const heard = client.once("e");
        server.deliver({ room, event: "e", data, id: "m" });
        const { data: got, meta } = await heard;
        assert.deepEqual([got, meta.room, meta.id], [data, room, "m"]);
      }
    }
    assert.equal(client.state, "online");
    // A producer cannot hand out keys.
    const heard = client.once("roomkey");
    server.deliver({ all: true, event: "roomkey", data: { room: "a", kid: 3, key: "AAAA" } });
    assert.deepEqual((await heard).meta.to, { all: true });
  });

  test("a key that is missing is a loss that is said, once, and nothing is delivered", async (t) => {
    const { client, server } = encrypted(t);
    await client.join("a");
    client.on("e", () => assert.fail("it cannot have been read"));
    const resyncs = [];
    client.on("resync", (rooms, { reason }) => resyncs.push([rooms, reason]));
    await server.setRoomKey("a", 9, { isWithheld: true });
    for (let round = 0; round < 3; round += 1) server.deliver({ room: "a", event: "e", data: round });
    const after = client.once("after");
    server.deliver({ all: true, event: "after" });
    await after;
    assert.deepEqual(resyncs, [[null, "room key"]]);
    assert.equal(client.state, "online");
  });

  test("what was changed on its way, or comes in clear, ends the connection", async (t) => {
    for (const spoil of [
      (frame) => ({ ...frame, data: { ...frame.data, ct: `AAAA${frame.data.ct.slice(4)}` } }),
      () => ({ event: "e", data: "in clear", to: { all: true } }),
      () => ({ event: "encrypted", data: { iv: "%", ct: "%" } }),
    ]) {
      const server = new SealingServer();
      const { client, states } = encrypted(t, {}, server);
      await client.ready();
      client.on("*", () => assert.fail("garbage was delivered"));
      const lost = client.once("state");
      server.write = (connection, frame) => connection.write(JSON.stringify(spoil(frame)));
      server.deliver({ all: true, event: "e", data: 1 });
      await lost;
      assert.equal(states.at(-1).reason, "a frame could not be read");
    }
  });

  test("an edge that does not encrypt is refused, or put up with", async (t) => {
    const required = start(t, { encryption: true });
    await assert.rejects(required.client.ready(), { code: "closed" });
    const optional = start(t, { encryption: "optional" });
    await optional.client.join("a");
    assert.ok(!optional.client.diagnostics().isEncrypted);
    const heard = optional.client.once("e");
    optional.server.deliver({ room: "a", event: "e", data: 1 });
    assert.equal((await heard).data, 1);
  });

  test("each connection has keys of its own", async (t) => {
    const { client, server } = encrypted(t, { reconnect: { minMs: 1, maxMs: 2 } });
    await client.ready();
    server.cut();
    await client.once("recovered");
    const keys = server.received.filter(({ event }) => event === "authenticate");
    assert.notEqual(keys[0].data.publicKey, keys[1].data.publicKey);
  });
});
