// Types of @signal/client/testing.

export interface FakeConnection {
  readonly clientId?: string;
  readonly userId?: string;
  readonly rooms: Set<string>;
  /** Sends a message to this client. */
  say(message: object): void;
  /** Closes this connection. */
  shut(code: number, reason: string): void;
}

export interface FakeMessage {
  event: string;
  data?: any;
  id?: string;
}

/** A server in the same process, for unit tests: pass its `WebSocket` as an option to `connect`. */
export class FakeServer {
  constructor(options?: {
    /** Returns what goes into `connected`, or throws to reject. */
    login?: (credentials: any, connection: FakeConnection) => object | void | Promise<object | void>;
    /** Rooms that may not be joined. */
    deny?: string[];
    heartbeat?: number;
    protocol?: "json" | "plain";
  });
  readonly WebSocket: unknown;
  readonly connections: Set<FakeConnection>;
  /** What clients sent. */
  readonly received: FakeMessage[];
  /** Connections that were tried. */
  readonly dials: number;
  readonly deny: Set<string>;
  /** Dials fail. */
  isDown: boolean;
  /** Nothing is heard or said, as on a dead link. */
  isSilent: boolean;
  /** Joins are acknowledged as `degraded`. */
  degraded: boolean;
  /** What a request is answered with; what the handler throws is the error. */
  on(event: string, handler: (data: any, connection: FakeConnection) => unknown): this;
  deliver(message: {
    room?: string;
    user?: string;
    client?: string;
    all?: true;
    event: string;
    data?: unknown;
    id?: string;
  }): void;
  /** Says something of the edge's own. */
  say(event: string, data?: unknown): void;
  resync(rooms?: string[] | null, reason?: string): void;
  goodbye(retryAfterMs?: number): void;
  close(code: number, reason?: string): void;
  cut(): void;
  next(event: string): Promise<FakeMessage>;
  /** Takes a message as it comes from a client; a server of your own that unwraps it first calls this. */
  hear(connection: FakeConnection, message: FakeMessage): void;
}
