// Payload encryption against what clients have: class `ECDH` of the npm package, WebCrypto of Node
// and WebCrypto of a browser; on the plain protocol and on signal.v1, both directions.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";

import { Client } from "./client.mjs";
import { ECDH } from "./ignis.mjs";
import { SealedClient } from "./sealed-client.mjs";
import { DEADLINE_MS, Edge, within } from "./support.mjs";

const CHROMIUM = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
const PROTOCOLS = [undefined, "signal.v1.json", "signal.v1.msgpack"];

// Whoever parses and prints these again changes them.
const DATA = '{"total":1.10,"id":12345678901234567890,"note":"☕ \\u2028"}';

// A session key by the npm package's class, as the clients of its fleet make it.
async function ignis() {
  const ecdh = ECDH.withAlgorithm();
  const { keyPair, publicKeyB64 } = await ecdh.generateKeyPair();
  return {
    publicKey: publicKeyB64,
    async derive(rawKeyB64, salt) {
      const peerPublicKey = await ecdh.importPublicKey({ rawKeyB64 });
      const { key } = await ecdh.deriveAESKey({
        privateKey: keyPair.privateKey,
        peerPublicKey,
        salt,
      });
      return {
        encrypt: (message) => ecdh.encrypt({ message, secret: key }),
        decrypt: (message) => ecdh.decrypt({ message, secret: key }),
      };
    },
  };
}

const AGREEMENTS = { "class ECDH": ignis, WebCrypto: SealedClient.webCrypto };

// What a client of a protocol gets of an event for a target.
function expected(protocol, event, to) {
  return protocol
    ? `{"event":"${event}","data":${DATA},"to":${JSON.stringify(to)}}`
    : `{"event":"${event}","data":${DATA}}`;
}

describe("payload encryption", () => {
  let edge;

  before(async () => {
    edge = await Edge.serve({ environment: { SIGNAL_ENCRYPTION: "optional" } });
  });

  after(() => edge.stop());

  const connect = (options) =>
    within("a sealed client", SealedClient.connect(edge.url, { WebSocket, ...options }));

  async function publish(target, event, data = DATA) {
    const text = `{${JSON.stringify(target).slice(1, -1)},"event":"${event}","data":${data}}`;
    const { status } = await edge.publish(text);
    assert.equal(status, 200);
  }

  for (const [name, agreement] of Object.entries(AGREEMENTS)) {
    for (const protocol of PROTOCOLS) {
      test(`${name}, ${protocol ?? "the plain protocol"}`, async () => {
        const client = await connect({ protocol, userId: "ann", agreement });
        // That it is in the room shows that what it sent was opened.
        await within("a join", client.join(["branch:1"]));
        const targets = [
          [{ room: "branch:1" }, { room: "branch:1" }],
          [{ room: "ws-default" }, { room: "ws-default" }],
          [{ user: "ann" }, { user: true }],
          [{ client: client.id }, { client: true }],
          [{ all: true }, { all: true }],
        ];
        for (const [number, [target, to]] of targets.entries()) {
          await publish(target, `e${number}`);
          await within(`message ${number}`, client.message(`e${number}`));
          assert.equal(client.texts.at(-1), expected(protocol, `e${number}`, to));
          assert.equal(client.sealed.at(-1).kid !== undefined, Boolean(protocol && to.room));
        }
        assert.deepEqual(
          client.clear.map(({ event }) => event),
          ["connected"],
        );
        const ivs = client.sealed.map(({ kid, iv }) => `${kid}/${iv}`);
        assert.equal(new Set(ivs).size, ivs.length, "an IV repeats");
        await client.close();
        await edge.forgotten();
      });
    }
  }

  test("all kinds of clients in one room get everything, in order", async () => {
    const clients = [];
    for (const agreement of Object.values(AGREEMENTS)) {
      for (const protocol of PROTOCOLS) {
        const client = await connect({ protocol, userId: "bob", agreement });
        await within("a join", client.join(["mixed"]));
        clients.push(client);
      }
    }
    const clear = await Client.connect(edge.url, { userId: "eve", rooms: ["mixed"] });
    clear.socket.send("no message");
    await clear.message("error");
    for (let number = 0; number < 50; number += 1) await publish({ room: "mixed" }, "n", number);
    for (const client of clients) {
      const numbers = () => client.messages.filter(({ event }) => event === "n");
      await within(
        "all messages",
        client.when(() => numbers().length === 50),
      );
      assert.deepEqual(
        numbers().map(({ data }) => data),
        Array.from({ length: 50 }, (_, n) => n),
      );
    }
    await clear.count(52);
    assert.deepEqual(clear.deliveries.at(-1), { event: "n", data: 49 });
    await Promise.all([...clients, clear].map((client) => client.close()));
    await edge.forgotten();
  });

  test("who has left a room cannot open what it gets", async () => {
    const protocol = "signal.v1.json";
    const stays = await connect({ protocol, userId: "ann" });
    const leaves = await connect({ protocol, userId: "bob" });
    for (const client of [stays, leaves]) await within("a join", client.join(["secret"]));
    await publish({ room: "secret" }, "before");
    await within("it", leaves.message("before"));
    await leaves.send({ event: "leave", data: { rooms: ["secret"] }, id: "leave" });
    await within(
      "an acknowledgement",
      leaves.when(() => leaves.messages.some(({ id }) => id === "leave")),
    );
    await publish({ room: "secret" }, "after");
    await within("it", stays.message("after"));
    const sealed = stays.sealed.at(-1);
    assert.ok(!leaves.roomKeys.has(sealed.kid));
    for (const key of [...leaves.roomKeys.values(), leaves.session]) {
      await assert.rejects(key.decrypt(sealed));
    }
    await Promise.all([stays.close(), leaves.close()]);
    await edge.forgotten();
  });

  test("what was changed on its way ends the connection", async () => {
    for (const protocol of [undefined, "signal.v1.json"]) {
      const client = await connect({ protocol, userId: "ann" });
      const data = await client.session.encrypt('{"event":"heartbeat"}');
      const [first, ...rest] = data.ct;
      data.ct = [first === "A" ? "B" : "A", ...rest].join("");
      client.socket.send(JSON.stringify({ event: "encrypted", data }));
      const { code } = await within("a close", client.closed);
      assert.equal(code, 4502);
      assert.equal((await client.message("error")).data.message, "Decryption failed");
    }
    await edge.forgotten();
  });

  test("where it is required, who does not encrypt is refused", async () => {
    const strict = await Edge.serve({ environment: { SIGNAL_ENCRYPTION: "required" } });
    for (const [data, code, message] of [
      [{}, 4004, "Encryption handshake failed"],
      [{ publicKey: "AAAA" }, 4003, "Authentication error"],
    ]) {
      const client = await Client.open(strict.url);
      client.send("authenticate", data);
      assert.equal((await within("a close", client.closed)).code, code);
      assert.deepEqual(client.messages, [{ event: "error", data: { message } }]);
    }
    const client = await within(
      "a sealed client",
      SealedClient.connect(strict.url, { WebSocket, userId: "ann", agreement: ignis }),
    );
    await client.close();
    await strict.stop();
  });
});

describe("payload encryption in a browser", () => {
  let edge, browser, page, server;

  before(async () => {
    server = createServer((_, response) => response.end("<!doctype html>")).listen(0, "127.0.0.1");
    await once(server, "listening");
    // A page of the loopback is a secure context, without which there is no WebCrypto.
    const origin = `http://127.0.0.1:${server.address().port}`;
    edge = await Edge.serve({
      environment: { SIGNAL_ENCRYPTION: "required", SIGNAL_ALLOWED_ORIGINS: origin },
    });
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
    page = await browser.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    await page.goto(origin);
    const source = readFileSync(new URL("sealed-client.mjs", import.meta.url), "utf8");
    const content = `${source}\nglobalThis.SealedClient = SealedClient;`;
    await page.addScriptTag({ type: "module", content });
    await page.waitForFunction(() => globalThis.SealedClient !== undefined);
  });

  after(async () => {
    await browser?.close();
    await edge?.stop();
    server.close();
  });

  for (const protocol of PROTOCOLS) {
    test(protocol ?? "the plain protocol", async () => {
      await within(
        "a join",
        page.evaluate(
          async ([url, protocol]) => {
            globalThis.client = await SealedClient.connect(url, { protocol, userId: "ann" });
            await globalThis.client.join(["branch:1"]);
          },
          [edge.url, protocol],
        ),
      );
      for (const [target, to] of [
        [{ room: "branch:1" }, { room: "branch:1" }],
        [{ user: "ann" }, { user: true }],
      ]) {
        const event = Object.keys(target)[0];
        await edge.publish(
          `{${JSON.stringify(target).slice(1, -1)},"event":"${event}","data":${DATA}}`,
        );
        const arrived = page.evaluate(async (event) => {
          await globalThis.client.message(event);
          return globalThis.client.texts.at(-1);
        }, event);
        assert.equal(await within("a message", arrived), expected(protocol, event, to));
      }
      const state = await page.evaluate(async () => {
        const { clear, problems, roomKeys } = globalThis.client;
        await globalThis.client.close();
        return { clear: clear.length, problems, roomKeys: roomKeys.size };
      });
      assert.deepEqual(state, { clear: 1, problems: [], roomKeys: protocol ? 1 : 0 });
      await edge.forgotten();
    });
  }
});
