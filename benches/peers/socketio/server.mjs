// A server on socket.io with its Redis adapter, as its documents set one up.
//
//   node server.mjs PORT REDIS_PORT

import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, redisPort] = process.argv.slice(2).map(Number);

const publisher = createClient({ url: `redis://127.0.0.1:${redisPort}` });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const io = new Server({
  adapter: createAdapter(publisher, subscriber),
  transports: ["websocket"],
  perMessageDeflate: false,
});

io.on("connection", (socket) => {
  socket.join(`user:${socket.handshake.auth.userId}`);
  socket.on("join", (room) => socket.join(room));
});

io.listen(port);
