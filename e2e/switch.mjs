// A proxy that forwards connections to one of several edges, as a load balancer does, and whose wire
// can be pulled.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Switch {
  #pairs = new Set();
  #isUp = true;

  static async start(address) {
    const wires = new Switch();
    wires.to(address);
    wires.server = createServer((client) => wires.#forward(client)).listen(0, "127.0.0.1");
    await once(wires.server, "listening");
    const { port } = wires.server.address();
    return Object.assign(wires, { address: `127.0.0.1:${port}`, url: `ws://127.0.0.1:${port}/ws` });
  }

  // New connections go there.
  to(address) {
    const [host, port] = address.split(":");
    this.target = { host, port: Number(port) };
  }

  // New connections are refused, and those that are open are cut.
  down() {
    this.#isUp = false;
    this.cut();
  }

  up() {
    this.#isUp = true;
  }

  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  // Bytes are taken and go nowhere, as on a dead link.
  freeze() {
    for (const [client, edge] of this.#pairs) {
      client.unpipe(edge);
      edge.unpipe(client);
      client.resume();
      edge.resume();
    }
  }

  get count() {
    return this.#pairs.size;
  }

  async stop() {
    this.cut();
    this.server.close();
    await once(this.server, "close");
  }

  #forward(client) {
    if (!this.#isUp) return client.destroy();
    const edge = connect(this.target);
    const pair = [client, edge];
    this.#pairs.add(pair);
    client.pipe(edge);
    edge.pipe(client);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#pairs.delete(pair);
        for (const other of pair) other.destroy();
      });
    }
  }
}
