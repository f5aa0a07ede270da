// What unit tests of applications write with the types of @signal/client/testing. Checked by
// types.test.mjs and never run.

import { connect } from "@signal/client";
import { FakeServer, type FakeConnection, type FakeMessage } from "@signal/client/testing";

const server = new FakeServer({
  login: (credentials, connection) => ({ userId: credentials.userId, room: connection.userId }),
  deny: ["office"],
  heartbeat: 30_000,
  protocol: "json",
});
const others = [
  new FakeServer(),
  new FakeServer({ login: async () => {}, protocol: "plain" }),
  // @ts-expect-error it has no such protocol
  new FakeServer({ protocol: "msgpack" }),
  // @ts-expect-error rooms are names
  new FakeServer({ deny: [7] }),
];

const signal = connect({ url: "ws://test", WebSocket: server.WebSocket });
server
  .on("order.pay", ({ id }, { clientId }) => ({ paid: id, by: clientId }))
  .on("order.fail", async () => {
    throw new Error("no");
  });

export async function exercises(): Promise<unknown[]> {
  const message: FakeMessage = await server.next("join");
  const { event, data, id } = message;
  server.deliver({ room: "r", event: "e", data: 1, id: "m-1" });
  server.deliver({ user: "u", event: "e" });
  server.deliver({ client: "c", event: "e" });
  server.deliver({ all: true, event: "e" });
  // @ts-expect-error a message has an event
  server.deliver({ room: "r" });
  server.say("expiring", { in: 60_000 });
  server.resync();
  server.resync(["r"], "overflow");
  server.goodbye();
  server.goodbye(2_000);
  server.close(4100);
  server.close(4100, "Slow consumer");
  server.cut();
  server.isDown = true;
  server.isSilent = true;
  server.degraded = true;
  server.deny.add("office");
  // @ts-expect-error dials are counted, not set
  server.dials = 0;
  for (const connection of server.connections) {
    const { clientId, userId, rooms }: FakeConnection = connection;
    connection.say({ event: "hello" });
    connection.shut(4100, "Slow consumer");
    server.hear(connection, { event: "heartbeat", id: "1" });
    return [clientId, userId, rooms.has("r"), event, data, id, server.dials, server.received.length];
  }
  return [signal, others];
}
