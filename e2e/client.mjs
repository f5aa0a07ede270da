// A client of the plain protocol on the npm package `ws`, as existing POS and browser code is, and
// the fence that tells when all that was published before has arrived.

import { once } from "node:events";
import { WebSocket } from "ws";

import { until, within } from "./support.mjs";

const MARKER = "e2e.marker";
export const FENCE = "e2e.fence";

export class Client {
  // Connects without logging in.
  static async open(url, options = {}) {
    const client = new Client(new WebSocket(url, options.protocols ?? [], options));
    await within(`connection to ${url}`, once(client.socket, "open"));
    return client;
  }

  // Connects, logs in and asks for rooms.
  static async connect(url, { userId, rooms = [] } = {}) {
    const client = await Client.open(url);
    client.send("authenticate", userId === undefined ? {} : { userId });
    const { data } = await client.message("connected");
    Object.assign(client, { id: data.id, userId: data.userId, rooms });
    if (rooms.length > 0) client.send("join", { rooms });
    return client;
  }

  constructor(socket) {
    this.socket = socket;
    this.frames = [];
    this.watchers = new Set();
    this.closed = new Promise((resolve) => {
      socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    socket.on("error", () => {});
    socket.on("message", (data, isBinary) => {
      this.frames.push(isBinary ? data : data.toString());
      for (const watcher of this.watchers) watcher();
    });
  }

  send(event, data) {
    this.socket.send(JSON.stringify({ event, data }));
  }

  get messages() {
    return this.frames.map((frame) => JSON.parse(frame));
  }

  // The frames that were delivered, without those that the harness publishes for itself. These may
  // be anywhere among them: order holds within a room, a user or a client, not from one to another.
  get deliveredFrames() {
    return this.frames.filter((frame) => {
      const { event } = JSON.parse(frame);
      return event !== MARKER && event !== FENCE;
    });
  }

  // The same as messages.
  get deliveries() {
    return this.deliveredFrames.map((frame) => JSON.parse(frame));
  }

  // Waits until `test` is truthy for all that has arrived, and returns its result.
  async when(what, test) {
    const found = test();
    if (found) return found;
    let watcher;
    const next = new Promise((resolve, reject) => {
      watcher = () => {
        const result = test();
        if (result) resolve(result);
      };
      this.watchers.add(watcher);
      this.closed.then(({ code }) => {
        const result = test();
        if (result) resolve(result);
        else reject(new Error(`closed with ${code} instead of: ${what}`));
      });
    });
    try {
      return await within(() => `${what}, among ${this.frames.length} frames`, next);
    } finally {
      this.watchers.delete(watcher);
    }
  }

  // The first message of an event.
  message(event) {
    return this.when(event, () => this.messages.find((message) => message.event === event));
  }

  // Waits until so many frames have arrived.
  count(countMin) {
    return this.when(`${countMin} frames`, () => this.frames.length >= countMin);
  }

  async close() {
    this.socket.close();
    return within("close of a client", this.closed);
  }
}

// === What is published for the harness ===

const channels = ({ id, userId, rooms }) => [
  ...rooms.map((room) => ["room", room]),
  ...(userId === undefined ? [] : [["user", userId]]),
  ["client", id],
];

const channelName = (channel) => ["ws", ...channel].join(":");

function publish(redis, channel, event, data) {
  const [type, target] = channel;
  const envelope = { serverId: "e2e", type, target, event, data };
  return redis.publish(channelName(channel), JSON.stringify(envelope));
}

const has = (client, event, channel, number) =>
  client.messages.some(
    ({ event: name, data }) =>
      name === event && data.number === number && data.channel === channelName(channel),
  );

let fences = 0;

// Waits until all that is on its way has arrived. A room, a user and a client may come by different
// connections to an edge, so each gets a message of its own first; what they brought to other workers
// is ahead of the broadcast that follows.
export async function fence(redis, clients) {
  const number = (fences += 1);
  const distinct = new Map(clients.flatMap(channels).map((item) => [channelName(item), item]));
  for (const round of [[...distinct.values()], [["broadcast"]]]) {
    for (const channel of round) {
      await publish(redis, channel, FENCE, { number, channel: channelName(channel) });
    }
    for (const client of clients) {
      const due = round[0][0] === "broadcast" ? round : channels(client);
      await client.when(`fence ${number}`, () =>
        due.every((channel) => has(client, FENCE, channel, number)),
      );
    }
  }
}

// Waits until the rooms that clients have asked for are theirs, and forgets what has arrived. A join
// is not answered on the plain protocol, so that only a message in the room tells.
export async function joined(redis, clients) {
  let number = 0;
  const missing = () =>
    clients.flatMap((client) =>
      client.rooms
        .map((room) => ["room", room])
        .filter(
          (channel) =>
            !client.messages.some(
              ({ event, data }) => event === MARKER && data.channel === channelName(channel),
            ),
        ),
    );
  await until("rooms joined", async () => {
    const rooms = new Map(missing().map((channel) => [channelName(channel), channel]));
    for (const channel of rooms.values()) {
      await publish(redis, channel, MARKER, { number: (number += 1), channel: channelName(channel) });
    }
    return rooms.size === 0;
  });
  await fence(redis, clients);
  for (const client of clients) client.frames.length = 0;
}
