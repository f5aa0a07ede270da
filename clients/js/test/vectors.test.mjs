// The session with all of its keys that the documents give to writers of clients is what it says.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const path = new URL("../../../docs/transcripts/encryption.json", import.meta.url);
const vector = JSON.parse(readFileSync(path, "utf8"));
const { subtle } = crypto;
const CURVE = { name: "ECDH", namedCurve: "P-256" };
const bytes = (text) => Buffer.from(text, "base64");

test("each side arrives at the session key", async () => {
  for (const [own, other] of [["client", "server"], ["server", "client"]]) {
    const privateKey = await subtle.importKey("pkcs8", bytes(vector[own].privateKey), CURVE, false, ["deriveBits"]);
    const publicKey = await subtle.importKey("raw", bytes(vector[other].publicKey), CURVE, false, []);
    const shared = await subtle.deriveBits({ name: "ECDH", public: publicKey }, privateKey, 256);
    assert.equal(Buffer.from(shared).toString("hex"), vector.sharedSecretHex);
    const secret = await subtle.importKey("raw", shared, "HKDF", false, ["deriveBits"]);
    const info = Buffer.from("ignis-ecdh-p256-aes-256-gcm-v1");
    const derivation = { name: "HKDF", hash: "SHA-256", salt: bytes(vector.server.salt), info };
    const key = await subtle.deriveBits(derivation, secret, 256);
    assert.equal(Buffer.from(key).toString("hex"), vector.sessionKeyHex);
  }
});

test("its messages open to what they should", async () => {
  const roomKey = JSON.parse(vector.roomKey.plaintext).data;
  const keys = { undefined: Buffer.from(vector.sessionKeyHex, "hex"), [roomKey.kid]: bytes(roomKey.key) };
  for (const name of ["session", "roomKey", "room", "request"]) {
    const { plaintext, frame } = vector[name];
    const { event, data } = JSON.parse(frame);
    assert.equal(event, "encrypted");
    const key = await subtle.importKey("raw", keys[data.kid], "AES-GCM", false, ["decrypt"]);
    const opened = await subtle.decrypt({ name: "AES-GCM", iv: bytes(data.iv) }, key, bytes(data.ct));
    assert.equal(Buffer.from(opened).toString(), plaintext);
  }
});
