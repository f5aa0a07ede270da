// The files of deploy/ with the programs that they are for: Redis with its users, edges with the
// settings of each deployment, the image's health check, Prometheus and the dashboard's queries.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Client } from "./client.mjs";
import { Cluster, MASTERS, Node, clusterPorts } from "./cluster.mjs";
import { Redis } from "./ignis.mjs";
import { Edge, Process, freePort, run, scratch, signal, startRedis, until } from "./support.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const deploy = (path) => here(`../deploy/${path}`);
const read = (path) => readFileSync(deploy(path), "utf8");

// Installs what is missing; it takes no time when there is nothing to do.
function install() {
  const { status, stderr } = spawnSync(here("../scripts/lint-deploy.sh"), ["tools"]);
  assert.equal(status, 0, String(stderr));
}

// Secrets as deploy/secrets.sh makes them, one file each.
function makeSecrets(names) {
  const folder = mkdtempSync(join(scratch, "secrets-"));
  for (const name of names) writeFileSync(join(folder, name), `${name}-`.padEnd(32, "0123456789") + "\n");
  return folder;
}

// Redis as deploy/redis starts it.
async function startBus(secrets) {
  const port = await freePort();
  const args = [secrets, "--port", String(port), "--bind", "127.0.0.1", "--dir", scratch];
  const redis = new Process(deploy("redis/start.sh"), args);
  await redis.line("readiness", (line) => line.includes("Ready to accept connections"));
  return Object.assign(redis, { port, secrets });
}

// A Redis Cluster as compose.yaml starts it, with other addresses.
async function startCluster(secrets) {
  const nodes = (await clusterPorts()).map((port) => {
    const folder = mkdtempSync(join(scratch, "node-"));
    const own = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder];
    const args = [secrets, "--include", deploy("redis/cluster.conf"), ...own];
    return new Node(port, args, deploy("redis/start.sh"));
  });
  const cluster = new Cluster(nodes);
  await Promise.all(nodes.map((node) => node.start()));
  const { code, stdout, stderr } = await formCluster(cluster, secrets);
  assert.equal(code, 0, stdout + stderr);
  return cluster;
}

const formCluster = ({ nodes }, secrets) =>
  run(deploy("redis/cluster.sh"), [secrets, ...nodes.map(({ port }) => `127.0.0.1:${port}`)]);

const login = ({ port, secrets }, username) => ({
  APP_ENV_WEBSOCKET_REDIS_MODE: "single",
  APP_ENV_WEBSOCKET_REDIS_PORT: String(port),
  APP_ENV_WEBSOCKET_REDIS_USERNAME: username,
  APP_ENV_WEBSOCKET_REDIS_PASSWORD_FILE: join(secrets, `redis-${username}`),
});

describe("Redis with the users of deploy/redis", () => {
  let bus, edge;
  const clients = [];
  const as = (username, password) =>
    new Redis({ port: bus.port, username, password, lazyConnect: true, retryStrategy: null });
  const password = (name) => readFileSync(join(bus.secrets, name), "utf8").trim();

  before(async () => {
    const names = ["edge", "producer", "typescript", "operator"];
    bus = await startBus(makeSecrets(names.map((name) => `redis-${name}`)));
    edge = await Edge.serve({ environment: login(bus, "edge") });
  });

  after(async () => {
    for (const client of clients) client.disconnect();
    await edge.stop();
    await bus.stop();
  });

  async function connected(username, secret) {
    const client = as(username, secret);
    client.on("error", () => {});
    clients.push(client);
    await client.connect();
    return client;
  }

  test("an edge listens and publishes, a producer publishes", async () => {
    const client = await Client.connect(edge.url, { userId: "ann" });
    const emitted = await signal(["emit", "--user", "ann", "--event", "paid", "--data", "7"], {
      environment: login(bus, "producer"),
    });
    assert.deepEqual([emitted.code, emitted.stdout], [0, "published, 1 receivers\n"], emitted.stderr);
    assert.equal((await client.message("paid")).data, 7);
    const { status } = await edge.publish({ all: true, event: "closed", data: 8 });
    assert.equal(status, 200);
    assert.equal((await client.message("closed")).data, 8);
    await client.close();
  });

  test("an edge records itself, and a producer finds it", async () => {
    const producer = await connected("producer", password("redis-producer"));
    const found = async () => (await producer.zrangebyscore("signal:edges", 0, "+inf")).length;
    await until("the edge's record", async () => (await found()) === 1);
    const { code, stderr } = await signal(["emit", "--all", "--event", "x"], {
      environment: login(bus, "producer"),
    });
    assert.deepEqual([code, stderr], [0, ""]);
  });

  test("a server of the TypeScript fleet may do what it does", async () => {
    const server = await connected(undefined, password("redis-typescript"));
    assert.equal(await server.publish("ws:room:a", "{}"), 0);
    await server.subscribe("ws:broadcast");
    for (const kind of ["room", "client", "user"]) await server.psubscribe(`ws:${kind}:*`);
  });

  test("an operator sees who listens", async () => {
    const client = await Client.connect(edge.url, { userId: "ann" });
    const operator = await connected("operator", password("redis-operator"));
    const listeners = await operator.pubsub("NUMSUB", "ws:user:ann", "ws:user:bob");
    assert.deepEqual(listeners, ["ws:user:ann", 1, "ws:user:bob", 0]);
    assert.match(await operator.client("LIST"), /name=signal-edge/);
    await operator.acl("LOG");
    await client.close();
  });

  test("what they do is not refused", async () => {
    const log = await (await connected("operator", password("redis-operator"))).acl("LOG");
    assert.deepEqual(log, []);
  });

  test("nobody may do more", async () => {
    const refused = (promise, what) => assert.rejects(promise, /NOPERM/, what);
    const producer = await connected("producer", password("redis-producer"));
    await refused(producer.publish("other:room:a", "{}"), "another channel");
    await refused(producer.subscribe("ws:broadcast"), "a producer that listens");
    await refused(producer.zadd("signal:edges", 1, "edge"), "a producer that makes up an edge");
    const elsewhere = await connected("edge", password("redis-edge"));
    await refused(elsewhere.psubscribe("ws:*"), "an edge with a pattern");
    await refused(elsewhere.set("key", "value"), "an edge that writes");
    await refused(elsewhere.zadd("key", 1, "value"), "an edge that writes another key");
    await refused(elsewhere.client("LIST"), "an edge that looks at others");
    const health = await connected("health", "any");
    assert.equal(await health.ping(), "PONG");
    await refused(health.publish("ws:broadcast", "{}"), "a health check that publishes");
  });

  test("without its secret a user is off", async () => {
    const other = await startBus(makeSecrets(["redis-edge"]));
    const { stdout } = await run("redis-cli", ["-p", String(other.port), "ping"]);
    assert.match(stdout, /^NOAUTH/);
    const emitted = await signal(["emit", "--all", "--event", "x"], {
      environment: login({ port: other.port, secrets: bus.secrets }, "producer"),
    });
    assert.notEqual(emitted.code, 0);
    await other.stop();
  });
});

describe("a Redis Cluster with the files of deploy/redis", () => {
  const names = ["edge", "producer", "operator", "cluster"].map((name) => `redis-${name}`);
  let secrets, cluster;
  const as = (username, pubsub) => ({
    ...cluster.settings(pubsub),
    APP_ENV_WEBSOCKET_REDIS_USERNAME: username,
    APP_ENV_WEBSOCKET_REDIS_PASSWORD_FILE: join(secrets, `redis-${username}`),
  });
  const operator = (node, ...args) => {
    const password = readFileSync(join(secrets, "redis-operator"), "utf8").trim();
    return node.ask("--no-auth-warning", "--user", "operator", "--pass", password, ...args);
  };
  // What Redis refused to anybody, on any node that lives.
  const refusals = async () => {
    const living = cluster.nodes.filter((node) => node.isRunning());
    return (await Promise.all(living.map((node) => operator(node, "acl", "log")))).filter(Boolean);
  };

  before(async () => {
    secrets = makeSecrets(names);
    cluster = await startCluster(secrets);
  });
  after(() => cluster.stop());

  test("is made once, and the replicas may copy", async () => {
    const view = () => operator(cluster.nodes[0], "cluster", "nodes");
    const ids = (text) => text.split("\n").map((line) => line.split(" ")[0]).sort();
    const first = await view();
    const again = await formCluster(cluster, secrets);
    assert.deepEqual([again.code, again.stdout], [0, "the cluster is whole\n"], again.stderr);
    assert.deepEqual(ids(await view()), ids(first));
    for (const node of cluster.nodes.slice(MASTERS)) {
      await until("a replica that follows", async () =>
        /role:slave[^]*master_link_status:up/.test(await operator(node, "info", "replication")),
      );
    }
    assert.deepEqual(await refusals(), []);
  });

  for (const pubsub of ["classic", "sharded"]) {
    test(`${pubsub}: edges and producers may do all that they do`, async () => {
      const edge = await Edge.serve({ environment: as("edge", pubsub) });
      const client = await Client.connect(edge.url, { userId: "ann" });
      for (const target of [["--user", "ann"], ["--client", client.id], ["--all"]]) {
        const event = `emitted${target[0]}`;
        const emitted = await signal(["emit", ...target, "--event", event], { environment: as("producer", pubsub) });
        assert.equal(emitted.code, 0, emitted.stderr);
        assert.doesNotMatch(emitted.stderr, /edges|WARN/);
        await client.message(event);
      }
      assert.equal((await edge.publish({ user: "ann", event: "published" })).status, 200);
      await client.message("published");
      // What docs/redis.md tells operators to ask.
      let edges = "";
      await until("the edge's record", async () => {
        edges = await operator(cluster.nodes[0], "-c", "zrange", "signal:edges", "0", "-1");
        return edges !== "";
      });
      assert.match(edges, new RegExp(`"pubsub":"${pubsub}"`));
      const list = { classic: "channels", sharded: "shardchannels" }[pubsub];
      const heard = cluster.nodes.map((node) => operator(node, "pubsub", list, "*ws:user:ann"));
      assert.equal((await Promise.all(heard)).filter(Boolean).length, 1);
      const { code, stdout, stderr } = await signal(["check"], {
        environment: { ...as("edge", pubsub), SIGNAL_AUTH: "insecure-dev" },
      });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /\nok: redis answers\n$/);
      await client.close();
      await edge.stop();
      assert.deepEqual(await refusals(), []);
    });
  }

  test("a replica takes over from its master, as its user", async () => {
    const edge = await Edge.serve({ environment: as("edge", "sharded") });
    const client = await Client.connect(edge.url, { userId: "ann" });
    await cluster.nodes[0].stop("SIGKILL");
    await until("not ready", async () => !(await edge.isReady()));
    await until("ready", () => edge.isReady());
    assert.equal((await edge.publish({ user: "ann", event: "published" })).status, 200);
    await client.message("published");
    assert.deepEqual(await refusals(), []);
    await client.close();
    await edge.stop();
  });
});

describe("what each deployment starts an edge with", () => {
  let environments, bus, cluster;

  before(async () => {
    install();
    const python = here(".cache/venv/bin/python");
    const { stdout, stderr } = await run(python, [deploy("lint/check.py"), "environments"]);
    assert.ok(stdout, stderr);
    environments = JSON.parse(stdout);
    const secrets = makeSecrets(["jwt", "api-key", "redis-edge", "redis-cluster"]);
    bus = await startBus(secrets);
    cluster = await startCluster(secrets);
  });
  after(() => Promise.all([bus.stop(), cluster.stop()]));

  for (const name of ["compose", "compose.single", "kubernetes", "systemd"]) {
    test(`${name}: signal check is content, and reaches Redis as its user`, async () => {
      const environment = Object.fromEntries(
        Object.entries(environments[name]).map(([setting, value]) => {
          return [setting, setting.endsWith("_FILE") ? join(bus.secrets, basename(value)) : value];
        }),
      );
      assert.equal(environment.APP_ENV_WEBSOCKET_REDIS_MODE, name === "compose" ? "cluster" : "single");
      if (name === "compose") {
        const { APP_ENV_WEBSOCKET_REDIS_CLUSTER_NODES: seeds } = cluster.settings();
        environment.APP_ENV_WEBSOCKET_REDIS_CLUSTER_NODES = seeds;
      } else {
        environment.APP_ENV_WEBSOCKET_REDIS_HOST = "127.0.0.1";
        environment.APP_ENV_WEBSOCKET_REDIS_PORT = String(bus.port);
      }
      const { code, stdout, stderr } = await signal(["check"], { environment });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /\nok: redis answers\n$/);
    });
  }

  test("the secrets that secrets.sh makes are good enough", async () => {
    const folder = mkdtempSync(join(scratch, "deploy-"));
    mkdirSync(join(folder, "secrets"));
    writeFileSync(join(folder, "secrets.sh"), read("secrets.sh"), { mode: 0o755 });
    const first = await run(join(folder, "secrets.sh"), []);
    assert.equal(first.code, 0, first.stderr);
    const jwt = join(folder, "secrets", "jwt");
    const secret = readFileSync(jwt, "utf8");
    assert.match(secret, /^[0-9a-f]{64}$/);
    const again = await run(join(folder, "secrets.sh"), []);
    assert.deepEqual([again.code, again.stdout], [0, ""]);
    assert.equal(readFileSync(jwt, "utf8"), secret);
  });
});

test("the image's health check tells a live edge from none", async () => {
  const edge = await Edge.serve();
  const port = edge.address.split(":").at(-1);
  const check = (...args) => run(deploy("healthcheck.sh"), args);
  assert.equal((await check("/livez", port)).code, 0);
  assert.equal((await check("/readyz", port)).code, 0);
  assert.notEqual((await check("/nowhere", port)).code, 0);
  await edge.stop();
  assert.notEqual((await check("/livez", port)).code, 0);
});

describe("Prometheus with the files of deploy/prometheus", () => {
  let redis, control, edges, prometheus, address;

  before(async () => {
    install();
    redis = await startRedis();
    control = new Redis({ port: redis.port });
    edges = [await Edge.serve({ redis }), await Edge.serve({ redis })];
    const folder = mkdtempSync(join(scratch, "prometheus-"));
    const targets = edges.map(({ admin }) => `"${admin}"`).join(", ");
    const settings = read("prometheus/prometheus.yaml")
      .replace('"edge-1:3001", "edge-2:3001", "edge-3:3001"', targets)
      .replace("scrape_interval: 15s", "scrape_interval: 1s");
    assert.ok(settings.includes(targets) && settings.includes(": 1s"));
    writeFileSync(join(folder, "prometheus.yaml"), settings);
    writeFileSync(join(folder, "alerts.yaml"), read("prometheus/alerts.yaml"));
    address = `127.0.0.1:${await freePort()}`;
    prometheus = new Process(here(".cache/debian/usr/bin/prometheus"), [
      `--config.file=${folder}/prometheus.yaml`,
      `--storage.tsdb.path=${folder}/data`,
      `--web.listen-address=${address}`,
    ]);
    await prometheus.line("readiness", (line) => line.includes("ready to receive web requests"));
  });

  after(async () => {
    await prometheus.stop();
    await control.quit();
    await Promise.all(edges.map((edge) => edge.stop()));
    await redis.stop();
  });

  async function ask(query) {
    const parameters = new URLSearchParams({ query });
    const response = await fetch(`http://${address}/api/v1/query?${parameters}`);
    const { status, error, data } = await response.json();
    assert.equal(status, "success", `${query}: ${error}`);
    return data.result;
  }

  // A little of everything that is counted only once it has happened.
  async function makeTraffic() {
    for (const edge of edges) {
      const client = await Client.connect(edge.url, { userId: "ann" });
      client.socket.send("not JSON");
      await control.publish("ws:broadcast", "not an envelope");
      const now = { serverId: "e2e", type: "broadcast", event: "now", data: 1, ts: Date.now() };
      await control.publish("ws:broadcast", JSON.stringify(now));
      await client.message("now");
      await edge.publish({ all: true, event: "hello", data: 1 });
      await client.close();
    }
  }

  test("every panel of the dashboard shows something", async () => {
    const { panels } = JSON.parse(read("grafana/dashboard.json"));
    const queries = panels.flatMap(({ title, targets = [] }) =>
      targets.map(({ expr }) => ({
        title,
        query: expr
          .replaceAll("$__rate_interval", "10s")
          .replaceAll("$__range", "1m")
          .replaceAll("$instance", ".*"),
      })),
    );
    assert.ok(queries.length > 30);
    let left = queries;
    await makeTraffic();
    await until(() => left.map(({ title }) => title).join(", "), async () => {
      const answers = await Promise.all(left.map(({ query }) => ask(query)));
      left = left.filter((_, index) => answers[index].length === 0);
      return left.length === 0;
    }).catch(() => assert.deepEqual(left, []));
  });

  test("it sees the edges, and can evaluate every alert", async () => {
    const up = await ask('up{job="signal"} == 1');
    assert.equal(up.length, edges.length);
    const response = await fetch(`http://${address}/api/v1/rules?type=alert`);
    const { data } = await response.json();
    const rules = data.groups.flatMap((group) => group.rules);
    assert.ok(rules.length > 10);
    for (const { name, lastError } of rules) assert.equal(lastError ?? "", "", name);
  });
});
