// Types of @signal/client. `Events` maps the names of your events to the types of their data.

export const VERSION: string;

/** What each close code means, and whether a client comes back after it. */
export const CLOSE_CODES: Readonly<Record<number, { name: string; again: boolean }>>;

/** Whether a client comes back after a close with this code. */
export function mayReconnect(code: number): boolean;

/**
 * Why something did not come about. Codes of the client: `closed`, `offline`, `disconnected` (sent, but
 * lost before the answer), `timeout`, `denied`, `left`, `overflow`, `too_big`, `busy`,
 * `encryption_unavailable`. Further codes are those of the edge, see docs/protocol.md.
 */
export class SignalError extends Error {
  code: string;
  /** The rooms that were denied. */
  rooms?: string[];
  /** With which the connection was closed for good. */
  closeCode?: number;
}

export type State = "connecting" | "authenticating" | "online" | "recovering" | "draining" | "closed";

export interface StateChange {
  state: State;
  previous: State;
  /** Why: the name of the close code, the reason that the edge gave, or what went wrong. */
  reason?: string;
  /** The close code of the connection that was lost. */
  code?: number;
  /** While recovering: until the next attempt. */
  delayMs?: number;
  /** While recovering: which attempt that will be. */
  attempt?: number;
  error?: unknown;
}

/** By which way a message came. */
export type To = { room: string } | { user: true } | { client: true } | { all: true };

export interface Meta {
  event: string;
  /** Absent on the plain protocol, which does not say. */
  to?: To;
  /** The room it came by, if it came by one. */
  room?: string;
  /** The producer's message id, if it has one. */
  id?: string;
  /** When it arrived, in ms since 1970 by this clock. */
  at: number;
}

export interface Recovered {
  /** From the loss to being online again. */
  offlineMs: number;
  attempts: number;
  /** The rooms that are joined again. */
  rooms: string[];
  /** Those that may not be joined any more; they are forgotten. */
  denied: string[];
  /** The edge has not got its bus: delivery is not guaranteed yet, and another `resync` follows. */
  degraded: boolean;
}

export interface Frame {
  at: number;
  way: "sent" | "received";
  event: string;
  data?: unknown;
  to?: To;
  id?: string;
  bytes: number;
}

/** Events of the client itself. A producer's event of such a name comes as `message:{name}`. */
export interface OwnEvents {
  state: [change: StateChange];
  /**
   * Messages may have been missed, and delivery is guaranteed again: load these rooms anew, or
   * everything if it is null. Reasons: `recovered`, `bus`, `overflow`, `confirmed`, `room key`.
   */
  resync: [rooms: string[] | null, meta: { reason: string }];
  /** Online again after a loss; a `resync` follows. */
  recovered: [recovered: Recovered];
  /** Rooms that may not be joined, or not any more. */
  denied: [rooms: string[], meta: { code: string }];
  /** What went wrong where nobody waits for it; the client goes on. */
  error: [problem: { code: string; message: string; error?: unknown }];
  /** Each frame, for tools. */
  frame: [frame: Frame];
  /** Each message that is delivered, whatever its event. */
  "*": [data: unknown, meta: Meta];
}

export interface Aborting {
  signal?: AbortSignal;
}

export interface Options {
  /** `ws:`, `wss:`, `http:` or `https:`; on a page also a path. A function is asked at each dial. */
  url: string | URL | (() => string | Promise<string>);
  /** Asked at each login and to renew; `refused` means that the last token was no good. */
  getToken?: (why: { reason: "login" | "refresh" | "refused" }) => string | Promise<string>;
  /** Sent beside the token in `authenticate`. */
  credentials?: object | ((why: { reason: string }) => object | Promise<object>);
  /** `json` and `msgpack` are `signal.v1`; `plain` is for servers that do not speak it. */
  protocol?: "json" | "msgpack" | "plain";
  /** Payloads sealed with WebCrypto; `true` is `required`. */
  encryption?: boolean | "off" | "optional" | "required";
  /** Joined from the beginning. */
  rooms?: string[];
  /** Requests that wait while there is no connection; beyond, and by default, they fail. */
  queue?: number;
  reconnect?: {
    /** Least time between two dials: 500. */
    minMs?: number;
    /** Most of the wait: 20 000. */
    maxMs?: number;
    /** How long a connection has to last for the wait to begin anew: 10 000. */
    stableMs?: number;
  };
  /** Closes the client. */
  signal?: AbortSignal;
  /** Where there is none: Node 20 and 21. */
  WebSocket?: unknown;
  /** For tests. */
  random?: () => number;
}

export interface Follow<Snapshot> {
  /** Loads the snapshot. Messages that come before the call are in what it returns. */
  load: (context: { signal: AbortSignal }) => Snapshot | Promise<Snapshot>;
  /** Replaces what the application has. */
  reset: (snapshot: Snapshot) => void;
  /** Applies a message; it may be in the snapshot already. */
  apply: (event: string, data: any, meta: Meta) => void;
  /** Only these. */
  events?: string[];
  signal?: AbortSignal;
  /** After a `resync` it waits up to this long, since everyone loads then: 1000. */
  spreadMs?: number;
}

export interface Diagnostics {
  version: string;
  state: State;
  clientId?: string;
  userId?: string;
  server?: { instance: string; version: string };
  expires?: number;
  degraded: boolean;
  protocol: string;
  isEncrypted: boolean;
  roundTripMs?: number;
  /** The edge's clock minus this one. */
  clockSkewMs?: number;
  attempts: number;
  rooms: Record<string, "wanted" | "degraded" | "joined">;
  waiting: number;
  queued: number;
  listeners: number;
  /** The last 50, without credentials. */
  frames: (Omit<Frame, "data"> & { data?: string })[];
  /** The last 30 changes of state. */
  history: (StateChange & { at: number })[];
}

type Data<Events, Name> = Name extends keyof Events ? Events[Name] : unknown;

export class Signal<Events extends object = Record<string, any>> {
  constructor(options: Options);
  readonly state: State;
  /** The id of the present connection, while there is one. */
  readonly clientId: string | undefined;

  /** Calls the listener for each event; what it returns stops that. */
  on<Name extends keyof OwnEvents>(
    event: Name,
    listener: (...details: OwnEvents[Name]) => void,
    options?: Aborting,
  ): () => void;
  on<Name extends keyof Events & string>(
    event: Name,
    listener: (data: Events[Name], meta: Meta) => void,
    options?: Aborting,
  ): () => void;
  /** The next event. */
  once<Name extends string>(
    event: Name,
    options?: Aborting,
  ): Promise<{ data: Data<Events, Name>; meta: Meta }>;
  /** Events from the call on, for `for await`; fails with `overflow` when 10 000 wait. */
  events<Name extends string>(
    event: Name,
    options?: Aborting,
  ): AsyncIterableIterator<{ data: Data<Events, Name>; meta: Meta }>;

  /** Resolves once online. */
  ready(options?: Aborting): Promise<void>;
  /**
   * Joins rooms and remembers them. Resolves once nothing published from now on is missed, however long
   * that takes; with `acceptDegraded` also while the edge has not got its bus. Rejects with `denied`.
   */
  join(
    rooms: string | string[],
    options?: Aborting & { acceptDegraded?: boolean },
  ): Promise<{ rooms: string[]; degraded: boolean }>;
  leave(rooms: string | string[]): Promise<void>;
  /** Subscribes, then loads, then applies what came meanwhile, without a gap; again after each `resync`. */
  follow<Snapshot>(
    rooms: string | string[],
    options: Follow<Snapshot>,
  ): { ready: Promise<void>; stop: () => void };
  /** Resolves with what the edge's handler answers. On the plain protocol nothing is answered. */
  request<Answer = unknown>(
    event: string,
    data?: unknown,
    options?: Aborting & { timeout?: number },
  ): Promise<Answer>;

  /** Ends it for good. */
  close(reason?: string): void;
  diagnostics(): Diagnostics;
  /** Emits `error`. */
  report(error: Error, code?: string): void;
}

/** A client that connects, and comes back by itself. */
export function connect<Events extends object = Record<string, any>>(options: Options): Signal<Events>;
