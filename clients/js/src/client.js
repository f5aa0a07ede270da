// The client of Signal: one connection that logs in, remembers its rooms, and comes back when it is lost.
//
// It never has two sockets, never dials twice within `minMs`, never delivers what it could not read,
// and whenever a message may have been missed it says `resync`. Only the present link counts: whatever
// an earlier one still says is ignored. Types and their documentation are in signal.d.ts.

import { CLOSE_CODES } from "./close-codes.js";
import { encoder, PROTOCOLS } from "./codec.js";
import { mayReconnect, SignalError } from "./errors.js";
import { abortable, Events } from "./events.js";
import { follow } from "./follow.js";
import { Journal } from "./journal.js";
import { Keys } from "./keys.js";
import { Requests } from "./requests.js";
import { DEGRADED, JOINED, Rooms } from "./rooms.js";

export const VERSION = "0.1.0";

const RECONNECT = { minMs: 500, maxMs: 20_000, stableMs: 10_000 };
// A `retryAfterMs` beyond this is a mistake, and more overflows a timer, which then fires at once.
const HINT_MS_MAX = 300_000;
const LOGIN_MS = 15_000;
const REQUEST_MS = 10_000;
const HEARTBEAT_MS = 30_000;
// A link that does not answer a heartbeat within this is dead.
const ANSWER_MS = 8_000;
// After `goodbye` the edge closes; if it does not, the client does.
const DRAIN_MS = 5_000;
const REFRESH_RETRY_MS = 5_000;
// Frames that wait to be opened, and bytes that wait to be sent.
const UNREAD_MAX = 10_000;
const UNSENT_BYTES_MAX = 4 << 20;

// Events of the client's own; a producer's event of such a name comes as `message:{name}`.
const OWN = new Set(["*", "denied", "error", "frame", "recovered", "resync", "state"]);

// What is annotated has the types of signal.d.ts, against which the compiler checks the code; the rest is
// not typed. See e2e/types.test.mjs.
/** @typedef {import("./signal.d.ts").Signal} Types */

/** @implements {Types} */
export class Signal {
  /** @type {any} */
  #options;
  #events = new Events();
  #rooms = new Rooms();
  #requests = new Requests();
  /** @type {Types["state"]} */
  #state = "connecting";
  /** @type {any} */
  #link = null;
  #attempts = 0;
  #retry = { timer: 0, at: 0, notBefore: 0 };
  #lostAt = 0;
  // The token that an edge refused last, and how.
  /** @type {any} */
  #refused = null;
  // What `connected` said.
  /** @type {any} */
  #facts = {};
  #journal = new Journal();
  /** @type {(() => void)[]} */
  #unlisten = [];

  /** @param {import("./signal.d.ts").Options} options */
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
    // A turn later, so that there are listeners for the first change of state.
    queueMicrotask(() => (options.signal?.aborted ? this.close("aborted") : this.#dial()));
  }

  get state() {
    return this.#state;
  }

  get clientId() {
    return this.#facts.id;
  }

  // === Events ===

  on(event, listener, options) {
    return this.#events.on(event, listener, options);
  }

  /** @type {Types["once"]} */
  once(event, { signal } = {}) {
    return this.#events.next(event, { signal, ended: this.#ended });
  }

  /** @type {Types["events"]} */
  events(event, { signal } = {}) {
    return this.#events.iterate(event, { signal, ended: this.#ended });
  }

  /** @type {Types["ready"]} */
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

  /** @type {(error: any, code?: string) => void} */
  report(error, code = "failed") {
    this.#events.emit("error", { code: error.code ?? code, message: error.message, error });
  }

  // === Rooms ===

  /** @type {Types["join"]} */
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

  /** @type {Types["leave"]} */
  async leave(rooms) {
    const names = this.#rooms.forget([rooms].flat(), new SignalError("left", "the room was left"));
    const link = this.#link;
    if (this.#state !== "online" || names.length === 0) return;
    if (!link.isV1) return this.#send(link, { event: "leave", data: { rooms: names } });
    await this.#ask(link, "leave", { rooms: names }).catch(() => {});
    for (const name of names) if (!this.#rooms.has(name)) link.keys?.forget(name);
  }

  /** @type {Types["follow"]} */
  follow(rooms, options) {
    return follow(this, rooms, options, (attempt) => this.#backoff(attempt));
  }

  // Asks the edge for rooms. Its answer counts for a room that was not left, or left and wanted
  // again, meanwhile.
  async #enter(link, names) {
    const asked = this.#rooms.select(names);
    const current = () => asked.filter((room) => this.#rooms.isCurrent(room));
    const data = { rooms: asked.map(({ name }) => name) };
    /** @type {{ rooms: string[], denied: string[], degraded?: boolean }} */
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

  // === Requests ===

  /** @type {Types["request"]} */
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

  /** @type {(link: any, event: string, data?: any, options?: { timeout?: number, signal?: AbortSignal }) => Promise<any>} */
  #ask(link, event, data, { timeout = REQUEST_MS, signal } = {}) {
    const { request, answer } = this.#requests.create(event, data, { timeout, signal });
    this.#transmit(link, request);
    return answer;
  }

  // The plain protocol answers nothing: what was sent is all there is to know.
  #transmit(link, request) {
    if (link.isV1) this.#requests.await(request);
    try {
      this.#send(link, { event: request.event, data: request.data, id: request.id });
      if (!link.isV1) request.settle();
    } catch (error) {
      request.settle(error);
    }
  }

  // === The life of a connection ===

  /** @type {Types["close"]} */
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
    // A close follows at once, but not in Node 20 when the handshake fails.
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
      // Again, because the application may have wanted more meanwhile.
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

  // Nothing that this link still says counts any more. Its socket is closed before there is another.
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

  /** @type {(link: any, why: { code?: any, reason?: string, error?: any, isFinal?: boolean }) => void} */
  #lose(link, { code, reason, error, isFinal }) {
    if (this.#link !== link) return;
    this.#drop(link);
    const now = Date.now();
    const details = { code, reason: reason || CLOSE_CODES[code]?.name || "connection lost", error };
    // An edge that could not judge the credentials is asked again.
    const isUnjudged = code === 4003 && link.errorCode === "authentication_error";
    const isRefused = !isUnjudged && (code === 4003 || code === 4500);
    // One that refused them is asked again with others, once.
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

  // Full jitter: after a restart not everyone comes back in the same instant.
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

  // === Waking up, and links that are dead ===

  #listen(target, events, listener) {
    for (const event of target?.addEventListener ? events : []) {
      target.addEventListener(event, listener);
      this.#unlisten.push(() => target.removeEventListener(event, listener));
    }
  }

  // The network or the page is back: now is better than later, but not before it is allowed.
  #wake = ({ type }) => {
    if (type === "visibilitychange" && document.visibilityState !== "visible") return;
    if (this.#state === "online") return this.#probe(this.#link);
    const { at, notBefore } = this.#retry;
    if (this.#state === "recovering" && type !== "offline" && notBefore < at) this.#retryAt(notBefore);
  };

  // Waits for silence. On the plain protocol the edge waits for heartbeats too.
  #rest(link) {
    const { frames } = link;
    link.isProbing = false;
    clearTimeout(link.timer);
    link.timer = setTimeout(() => {
      if (link.isV1 && link.frames !== frames) this.#rest(link);
      else this.#probe(link);
    }, link.heartbeatMs);
  }

  // Asks whether the link lives. A timer that fires late, in a hidden tab or after sleep, proves
  // nothing, for the answer may wait behind it: then it asks once more.
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

  // New credentials in place, until the old ones have ended.
  async #refresh(link, until) {
    const { getToken, credentials } = this.#options;
    if (!getToken && typeof credentials !== "function") return;
    try {
      const data = await this.#credentials(link, "refresh");
      if (this.#link !== link) return;
      const renewed = await this.#ask(link, "refresh", data);
      this.#facts.expires = renewed?.expires;
      // Rooms that the new credentials do not allow have been left: asking again tells which.
      if (this.#rooms.names.length > 0) await this.#enter(link, this.#rooms.names);
    } catch (error) {
      if (this.#link !== link) return;
      this.report(error, "refresh_failed");
      if (Date.now() > until) return;
      link.refreshTimer = setTimeout(() => this.#refresh(link, until), REFRESH_RETRY_MS);
    }
  }

  // === Frames ===

  #send(link, message) {
    const { socket, keys } = link;
    const isSealed = keys?.isAgreed ?? false;
    const frame = isSealed ? JSON.stringify(message) : link.codec.encode(message);
    const { length } = typeof frame === "string" ? encoder.encode(frame) : frame;
    // Sealing makes it larger. A message beyond the limit would end the connection for good.
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

  // Frames are read in order: with encryption one after another, since WebCrypto takes its time.
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
      // What cannot be read is not passed over: the connection is lost, and `resync` follows.
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
      // Said once for each key that is missing: what is sealed with it is lost.
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
    // On signal.v1 a delivery says to whom it is, so that no producer can speak for the edge.
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
        // From an edge that is newer than this client.
        return this.#deliver(message);
    }
  }

  #deliver({ event, data, to, id }) {
    const meta = { event, to, id, room: to?.room, at: Date.now() };
    this.#events.emit(OWN.has(event) ? `message:${event}` : event, data, meta);
    this.#events.emit("*", data, meta);
  }

  // === What happened ===

  #record(way, message, bytes) {
    this.#events.emit("frame", this.#journal.frame(way, message, bytes));
  }

  /** @type {Types["diagnostics"]} */
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

/** @type {(options: import("./signal.d.ts").Options) => Types} */
export function connect(options) {
  return new Signal(options);
}
