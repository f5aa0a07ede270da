// What applications write with the types of @signal/client: every name once, and what must not compile.
// Checked by types.test.mjs and never run.

import {
  CLOSE_CODES,
  Signal,
  SignalError,
  VERSION,
  connect,
  mayReconnect,
  type Aborting,
  type Diagnostics,
  type Follow,
  type Frame,
  type Meta,
  type Options,
  type OwnEvents,
  type Recovered,
  type State,
  type StateChange,
  type To,
} from "@signal/client";

// Whether two types are the same one, `any` being none but itself.
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

interface Order {
  id: string;
  total: string;
}
interface Shop {
  "order.created": Order;
  "order.paid": { id: string };
}

const version: string = VERSION;
const normal = CLOSE_CODES[1000];
const again: boolean = (normal?.again ?? false) && normal?.name === "normal" && mayReconnect(1000);
// @ts-expect-error the table is for reading
CLOSE_CODES[1000] = { name: "", again: true };
// @ts-expect-error a code is a number
mayReconnect("1000");

// === Options ===

const stop = new AbortController();
const aborting: Aborting = { signal: stop.signal };
const options: Options = {
  url: "wss://signal.example.com/ws",
  getToken: async ({ reason }) => {
    same<"login" | "refresh" | "refused", typeof reason>(true);
    return "token";
  },
  credentials: { till: 7 },
  protocol: "msgpack",
  encryption: "optional",
  rooms: ["branch:12"],
  queue: 100,
  reconnect: { minMs: 500, maxMs: 20_000, stableMs: 10_000 },
  signal: stop.signal,
  WebSocket: globalThis.WebSocket,
  random: () => 0.5,
};
const others: Options[] = [
  { url: new URL("wss://signal.example.com/ws"), getToken: () => "token", encryption: true },
  { url: () => "/ws", credentials: ({ reason }) => ({ reason }), protocol: "plain", encryption: "off" },
  { url: async () => "/ws", credentials: async () => ({ userId: "u" }), protocol: "json" },
];
// @ts-expect-error an address is needed
connect({});
// @ts-expect-error there is no such protocol
connect({ url: "/ws", protocol: "xml" });
// @ts-expect-error nor such an option
connect({ url: "/ws", token: "x" });
// @ts-expect-error a token is text
connect({ url: "/ws", getToken: () => 7 });

const signal: Signal<Shop> = connect<Shop>(options);
const any: Signal = new Signal(others[0]!);
// @ts-expect-error a map of events is an object
connect<string>({ url: "/ws" });

// === Events ===

const off: () => void = signal.on("order.created", (order, meta) => {
  same<Order, typeof order>(true);
  same<Meta, typeof meta>(true);
});
off();
signal.on("order.paid", ({ id }) => id.length, aborting);
// @ts-expect-error no such event is in the map
signal.on("order.lost", () => {});
// @ts-expect-error its data has no such member
signal.on("order.paid", ({ total }) => total);
// @ts-expect-error a listener is a function
signal.on("order.paid", "no");
any.on("whatever", (data, { room }) => [data.anything, room]);

const meta = ({ event, to, room, id, at }: Meta): [string, To | undefined, string?, string?, number?] => {
  same<number, typeof at>(true);
  return [event, to, room, id, at];
};
const addressed: To[] = [{ room: "r" }, { user: true }, { client: true }, { all: true }];
// @ts-expect-error nobody else is addressed
addressed.push({ tenant: 1 });

signal.on("state", (change) => {
  same<StateChange, typeof change>(true);
  const { state, previous, reason, code, delayMs, attempt, error } = change;
  same<State, typeof state>(true);
  same<State, typeof previous>(true);
  same<unknown, typeof error>(true);
  const texts: (string | undefined)[] = [reason];
  const numbers: (number | undefined)[] = [code, delayMs, attempt];
  // @ts-expect-error no such state
  return state === "offline" ? texts : numbers;
});
const states: State[] = ["connecting", "authenticating", "online", "recovering", "draining", "closed"];
signal.on("resync", (rooms, { reason }) => {
  same<string[] | null, typeof rooms>(true);
  same<string, typeof reason>(true);
});
signal.on("recovered", (recovered) => {
  same<Recovered, typeof recovered>(true);
  const { offlineMs, attempts, rooms, denied, degraded } = recovered;
  return [offlineMs + attempts, [...rooms, ...denied], !degraded];
});
signal.on("denied", (rooms, { code }) => [...rooms, code]);
signal.on("error", ({ code, message, error }) => {
  same<unknown, typeof error>(true);
  return code + message;
});
signal.on("frame", (frame) => {
  same<Frame, typeof frame>(true);
  const { at, way, event, data, to, id, bytes } = frame;
  same<"sent" | "received", typeof way>(true);
  return [at + bytes, event, data, to, id];
});
signal.on("*", (data, details) => {
  same<unknown, typeof data>(true);
  return meta(details);
});
same<[change: StateChange], OwnEvents["state"]>(true);

// === Waiting ===

export async function waits(): Promise<void> {
  await signal.ready();
  await signal.ready(aborting);
  const { data, meta: details } = await signal.once("order.created", aborting);
  same<Order, typeof data>(true);
  meta(details);
  const { data: unknown } = await signal.once("not.in.the.map");
  same<unknown, typeof unknown>(true);
  for await (const paid of signal.events("order.paid", { signal: stop.signal })) {
    same<{ id: string }, typeof paid.data>(true);
    meta(paid.meta);
  }

  const { rooms, degraded } = await signal.join(["a", "b"], { ...aborting, acceptDegraded: true });
  same<string[], typeof rooms>(true);
  same<boolean, typeof degraded>(true);
  await signal.join("a");
  await signal.leave("a");
  await signal.leave(["a", "b"]);
  // @ts-expect-error a room has a name
  await signal.join(7);

  const answer = await signal.request<{ ok: boolean }>("order.pay", { id: "o-1" }, { timeout: 5_000, ...aborting });
  same<boolean, typeof answer.ok>(true);
  const nothing = await signal.request("order.forget");
  same<unknown, typeof nothing>(true);
  // @ts-expect-error a time is a number
  await signal.request("order.pay", {}, { timeout: "5s" });
}

const following: Follow<Order[]> = {
  load: async ({ signal }) => (await fetch("/orders", { signal })).json() as Promise<Order[]>,
  reset: (orders) => same<Order[], typeof orders>(true),
  apply: (event, data, details) => [event, data.id, meta(details)],
  events: ["order.created"],
  signal: stop.signal,
  spreadMs: 500,
};
const view = signal.follow("branch:12", following);
const ready: Promise<void> = view.ready;
view.stop();
signal.follow(["a", "b"], { load: () => 7, reset: (count) => same<number, typeof count>(true), apply: () => {} });
// @ts-expect-error what is loaded is what is put in place
signal.follow("a", { load: () => 7, reset: (text: string) => text, apply: () => {} });

// === Errors, and what happened ===

export function explain(error: unknown): string {
  if (!(error instanceof SignalError)) return "";
  same<string, typeof error.code>(true);
  same<string[] | undefined, typeof error.rooms>(true);
  same<number | undefined, typeof error.closeCode>(true);
  const plain: Error = error;
  return `${error.code}: ${plain.message}`;
}

const own: State = signal.state;
const id: string | undefined = signal.clientId;
// @ts-expect-error the state is the client's
signal.state = "online";
// @ts-expect-error and so is the id
signal.clientId = "x";
signal.report(new Error("a load failed"), "load_failed");
// @ts-expect-error what is reported is an error
signal.report("a load failed");

const diagnostics: Diagnostics = signal.diagnostics();
const { state, clientId, userId, server, expires, degraded, protocol, isEncrypted, roundTripMs } = diagnostics;
const { clockSkewMs, attempts, rooms, waiting, queued, listeners, frames, history } = diagnostics;
same<"wanted" | "degraded" | "joined" | undefined, (typeof rooms)[string] | undefined>(true);
same<string | undefined, (typeof frames)[number]["data"]>(true);
same<number, (typeof history)[number]["at"]>(true);
same<{ instance: string; version: string } | undefined, typeof server>(true);

signal.close();
signal.close("the user has logged out");

export const used = [
  ...[version, again, any, states, ready, own, id, diagnostics.version],
  ...[state, clientId, userId, expires, degraded, protocol, isEncrypted, roundTripMs],
  ...[clockSkewMs, attempts, waiting, queued, listeners],
];
