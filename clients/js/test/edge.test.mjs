// The client and the release binary: what they promise to each other, on each protocol.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { API_KEY, Edge, startRedis, until, within } from "../../../e2e/support.mjs";
import { Switch } from "../../../e2e/switch.mjs";
import { JWT_SECRET, mint } from "../../../e2e/token.mjs";
import { connect } from "../dist/signal.js";

const RECONNECT = { minMs: 20, maxMs: 200 };
const ENVIRONMENT = {
  SIGNAL_AUTH: "jwt",
  SIGNAL_JWT_SECRET: JWT_SECRET,
  SIGNAL_ROOMS: "branch:*",
  SIGNAL_API_KEY: API_KEY,
  SIGNAL_DRAIN_WINDOW: "200ms",
};

describe("clients on edges", () => {
  let redis, edge;
  const serve = () => Edge.serve({ redis, environment: ENVIRONMENT });

  before(async () => {
    redis = await startRedis();
    edge = await serve();
  });
  after(async () => {
    await edge.stop();
    await redis.stop("SIGKILL");
  });

  function open(t, url, options = {}) {
    const client = connect({ url, getToken: () => mint("ann", { rooms: [] }), reconnect: RECONNECT, ...options });
    t.after(() => client.close());
    return client;
  }

  const state = (client, wanted) =>
    within(`state ${wanted}, which is ${client.state}`, (async () => {
      while (client.state !== wanted) await client.once("state");
    })());

  // The plain protocol does not answer a join, so there a message of the room shows it.
  async function member(client, protocol, room, via = edge) {
    await within(`join of ${room}`, client.join(room));
    if (protocol !== "plain") return;
    let isMember = false;
    const off = client.on("marker", () => (isMember = true));
    await until(`a member of ${room}`, async () => {
      await via.publish({ room, event: "marker" });
      return isMember;
    });
    off();
  }

  for (const protocol of ["json", "msgpack", "plain"]) {
    const isV1 = protocol !== "plain";

    test(`${protocol}: connect, join, deliver, leave`, async (t) => {
      const client = open(t, edge.url, { protocol });
      await within("online", client.ready());
      await member(client, protocol, "branch:1");
      const data = { id: "o-1", total: "3.80", note: "naïve 🧾 \u2028", deep: [[{ a: null, b: -1.5e3 }]] };
      for (const [target, to] of [
        [{ room: "branch:1" }, { room: "branch:1" }],
        [{ user: "ann" }, { user: true }],
        [{ client: client.clientId }, { client: true }],
        [{ all: true }, { all: true }],
      ]) {
        const heard = client.once("order.created");
        await edge.publish({ ...target, event: "order.created", data });
        const { data: got, meta } = await within("delivery", heard);
        assert.deepEqual(got, data);
        assert.deepEqual(meta.to, isV1 ? to : undefined);
      }
      const bare = client.once("bare");
      await edge.publish({ all: true, event: "bare" });
      assert.equal((await within("delivery", bare)).data, undefined);
      await client.leave("branch:1");
      if (isV1) {
        client.on("order.created", () => assert.fail("the room was left"));
        const later = client.once("later");
        await edge.publish([{ room: "branch:1", event: "order.created" }, { all: true, event: "later" }]);
        await within("delivery", later);
      }
      const { protocol: spoken, clockSkewMs } = client.diagnostics();
      assert.equal(spoken, isV1 ? `signal.v1.${protocol}` : "plain");
      assert.ok(Math.abs(clockSkewMs) < 5000);
      client.close();
      await edge.forgotten();
    });

    test(`${protocol}: an edge is killed, and another one goes on`, async (t) => {
      const doomed = await serve();
      const wires = await Switch.start(doomed.address);
      t.after(() => wires.stop());
      const client = open(t, wires.url, { protocol });
      await member(client, protocol, "branch:1", doomed);
      const resync = client.once("resync");
      wires.to(edge.address);
      await doomed.stop("SIGKILL");
      assert.deepEqual((await within("resync", resync)).meta, { reason: "recovered" });
      assert.equal(client.state, "online");
      if (!isV1) await member(client, protocol, "branch:1");
      const heard = client.once("after");
      await edge.publish({ room: "branch:1", event: "after", data: 1 });
      assert.equal((await within("delivery", heard)).data, 1);
      client.close();
      await edge.forgotten();
    });

    test(`${protocol}: a drain moves it, with the code and hint of its protocol`, async (t) => {
      const draining = await serve();
      const wires = await Switch.start(draining.address);
      t.after(() => wires.stop());
      const client = open(t, wires.url, { protocol });
      await within("join", client.join("branch:1"));
      const changes = [];
      client.on("state", (change) => changes.push(change));
      wires.to(edge.address);
      const resync = client.once("resync");
      await draining.stop();
      await within("resync", resync);
      const names = changes.map(({ state }) => state);
      const lost = changes.find(({ state }) => state === "recovering");
      assert.equal(lost.code, isV1 ? 4101 : 1001);
      assert.deepEqual(names.slice(-3), ["connecting", "authenticating", "online"]);
      if (isV1) {
        assert.equal(changes[0].state, "draining");
        assert.ok(lost.delayMs >= changes[0].delayMs);
      }
      client.close();
      await edge.forgotten();
    });
  }

  for (const protocol of ["json", "msgpack"]) {
    test(`${protocol}: joins are confirmed, denied and refused as they should be`, async (t) => {
      const client = open(t, edge.url, { protocol });
      await assert.rejects(within("join", client.join(["branch:1", "office"])), { code: "denied", rooms: ["office"] });
      for (let round = 0; round < 30; round += 1) {
        const room = `branch:${round % 5}`;
        await within("join", client.join(room));
        const heard = client.once("now");
        await edge.publish({ room, event: "now", data: round });
        assert.equal((await within("delivery right after the join", heard)).data, round);
        await client.leave(room);
      }
      await assert.rejects(client.request("pay", { order: "o-1" }), { code: "unsupported" });
    });

    test(`${protocol}: credentials are renewed in place`, async (t) => {
      let asked = 0;
      // The first ones end within the notice, so the notice comes at once.
      const getToken = ({ reason }) => mint("ann", { seconds: (asked += 1) === 1 ? 30 : 3600 });
      const client = open(t, edge.url, { protocol, getToken, rooms: ["branch:1"] });
      await within("online", client.ready());
      const { expires, clientId } = client.diagnostics();
      await until("later expiry", () => client.diagnostics().expires > expires + 1_000_000);
      assert.equal(client.clientId, clientId);
      assert.equal(asked, 2);
      client.close();
      await edge.forgotten();
    });
  }

  test("credentials that ended are replaced, refused ones are not offered again", async (t) => {
    let asked = 0;
    const getToken = () => mint("ann", { seconds: (asked += 1) <= 1 ? -100 : 3600 });
    const client = open(t, edge.url, { getToken });
    await within("online", client.ready());
    assert.equal(asked, 2);
    const stubborn = open(t, edge.url, { getToken: () => "nonsense" });
    await assert.rejects(within("end", stubborn.ready()), { code: "closed", closeCode: 4003 });
    client.close();
    await edge.forgotten();
  });

  test("no network, then network", async (t) => {
    const wires = await Switch.start(edge.address);
    t.after(() => wires.stop());
    const client = open(t, wires.url, { queue: 1 });
    await within("join", client.join("branch:1"));
    wires.down();
    await state(client, "recovering");
    const queued = client.request("pay").catch(({ code }) => code);
    await until("three attempts", () => client.diagnostics().attempts > 3);
    wires.up();
    await state(client, "online");
    assert.equal(await queued, "unsupported");
    const heard = client.once("after");
    await edge.publish({ room: "branch:1", event: "after" });
    await within("delivery", heard);
  });

  test("the bus goes and comes back: resync says so, and a join waits", async (t) => {
    const other = await startRedis();
    const alone = await Edge.serve({ redis: other, environment: { ...ENVIRONMENT, SIGNAL_BUS_PROBE_INTERVAL: "500ms" } });
    t.after(() => alone.stop());
    const client = open(t, alone.url);
    await within("join", client.join("branch:1"));
    await other.stop("SIGKILL");
    await until("the edge notices", async () => !(await alone.isReady()));
    let isJoined = false;
    const join = client.join("branch:2").then(() => (isJoined = true));
    assert.equal((await within("join", client.join("branch:2", { acceptDegraded: true }))).degraded, true);
    assert.ok(!isJoined);
    const resync = client.once("resync");
    const again = await startRedis({ port: other.port });
    t.after(() => again.stop("SIGKILL"));
    await within("resync", resync);
    await within("join", join);
    const heard = client.once("after");
    await alone.publish({ room: "branch:2", event: "after" });
    await within("delivery", heard);
  });

  test("a hundred reconnects leave nothing behind", async (t) => {
    const wires = await Switch.start(edge.address);
    t.after(() => wires.stop());
    const client = open(t, wires.url, { reconnect: { minMs: 1, maxMs: 2 } });
    await within("join", client.join("branch:1"));
    const { listeners } = client.diagnostics();
    const handles = () => process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
    const before = handles();
    for (let round = 0; round < 100; round += 1) {
      const recovered = client.once("recovered");
      wires.cut();
      await within(`recovery ${round}`, recovered);
    }
    const { listeners: now, waiting } = client.diagnostics();
    assert.deepEqual([now, waiting], [listeners, 0]);
    await until("one connection", async () => wires.count === 1 && handles() <= before);
    await until("one client on the edge", async () => {
      const { connections } = await edge.info();
      return Object.values(connections).reduce((sum, count) => sum + count, 0) === 1;
    });
    client.close();
    await edge.forgotten();
  });
});
