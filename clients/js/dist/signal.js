// @signal/client. The sources, with comments, are in clients/js/src.
export const CLOSE_CODES = {
1000: { name: "normal", again: false },
1001: { name: "server_shutting_down", again: true },
1002: { name: "protocol_error", again: false },
1007: { name: "invalid_payload", again: false },
1009: { name: "message_too_big", again: false },
4001: { name: "authentication_timeout", again: true },
4002: { name: "heartbeat_timeout", again: true },
4003: { name: "authentication_failed", again: false },
4004: { name: "encryption_required", again: false },
4100: { name: "slow_consumer", again: true },
4101: { name: "draining", again: true },
4102: { name: "too_old", again: true },
4103: { name: "bus_lost", again: true },
4500: { name: "credentials_revoked", again: false },
4501: { name: "kicked", again: false },
4502: { name: "protocol_violation", again: false },
4503: { name: "limit_exceeded", again: false },
};
export class SignalError extends Error {
constructor(code, message = code, details) {
super(message);
this.name = "SignalError";
this.code = code;
Object.assign(this, details);
}
}
export function mayReconnect(code) {
return CLOSE_CODES[code]?.again ?? !(code >= 4500 && code < 4600);
}
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });
function encodeMessagePack({ event, data, id }) {
const bytes = [];
const text = (string) => {
const utf8 = encoder.encode(string);
const { length } = utf8;
if (length < 32) bytes.push(0xa0 | length);
else bytes.push(0xdb, length >>> 24, (length >> 16) & 255, (length >> 8) & 255, length & 255);
for (const byte of utf8) bytes.push(byte);
};
const members = Object.entries({ event, data: JSON.stringify(data), id });
const present = members.filter(([, value]) => value !== undefined);
bytes.push(0x80 | present.length);
for (const member of present) member.forEach(text);
return Uint8Array.from(bytes);
}
function decodeMessagePack(buffer) {
const bytes = new Uint8Array(buffer);
const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
let at = 0;
const check = (isRight) => {
if (!isRight) throw new RangeError(`no frame of signal.v1.msgpack, at byte ${at}`);
};
const take = (length) => {
check(at + length <= bytes.length);
at += length;
return at - length;
};
const number = (size) => {
const from = take(size);
if (size === 8) return Number(view.getBigUint64(from));
return size === 1 ? bytes[from] : size === 2 ? view.getUint16(from) : view.getUint32(from);
};
const text = (length) => decoder.decode(bytes.subarray(take(length), at));
const map = (length) => Object.fromEntries(Array.from({ length }, () => [value(), value()]));
const value = () => {
const head = number(1);
if (head < 0x80) return head;
if (head < 0x90) return map(head & 15);
if (head >= 0xa0 && head < 0xc0) return text(head & 31);
if (head === 0xc0) return null;
if (head === 0xc2 || head === 0xc3) return head === 0xc3;
if (head >= 0xc4 && head <= 0xc6) return JSON.parse(text(number(1 << (head - 0xc4))));
if (head >= 0xcc && head <= 0xcf) return number(1 << (head - 0xcc));
if (head >= 0xd9 && head <= 0xdb) return text(number(1 << (head - 0xd9)));
check(head === 0xde);
return map(number(2));
};
const message = value();
check(at === bytes.length);
return message;
}
const json = { encode: (message) => JSON.stringify(message), decode: (text) => JSON.parse(text) };
const PROTOCOLS = {
json: { ...json, names: ["signal.v1.json"] },
msgpack: { encode: encodeMessagePack, decode: decodeMessagePack, names: ["signal.v1.msgpack"] },
plain: { ...json, names: [] },
};
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
class Keys {
#pair;
#session;
#rooms = new Map();
static async generate() {
const subtle = globalThis.crypto?.subtle;
if (!subtle) throw new SignalError("encryption_unavailable", "WebCrypto needs https or localhost");
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
const ITERATED_MAX = 10_000;
function abortable(signal, promise, clean) {
if (!signal) return promise;
return new Promise((resolve, reject) => {
const abort = () => {
clean?.();
reject(signal.reason);
};
const done = () => signal.removeEventListener("abort", abort);
promise.then(resolve, reject).finally(done);
if (signal.aborted) abort();
else signal.addEventListener("abort", abort);
});
}
function report(error) {
if (globalThis.reportError) return globalThis.reportError(error);
queueMicrotask(() => {
throw error;
});
}
class Events {
#listeners = new Map();
get size() {
return [...this.#listeners.values()].reduce((sum, { size }) => sum + size, 0);
}
on(event, listener, { signal } = {}) {
if (signal?.aborted) return () => {};
const entries = this.#listeners.get(event) ?? new Set();
this.#listeners.set(event, entries);
const entry = [listener];
const off = () => {
if (entries.delete(entry) && entries.size === 0) this.#listeners.delete(event);
signal?.removeEventListener("abort", off);
};
entries.add(entry);
signal?.addEventListener("abort", off);
return off;
}
emit(event, ...details) {
for (const [listener] of [...(this.#listeners.get(event) ?? [])]) {
try {
listener(...details);
} catch (error) {
report(error);
}
}
}
next(event, { signal, test = () => true, ended }) {
const offs = [];
const clean = () => offs.forEach((off) => off());
const promise = new Promise((resolve, reject) => {
const end = () => {
const error = ended();
if (error) reject(error);
return error;
};
if (end()) return;
offs.push(this.on(event, (data, meta) => test(data) && resolve({ data, meta })));
offs.push(this.on("state", end));
}).finally(clean);
return abortable(signal, promise, clean);
}
iterate(event, { signal, ended }) {
const waiting = [];
let error;
let wake = () => {};
const offs = [
this.on(event, (data, meta) => {
if (waiting.push({ data, meta }) > ITERATED_MAX) {
error = new SignalError("overflow", "events came faster than they were read");
}
wake();
}),
this.on("state", () => wake()),
];
const finish = async () => {
offs.forEach((off) => off());
return { done: true, value: undefined };
};
const next = async () => {
for (;;) {
if (error || signal?.aborted) {
await finish();
throw error ?? signal.reason;
}
if (waiting.length > 0) return { done: false, value: waiting.shift() };
if (ended()) return finish();
await abortable(signal, new Promise((resolve) => (wake = resolve))).catch(() => {});
}
};
const iterator = { next, return: finish, [Symbol.asyncIterator]: () => iterator };
return iterator;
}
}
const WANTED = "wanted";
const DEGRADED = "degraded";
const JOINED = "joined";
class Rooms {
#rooms = new Map();
#joins = new Set();
get names() {
return [...this.#rooms.keys()];
}
get all() {
return [...this.#rooms.values()];
}
want(names) {
const fresh = names.filter((name) => !this.#rooms.has(name));
for (const name of fresh) this.#rooms.set(name, { name, status: WANTED });
return fresh;
}
forget(names, error) {
const gone = names.filter((name) => this.#rooms.delete(name));
this.#reject(({ names }) => names.some((name) => gone.includes(name)), error);
return gone;
}
select(names) {
return names.map((name) => this.#rooms.get(name)).filter(Boolean);
}
isCurrent(room) {
return this.#rooms.get(room.name) === room;
}
has(name) {
return this.#rooms.has(name);
}
reset() {
for (const room of this.#rooms.values()) room.status = WANTED;
}
confirm(names) {
for (const room of this.#rooms.values()) {
if (room.status === DEGRADED && (!names || names.includes(room.name))) room.status = JOINED;
}
}
wait(names, acceptDegraded) {
const join = { names, acceptDegraded };
const promise = new Promise((resolve, reject) => Object.assign(join, { resolve, reject }));
promise.catch(() => {});
this.#joins.add(join);
return { promise, giveUp: () => this.#joins.delete(join) };
}
settle() {
for (const join of this.#joins) {
const statuses = join.names.map((name) => this.#rooms.get(name)?.status);
const degraded = statuses.includes(DEGRADED);
const isDone = statuses.every((status) => status === JOINED || status === DEGRADED);
if (!isDone || (degraded && !join.acceptDegraded)) continue;
this.#joins.delete(join);
join.resolve({ rooms: join.names, degraded });
}
}
end(error) {
this.#reject(() => true, error);
}
#reject(test, error) {
for (const join of this.#joins) if (test(join) && this.#joins.delete(join)) join.reject(error);
}
}
class Requests {
#waiting = new Map();
#queue = [];
#count = 0;
get waiting() {
return this.#waiting.size;
}
get queued() {
return this.#queue.length;
}
create(event, data, { timeout, signal }) {
const request = { event, data };
const answer = new Promise((resolve, reject) => {
request.settle = (error, value) => {
forget();
if (error) reject(error);
else resolve(value);
};
});
const forget = () => {
clearTimeout(request.timer);
this.#waiting.delete(request.id);
const index = this.#queue.indexOf(request);
if (index >= 0) this.#queue.splice(index, 1);
};
const late = () => request.settle(new SignalError("timeout", `${event} was not answered in time`));
request.timer = setTimeout(late, timeout);
return { request, answer: abortable(signal, answer, forget) };
}
enqueue(request) {
this.#queue.push(request);
}
dequeue() {
return this.#queue.shift();
}
await(request) {
request.id = String((this.#count += 1));
this.#waiting.set(request.id, request);
}
answer(id, error, data) {
this.#waiting.get(String(id))?.settle(error, data);
}
fail(error) {
for (const request of [...this.#waiting.values()]) request.settle(error);
}
end(error) {
this.fail(error);
for (const request of [...this.#queue]) request.settle(error);
}
}
const FOLLOWED_MAX = 10_000;
function follow(client, rooms, { load, reset, apply, events, signal, spreadMs = 1000 }, backoff) {
const names = [rooms].flat();
const stopping = new AbortController();
let waiting = [];
let isLoading = false;
let isStale = false;
let resolveReady, rejectReady;
const ready = new Promise((resolve, reject) => ([resolveReady, rejectReady] = [resolve, reject]));
ready.catch(() => {});
const stop = (reason) => {
if (stopping.signal.aborted) return;
stopping.abort(reason);
offs.forEach((off) => off());
signal?.removeEventListener("abort", abort);
rejectReady(stopping.signal.reason);
};
const abort = () => stop(signal.reason);
const pause = (ms) => {
let timer;
const over = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
return abortable(stopping.signal, over, () => clearTimeout(timer)).catch(() => {});
};
const once = async () => {
await client.join(names, { acceptDegraded: true, signal: stopping.signal });
isStale = false;
waiting = [];
const snapshot = await load({ signal: stopping.signal });
if (isStale || stopping.signal.aborted) return;
reset(snapshot);
for (const [event, data, meta] of waiting) apply(event, data, meta);
waiting = null;
resolveReady();
};
const reload = async (delayMs = 0) => {
isStale = true;
waiting ??= [];
if (isLoading) return;
isLoading = true;
if (delayMs > 0) await pause(delayMs);
for (let attempt = 1; isStale && !stopping.signal.aborted; ) {
try {
await once();
} catch (error) {
if (["denied", "left", "closed"].includes(error.code)) stop(error);
if (stopping.signal.aborted) break;
isStale = true;
client.report(error, "load_failed");
await pause(backoff(attempt));
attempt += 1;
}
}
isLoading = false;
};
const isOurs = ({ event, to }) =>
(to ? names.includes(to.room) : true) && (!events || events.includes(event));
const offs = [
client.on("*", (data, meta) => {
if (!isOurs(meta)) return;
if (!waiting) return apply(meta.event, data, meta);
if (waiting.push([meta.event, data, meta]) <= FOLLOWED_MAX) return;
waiting = [];
isStale = true;
}),
client.on("resync", (list) => {
const concerns = !list || list.some((name) => names.includes(name));
if (concerns) reload(Math.random() * spreadMs);
}),
];
signal?.addEventListener("abort", abort);
if (signal?.aborted) abort();
else reload();
return { ready, stop: () => stop() };
}
const FRAMES_MAX = 50;
const HISTORY_MAX = 30;
const TEXT_MAX = 300;
const note = (list, entry, countMax) => {
list.push(entry);
if (list.length > countMax) list.shift();
return entry;
};
class Journal {
#frames = [];
#history = [];
frame(way, { event, data, to, id }, bytes) {
const isSecret = event === "authenticate" || event === "refresh";
const frame = { at: Date.now(), way, event, data: isSecret ? "…" : data, to, id, bytes };
return note(this.#frames, frame, FRAMES_MAX);
}
change(change) {
note(this.#history, { at: Date.now(), ...change }, HISTORY_MAX);
}
get last() {
return this.#history.at(-1);
}
report() {
const text = (data) => (data === undefined ? undefined : JSON.stringify(data).slice(0, TEXT_MAX));
const frames = this.#frames.map((frame) => ({ ...frame, data: text(frame.data) }));
return { frames, history: [...this.#history] };
}
}
export const VERSION = "0.1.0";
const RECONNECT = { minMs: 500, maxMs: 20_000, stableMs: 10_000 };
const HINT_MS_MAX = 300_000;
const LOGIN_MS = 15_000;
const REQUEST_MS = 10_000;
const HEARTBEAT_MS = 30_000;
const ANSWER_MS = 8_000;
const DRAIN_MS = 5_000;
const REFRESH_RETRY_MS = 5_000;
const UNREAD_MAX = 10_000;
const UNSENT_BYTES_MAX = 4 << 20;
const OWN = new Set(["*", "denied", "error", "frame", "recovered", "resync", "state"]);
export class Signal {
#options;
#events = new Events();
#rooms = new Rooms();
#requests = new Requests();
#state = "connecting";
#link = null;
#attempts = 0;
#retry = { timer: 0, at: 0, notBefore: 0 };
#lostAt = 0;
#refused = null;
#facts = {};
#journal = new Journal();
#unlisten = [];
constructor(options) {
const { protocol = "json", queue = 0, random = Math.random } = options;
const { WebSocket = globalThis.WebSocket } = options;
if (!WebSocket) throw new TypeError("no WebSocket here: pass one as an option");
if (!PROTOCOLS[protocol]) throw new TypeError(`no protocol ${protocol}`);
const reconnect = { ...RECONNECT, ...options.reconnect };
this.#options = { ...options, protocol, queue, random, WebSocket, reconnect };
if (typeof options.url !== "function") this.#address(options.url);
this.#rooms.want(options.rooms ?? []);
this.#listen(globalThis, ["online", "offline"], this.#wake);
this.#listen(globalThis.document, ["visibilitychange"], this.#wake);
this.#listen(options.signal, ["abort"], () => this.close("aborted"));
queueMicrotask(() => (options.signal?.aborted ? this.close("aborted") : this.#dial()));
}
get state() {
return this.#state;
}
get clientId() {
return this.#facts.id;
}
on(event, listener, options) {
return this.#events.on(event, listener, options);
}
once(event, { signal } = {}) {
return this.#events.next(event, { signal, ended: this.#ended });
}
events(event, { signal } = {}) {
return this.#events.iterate(event, { signal, ended: this.#ended });
}
async ready({ signal } = {}) {
if (this.#state === "online") return;
const test = ({ state }) => state === "online";
await this.#events.next("state", { signal, test, ended: this.#ended });
}
#ended = () => {
if (this.#state !== "closed") return undefined;
const { reason, code } = this.#journal.last;
return new SignalError("closed", `the client is closed: ${reason}`, { closeCode: code });
};
report(error, code = "failed") {
this.#events.emit("error", { code: error.code ?? code, message: error.message, error });
}
join(rooms, { signal, acceptDegraded = false } = {}) {
const error = this.#ended();
if (error) return Promise.reject(error);
const names = [rooms].flat();
const fresh = this.#rooms.want(names);
const { promise, giveUp } = this.#rooms.wait(names, acceptDegraded);
if (this.#state === "online" && fresh.length > 0) this.#enter(this.#link, fresh).catch(() => {});
this.#rooms.settle();
return abortable(signal, promise, giveUp);
}
async leave(rooms) {
const names = this.#rooms.forget([rooms].flat(), new SignalError("left", "the room was left"));
const link = this.#link;
if (this.#state !== "online" || names.length === 0) return;
if (!link.isV1) return this.#send(link, { event: "leave", data: { rooms: names } });
await this.#ask(link, "leave", { rooms: names }).catch(() => {});
for (const name of names) if (!this.#rooms.has(name)) link.keys?.forget(name);
}
follow(rooms, options) {
return follow(this, rooms, options, (attempt) => this.#backoff(attempt));
}
async #enter(link, names) {
const asked = this.#rooms.select(names);
const current = () => asked.filter((room) => this.#rooms.isCurrent(room));
const data = { rooms: asked.map(({ name }) => name) };
let answer = { rooms: data.rooms, denied: [] };
try {
if (link.isV1) answer = await this.#ask(link, "join", data);
else this.#send(link, { event: "join", data });
} catch (error) {
if (error.code === "timeout") this.#lose(link, { reason: "a join was not answered" });
else if (this.#state === "online") this.#deny(current(), error);
throw error;
}
const status = answer.degraded ? DEGRADED : JOINED;
for (const room of current()) if (answer.rooms.includes(room.name)) room.status = status;
const denied = current().filter(({ name }) => answer.denied.includes(name));
this.#deny(denied, new SignalError("denied", "the room may not be joined"));
this.#rooms.settle();
return { denied: denied.map(({ name }) => name), degraded: answer.degraded ?? false };
}
#deny(rooms, error) {
const names = rooms.map(({ name }) => name);
error.rooms = names;
if (names.length === 0) return;
this.#rooms.forget(names, error);
this.#events.emit("denied", names, { code: error.code });
}
#resync(rooms, reason) {
this.#rooms.confirm(rooms);
this.#events.emit("resync", rooms, { reason });
this.#rooms.settle();
}
async request(event, data, { timeout = REQUEST_MS, signal } = {}) {
signal?.throwIfAborted();
if (this.#state === "online") return this.#ask(this.#link, event, data, { timeout, signal });
const closed = this.#ended();
if (closed) throw closed;
if (this.#requests.queued >= this.#options.queue) {
throw new SignalError("offline", `the client is not online, but ${this.#state}`);
}
const { request, answer } = this.#requests.create(event, data, { timeout, signal });
this.#requests.enqueue(request);
return answer;
}
#ask(link, event, data, { timeout = REQUEST_MS, signal } = {}) {
const { request, answer } = this.#requests.create(event, data, { timeout, signal });
this.#transmit(link, request);
return answer;
}
#transmit(link, request) {
if (link.isV1) this.#requests.await(request);
try {
this.#send(link, { event: request.event, data: request.data, id: request.id });
if (!link.isV1) request.settle();
} catch (error) {
request.settle(error);
}
}
close(reason = "closed by the application") {
this.#end({ reason });
}
#address(url) {
const address = new URL(url, globalThis.location?.href);
address.protocol = address.protocol.replace("http", "ws");
return address.href;
}
#enterState(state, details = {}) {
const change = { state, previous: this.#state, ...details };
this.#state = state;
this.#journal.change(change);
this.#events.emit("state", change);
}
async #dial() {
if (this.#state === "closed") return;
const { url, protocol, encryption = "off", WebSocket } = this.#options;
const link = { codec: PROTOCOLS[protocol], frames: 0, unread: 0 };
link.inbox = link.outbox = Promise.resolve();
link.timer = setTimeout(() => this.#lose(link, { reason: "no login in time" }), LOGIN_MS);
this.#link = link;
this.#retry.notBefore = Date.now() + this.#options.reconnect.minMs;
this.#enterState("connecting");
try {
const address = this.#address(typeof url === "function" ? await url() : url);
link.credentials = await this.#credentials(link, this.#refused ? "refused" : "login");
if (encryption !== "off" && encryption !== false) {
link.keys = await Keys.generate().catch((error) => {
if (encryption !== "optional") throw error;
});
}
if (this.#link !== link) return;
if (this.#refused?.token === link.token && link.token !== undefined) {
return this.#end(this.#refused.details);
}
link.socket = new WebSocket(address, link.codec.names);
} catch (error) {
return this.#fail(link, error);
}
this.#attach(link, link.socket);
}
#attach(link, socket) {
socket.binaryType = "arraybuffer";
socket.onopen = () => {
this.#enterState("authenticating");
link.askedAt = Date.now();
const data = { ...link.credentials, publicKey: link.keys?.publicKey };
this.#send(link, { event: "authenticate", data });
};
socket.onmessage = ({ data }) => this.#receive(link, data);
socket.onclose = ({ code, reason }) => this.#lose(link, { code, reason });
socket.onerror = () => setTimeout(() => this.#lose(link, { reason: "connection failed" }));
}
async #credentials(link, reason) {
const { getToken, credentials } = this.#options;
const own = typeof credentials === "function" ? await credentials({ reason }) : credentials;
link.token = await getToken?.({ reason });
return { ...own, token: link.token };
}
async #connected(link, data) {
const { encryption, protocol } = this.#options;
link.isLoggedIn = true;
link.isV1 = protocol !== "plain" && data.server !== undefined;
if (link.keys && !data.serverPublicKey) {
if (encryption !== "optional") {
throw new SignalError("encryption_unavailable", "the edge does not encrypt");
}
link.keys = undefined;
}
const now = Date.now();
const roundTripMs = now - link.askedAt;
this.#facts = { ...data, roundTripMs, clockSkewMs: Date.parse(data.time) - now + roundTripMs / 2 };
link.heartbeatMs = Math.min(HEARTBEAT_MS, (data.heartbeat ?? Infinity) / 3);
const denied = [];
const asked = new Set();
let degraded = data.degraded ?? false;
for (;;) {
const rooms = this.#rooms.all.filter((room) => !asked.has(room));
if (rooms.length === 0) break;
for (const room of rooms) asked.add(room);
const entered = await this.#enter(link, rooms.map(({ name }) => name));
if (this.#link !== link) return;
denied.push(...entered.denied);
degraded ||= entered.degraded;
}
this.#online(link, { denied, degraded });
}
#online(link, details) {
link.onlineAt = Date.now();
this.#refused = null;
this.#rest(link);
this.#enterState("online");
if (this.#lostAt && this.#link === link) {
const offlineMs = link.onlineAt - this.#lostAt;
const rooms = this.#rooms.names;
this.#events.emit("recovered", { offlineMs, attempts: this.#attempts, rooms, ...details });
this.#events.emit("resync", null, { reason: "recovered" });
}
while (this.#link === link && this.#requests.queued > 0) {
this.#transmit(link, this.#requests.dequeue());
}
}
#drop(link) {
this.#link = null;
clearTimeout(link.timer);
clearTimeout(link.refreshTimer);
const { socket } = link;
if (socket) {
socket.onopen = socket.onmessage = socket.onclose = null;
socket.close();
}
if (link.onlineAt) this.#lostAt = Date.now();
this.#facts = {};
this.#rooms.reset();
this.#requests.fail(new SignalError("disconnected", "the connection was lost before the answer"));
}
#fail(link, error) {
const isFinal = error.code === "encryption_unavailable";
this.#lose(link, { reason: error.message, error, isFinal });
}
#lose(link, { code, reason, error, isFinal }) {
if (this.#link !== link) return;
this.#drop(link);
const now = Date.now();
const details = { code, reason: reason || CLOSE_CODES[code]?.name || "connection lost", error };
const isUnjudged = code === 4003 && link.errorCode === "authentication_error";
const isRefused = !isUnjudged && (code === 4003 || code === 4500);
const mayRenew = isRefused && this.#options.getToken && (link.onlineAt || !this.#refused);
const mayReturn = !code || mayReconnect(code) || isUnjudged || mayRenew;
if (isFinal || !mayReturn) return this.#end(details);
if (isRefused) this.#refused = { token: link.token, details };
if (link.onlineAt && now - link.onlineAt >= this.#options.reconnect.stableMs) this.#attempts = 0;
this.#attempts += 1;
let delayMs = this.#backoff(this.#attempts);
if (link.retryAfterMs >= 0) {
const hint = Math.min(Math.max(link.retryAfterMs, this.#retry.notBefore - now), HINT_MS_MAX);
delayMs = this.#attempts > 1 ? Math.max(hint, delayMs) : hint;
this.#retry.notBefore = now + hint;
}
this.#enterState("recovering", { ...details, delayMs, attempt: this.#attempts });
if (this.#state === "recovering" && !this.#link) this.#retryAt(now + delayMs);
}
#retryAt(at) {
clearTimeout(this.#retry.timer);
this.#retry.at = at;
this.#retry.timer = setTimeout(() => this.#dial(), Math.max(0, at - Date.now()));
}
#backoff(attempt) {
const { minMs, maxMs } = this.#options.reconnect;
const capMs = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30));
return minMs + this.#options.random() * Math.max(0, capMs - minMs);
}
#end(details) {
if (this.#state === "closed") return;
clearTimeout(this.#retry.timer);
if (this.#link) this.#drop(this.#link);
for (const unlisten of this.#unlisten) unlisten();
this.#enterState("closed", details);
this.#requests.end(this.#ended());
this.#rooms.end(this.#ended());
}
#listen(target, events, listener) {
for (const event of target?.addEventListener ? events : []) {
target.addEventListener(event, listener);
this.#unlisten.push(() => target.removeEventListener(event, listener));
}
}
#wake = ({ type }) => {
if (type === "visibilitychange" && document.visibilityState !== "visible") return;
if (this.#state === "online") return this.#probe(this.#link);
const { at, notBefore } = this.#retry;
if (this.#state === "recovering" && type !== "offline" && notBefore < at) this.#retryAt(notBefore);
};
#rest(link) {
const { frames } = link;
link.isProbing = false;
clearTimeout(link.timer);
link.timer = setTimeout(() => {
if (link.isV1 && link.frames !== frames) this.#rest(link);
else this.#probe(link);
}, link.heartbeatMs);
}
#probe(link, isSecond = false) {
if (link.isProbing && !isSecond) return;
clearTimeout(link.timer);
if (!link.isV1) {
this.#send(link, { event: "heartbeat" });
return this.#rest(link);
}
link.isProbing = true;
const sentAt = Date.now();
const { frames } = link;
this.#ask(link, "heartbeat", undefined, { timeout: 2 * ANSWER_MS }).then(
() => (this.#facts.roundTripMs = Date.now() - sentAt),
() => {},
);
link.timer = setTimeout(() => {
const isLate = Date.now() - sentAt > 1.5 * ANSWER_MS;
if (link.frames !== frames) this.#rest(link);
else if (isLate && !isSecond) this.#probe(link, true);
else this.#lose(link, { reason: "the connection does not answer" });
}, ANSWER_MS);
}
async #refresh(link, until) {
const { getToken, credentials } = this.#options;
if (!getToken && typeof credentials !== "function") return;
try {
const data = await this.#credentials(link, "refresh");
if (this.#link !== link) return;
const renewed = await this.#ask(link, "refresh", data);
this.#facts.expires = renewed?.expires;
if (this.#rooms.names.length > 0) await this.#enter(link, this.#rooms.names);
} catch (error) {
if (this.#link !== link) return;
this.report(error, "refresh_failed");
if (Date.now() > until) return;
link.refreshTimer = setTimeout(() => this.#refresh(link, until), REFRESH_RETRY_MS);
}
}
#send(link, message) {
const { socket, keys } = link;
const isSealed = keys?.isAgreed ?? false;
const frame = isSealed ? JSON.stringify(message) : link.codec.encode(message);
const { length } = typeof frame === "string" ? encoder.encode(frame) : frame;
const bytes = isSealed ? Math.ceil((length * 4) / 3) + 128 : length;
if (bytes > (this.#facts.limits?.message ?? Infinity)) {
throw new SignalError("too_big", `${message.event} is larger than the edge allows`);
}
if (socket.bufferedAmount > UNSENT_BYTES_MAX) {
throw new SignalError("busy", "too much has not been sent yet");
}
this.#record("sent", message, length);
const write = (frame) => void (socket.readyState === 1 && socket.send(frame));
if (!isSealed) return write(frame);
link.outbox = link.outbox
.then(() => keys.seal(frame))
.then((data) => write(link.codec.encode({ event: "encrypted", data })))
.catch((error) => this.#lose(link, { reason: "a message could not be sealed", error }));
}
#receive(link, frame) {
if (this.#link !== link) return;
link.frames += 1;
const size = frame.byteLength ?? frame.length;
const fail = (error) => this.#lose(link, { reason: "a frame could not be read", error });
try {
const message = link.codec.decode(frame);
if (!link.keys && link.unread === 0) return this.#handle(link, message, size);
if ((link.unread += 1) > UNREAD_MAX) throw new SignalError("overflow");
link.inbox = link.inbox
.then(() => this.#open(link, message, size))
.catch(fail)
.finally(() => (link.unread -= 1));
} catch (error) {
fail(error);
}
}
async #open(link, message, size) {
const { keys } = link;
if (this.#link !== link) return;
if (!keys) return this.#handle(link, message, size);
if (keys.isAgreed !== (message.event === "encrypted")) throw new SignalError("not_sealed");
if (!keys.isAgreed) {
if (message.event === "connected" && message.data.serverPublicKey) await keys.agree(message.data);
if (this.#link === link) this.#handle(link, message, size);
return;
}
if (!keys.knows(message.data)) {
if (link.missing !== message.data.kid) this.#resync(null, "room key");
link.missing = message.data.kid;
return;
}
const inner = JSON.parse(await keys.open(message.data));
if (this.#link !== link) return;
if (inner.event === "roomkey" && !inner.to) await keys.learn(inner.data);
else this.#handle(link, inner, size);
}
#handle(link, message, size) {
const { event, data, to, id } = message;
this.#record("received", message, size);
const isDelivery = link.isV1 ? to : link.isLoggedIn && event !== "error";
if (isDelivery) return this.#deliver(message);
switch (event) {
case "connected":
return void this.#connected(link, data).catch((error) => this.#fail(link, error));
case "ack":
return this.#requests.answer(id, null, data);
case "error":
link.errorCode = data.code ?? data.message?.toLowerCase().replaceAll(" ", "_");
if (id === undefined) return this.report(new SignalError(link.errorCode, data.message));
return this.#requests.answer(id, new SignalError(data.code, data.message));
case "resync":
return this.#resync(data.rooms, data.reason);
case "expiring":
return void this.#refresh(link, Date.now() + data.in);
case "goodbye":
link.retryAfterMs = data.retryAfterMs;
clearTimeout(link.timer);
link.timer = setTimeout(() => this.#lose(link, { code: 4101 }), DRAIN_MS);
return this.#enterState("draining", { reason: data.reason, delayMs: data.retryAfterMs });
default:
return this.#deliver(message);
}
}
#deliver({ event, data, to, id }) {
const meta = { event, to, id, room: to?.room, at: Date.now() };
this.#events.emit(OWN.has(event) ? `message:${event}` : event, data, meta);
this.#events.emit("*", data, meta);
}
#record(way, message, bytes) {
this.#events.emit("frame", this.#journal.frame(way, message, bytes));
}
diagnostics() {
const { id, userId, server, expires, degraded = false } = this.#facts;
const { roundTripMs, clockSkewMs } = this.#facts;
return {
version: VERSION,
state: this.#state,
clientId: id,
...{ userId, server, expires, degraded, roundTripMs, clockSkewMs },
protocol: this.#link?.socket?.protocol || "plain",
isEncrypted: this.#link?.keys?.isAgreed ?? false,
attempts: this.#attempts,
rooms: Object.fromEntries(this.#rooms.all.map(({ name, status }) => [name, status])),
waiting: this.#requests.waiting,
queued: this.#requests.queued,
listeners: this.#events.size,
...this.#journal.report(),
};
}
}
export function connect(options) {
return new Signal(options);
}
