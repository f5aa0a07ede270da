// A server of the fleet that Signal replaces: `WebSocketServerHelper` of the npm package on Bun.
//
//   APP_ENV_WEBSOCKET_REDIS_PORT=6379 bun ts-server.ts
//
// With ENCRYPTION=on every client must agree on a key, and gets everything sealed by class `ECDH`.
// Clients connect at /ws; `POST /send` with {"destination"?, "topic", "data"} calls the helper's
// `send`, and `GET /clients` tells how many clients it has. Its one line of output is the address.

import { ECDH, RedisHelper, WebSocketServerHelper, applicationLogger } from "@venizia/ignis-helpers";

applicationLogger.silent = true;

let helper: WebSocketServerHelper;

async function fetch(request: Request, server: Bun.Server<{ clientId: string }>) {
  const path = new URL(request.url).pathname;
  if (path === "/ws") {
    const isUpgraded = server.upgrade(request, { data: { clientId: crypto.randomUUID() } });
    return isUpgraded ? undefined : new Response("not an upgrade", { status: 426 });
  }
  if (path === "/send") {
    const { destination, topic, data } = await request.json();
    helper.send({ destination, payload: { topic, data } });
    return new Response(null, { status: 204 });
  }
  if (path === "/clients") {
    return Response.json((helper.getClients() as Map<string, unknown>).size);
  }
  return new Response("not found", { status: 404 });
}

const ecdh = ECDH.withAlgorithm();
const keys = new Map<string, CryptoKey>();

const encryption = {
  requireEncryption: true,
  handshakeFn: async ({ clientId, data }: { clientId: string; data: { publicKey?: string } }) => {
    if (!data.publicKey) return null;
    const { keyPair, publicKeyB64 } = await ecdh.generateKeyPair();
    const peerPublicKey = await ecdh.importPublicKey({ rawKeyB64: data.publicKey });
    const { key, salt } = await ecdh.deriveAESKey({ privateKey: keyPair.privateKey, peerPublicKey });
    keys.set(clientId, key);
    return { serverPublicKey: publicKeyB64, salt };
  },
  outboundTransformer: async ({ client, event, data }: { client: { id: string }; event: string; data: unknown }) => {
    // It carries the server's half of the key.
    if (event === "connected") return null;
    const secret = keys.get(client.id)!;
    return { event: "encrypted", data: await ecdh.encrypt({ message: JSON.stringify({ event, data }), secret }) };
  },
  clientDisconnectedFn: ({ clientId }: { clientId: string }) => void keys.delete(clientId),
};

// The helper needs the server, and the server the helper's handler: hence the reload.
const server = Bun.serve({ hostname: "127.0.0.1", port: Number(process.env.PORT ?? 0), fetch, websocket: { message() {} } });

helper = new WebSocketServerHelper({
  identifier: "e2e-server",
  server,
  redisConnection: new RedisHelper({
    name: "e2e-server",
    host: "127.0.0.1",
    port: process.env.APP_ENV_WEBSOCKET_REDIS_PORT!,
    password: "",
    autoConnect: false,
  }),
  authenticateFn: ({ userId }: { userId?: string }) => ({ userId }),
  validateRoomFn: ({ rooms }) => rooms,
  ...(process.env.ENCRYPTION === "on" ? encryption : {}),
});
await helper.configure();
server.reload({ fetch, websocket: helper.getBunWebSocketHandler() as never });
console.log(`listening on ${server.hostname}:${server.port}`);
