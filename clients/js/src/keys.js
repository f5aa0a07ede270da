// The keys of one connection: one of the session, and one for each room that has one. Made anew for
// every connection, with WebCrypto; private keys cannot be read out. An IV is 12 random bytes.

import { decoder, encoder } from "./codec.js";
import { SignalError } from "./errors.js";

const INFO = encoder.encode("ignis-ecdh-p256-aes-256-gcm-v1");
const CURVE = { name: "ECDH", namedCurve: "P-256" };
const ROOM_KEYS_MAX = 1024;

const toBase64 = (buffer) => {
  let text = "";
  for (const byte of new Uint8Array(buffer)) text += String.fromCharCode(byte);
  return btoa(text);
};
const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const importKey = (bytes) =>
  crypto.subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]);

export class Keys {
  #pair;
  #session;
  // By their numbers, { room, key }, oldest first.
  #rooms = new Map();

  static async generate() {
    const subtle = globalThis.crypto?.subtle;
    if (!subtle) throw new SignalError("encryption_unavailable", "WebCrypto needs https or localhost");
    /** @type {any} */
    const keys = new Keys();
    keys.#pair = await subtle.generateKey(CURVE, false, ["deriveBits"]);
    keys.publicKey = toBase64(await subtle.exportKey("raw", keys.#pair.publicKey));
    return keys;
  }

  get isAgreed() {
    return this.#session !== undefined;
  }

  async agree({ serverPublicKey, salt }) {
    const { subtle } = crypto;
    const theirs = await subtle.importKey("raw", fromBase64(serverPublicKey), CURVE, false, []);
    const { privateKey } = this.#pair;
    const shared = await subtle.deriveBits({ name: "ECDH", public: theirs }, privateKey, 256);
    const secret = await subtle.importKey("raw", shared, "HKDF", false, ["deriveBits"]);
    const derivation = { name: "HKDF", hash: "SHA-256", salt: fromBase64(salt), info: INFO };
    this.#session = await importKey(await subtle.deriveBits(derivation, secret, 256));
  }

  // A socket keeps the order, so a later key of a room replaces the one before.
  async learn({ room, kid, key }) {
    this.forget(room);
    this.#rooms.set(kid, { room, key: await importKey(fromBase64(key)) });
    if (this.#rooms.size > ROOM_KEYS_MAX) this.#rooms.delete(this.#rooms.keys().next().value);
  }

  forget(room) {
    for (const [kid, entry] of this.#rooms) if (entry.room === room) this.#rooms.delete(kid);
  }

  knows({ kid }) {
    return kid === undefined || this.#rooms.has(kid);
  }

  async seal(text) {
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const algorithm = { name: "AES-GCM", iv };
    const sealed = await crypto.subtle.encrypt(algorithm, this.#session, encoder.encode(text));
    return { iv: toBase64(iv), ct: toBase64(sealed) };
  }

  async open({ iv, ct, kid }) {
    const key = kid === undefined ? this.#session : this.#rooms.get(kid).key;
    const algorithm = { name: "AES-GCM", iv: fromBase64(iv) };
    return decoder.decode(await crypto.subtle.decrypt(algorithm, key, fromBase64(ct)));
  }
}
