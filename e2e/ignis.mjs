// The npm package whose fleet Signal replaces, as its users have it.

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import { Process, bun, scratch, until } from "./support.mjs";

// Read when the package is loaded, which is why it is loaded below.
process.env.APP_ENV_LOGGER_FOLDER_PATH = scratch;
const require = createRequire(import.meta.url);
const { ECDH, RedisHelper, WebSocketEmitter, applicationLogger } = require("@venizia/ignis-helpers");
export { ECDH };
export const { Redis } = require("ioredis");
applicationLogger.silent = true;

// A `WebSocketEmitter` that is ready to publish.
export async function startEmitter({ port }) {
  const redisConnection = new RedisHelper({
    name: "e2e",
    host: "127.0.0.1",
    port,
    password: "",
    autoConnect: false,
  });
  const emitter = new WebSocketEmitter({ identifier: "e2e-emitter", redisConnection });
  await emitter.configure();
  return emitter;
}

// A server of the package, on Bun, with clients at `url`.
export class TypeScriptServer extends Process {
  static async start(redis) {
    const script = fileURLToPath(new URL("ts-server.ts", import.meta.url));
    const server = new TypeScriptServer(bun(), [script], {
      environment: {
        APP_ENV_LOGGER_FOLDER_PATH: scratch,
        APP_ENV_WEBSOCKET_REDIS_PORT: String(redis.port),
      },
    });
    server.address = await server.line("address", (line) => /^listening on (.*)$/.exec(line)?.[1]);
    return server;
  }

  get url() {
    return `ws://${this.address}/ws`;
  }

  // Calls the helper's `send`.
  async send(destination, topic, data) {
    const body = JSON.stringify({ destination, topic, data });
    const { status } = await fetch(`http://${this.address}/send`, { method: "POST", body });
    if (status !== 204) throw new Error(`the TypeScript server answered ${status}`);
  }

  async forgotten() {
    await until("no client on the TypeScript server", async () => {
      return (await (await fetch(`http://${this.address}/clients`)).json()) === 0;
    });
  }
}
