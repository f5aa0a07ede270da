// The demo page: a till and an office, two clients of Signal side by side, and who got what.
//
// It owns two clients, one on each variant of the protocol, and what the page shows of them. All that
// arrives is shown: the server decides who gets what, not the page. It never turns what arrives into
// markup (text goes in as text), and every list forgets its oldest entries.

import { connect } from "/signal.js";

const TICKETS_MAX = 30;
const ORDERS_MAX = 100;
const DELIVERIES_MAX = 100;
const FRAMES_MAX = 30;
const FRAME_CHARACTERS_MAX = 400;
const PULSES_MAX = 100;
const LATENCIES_MAX = 200;
const NOTICE_MS = 15_000;

// How long a view that was cut has no network.
const OUTAGE_MS = 4000;

// How long the second view may take to get what the first one got, to count as the same event.
const SAME_EVENT_MS = 3000;

// The tallest bar of a pulse.
const PULSE_LATENCY_MS = 30;

const BRANCHES = [1, 2, 3];
const roomOf = (branch) => `branch:${branch}`;

// === Page helpers ===

const byId = (id) => document.getElementById(id);

// An element with properties, data attributes and children; strings become text.
function element(tag, { dataset, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  Object.assign(node.dataset, dataset);
  node.append(...children);
  return node;
}

function putFirst(list, node, countMax) {
  list.prepend(node);
  while (list.childElementCount > countMax) list.lastElementChild.remove();
}

// Forgets the oldest entries of a map, which keeps the order of insertion.
function trim(map, countMax) {
  for (const key of map.keys()) {
    if (map.size <= countMax) return;
    map.delete(key);
  }
}

const chip = (kind, text) => element("span", { className: "chip", dataset: { kind } }, text);

// An amount is a decimal text and stays one: no sum of money passes through a binary fraction.
function money(amount, currency = "EUR") {
  try {
    return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(amount);
  } catch {
    return `${amount} ${currency}`.trim();
  }
}

function cents(amount) {
  const [, sign, whole, fraction = ""] = /^(-?)(\d+)(?:\.(\d{1,2}))?$/.exec(amount) ?? [];
  return whole === undefined ? 0n : BigInt(`${sign}${whole}${fraction.padEnd(2, "0")}`);
}

function centsAsText(amount) {
  const digits = String(amount < 0n ? -amount : amount).padStart(3, "0");
  return `${amount < 0n ? "-" : ""}${digits.slice(0, -2)}.${digits.slice(-2)}`;
}

const isObject = (data) => typeof data === "object" && data !== null;
const itemsOf = (order) => (Array.isArray(order.lines) ? order.lines : []);
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const milliseconds = (ms) => (ms < 0.1 ? "<0.1 ms" : ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);

// Finer than `Date.now()`, unless the computer slept and the two have parted.
function now() {
  const fine = performance.timeOrigin + performance.now();
  return Math.abs(fine - Date.now()) < 50 ? fine : Date.now();
}

// From the service to this page; nothing if the event does not say when it was published.
function latencyOf(data) {
  const at = isObject(data) ? Number(data.at) : NaN;
  return Number.isFinite(at) ? Math.max(0, now() - at) : undefined;
}

function median(numbers) {
  const sorted = [...numbers].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)];
}

// === A view: a client, its connection, and a network that can be taken away ===

const STATES = {
  connecting: "connecting",
  authenticating: "logging in",
  online: "online",
  draining: "moving",
  recovering: "connection lost",
  closed: "closed",
};

class View {
  #outUntil = 0;
  #countdown = 0;
  #noticeTimer = 0;

  constructor(name, { userId, protocol }) {
    this.name = name;
    this.client = connect({ url: () => this.#address(), protocol, credentials: { userId } });
    this.client.on("state", (change) => this.#showState(change));
    this.client.on("frame", (frame) => this.#showFrame(frame));
    this.client.on("recovered", ({ offlineMs, attempts }) => (this.recovered = { offlineMs, attempts }));
    this.client.on("*", (data, meta) => {
      const latency = latencyOf(data);
      this.#pulse(latency);
      trace.add(name, data, meta, latency);
    });
    this.client.on("notice", (data) => isObject(data) && this.notice(String(data.text)));
    this.part("cut").addEventListener("click", () => this.cut());
  }

  part(name) {
    return byId(`${this.name}-${name}`);
  }

  // The edge closes the connection, and for a while there is no network to come back on.
  cut() {
    if (this.client.state !== "online") return;
    this.#outUntil = Date.now() + OUTAGE_MS;
    this.client.request("demo.cut").catch(() => {});
  }

  #address() {
    if (Date.now() < this.#outUntil) throw new Error("no network");
    return "/ws";
  }

  // Says what became of an outage once the view is whole again.
  caughtUp(count) {
    if (!this.recovered) return;
    const { offlineMs, attempts } = this.recovered;
    this.recovered = null;
    const missed = count === 0 ? "nothing was missed" : `${count} that happened meanwhile ${count === 1 ? "is" : "are"} here`;
    this.notice(`Back after ${seconds(offlineMs)} and ${attempts} ${attempts === 1 ? "attempt" : "attempts"}: ${missed}.`, "recovered");
  }

  notice(text, kind = "") {
    const node = this.part("notice");
    node.textContent = text;
    node.dataset.kind = kind;
    node.hidden = false;
    clearTimeout(this.#noticeTimer);
    this.#noticeTimer = setTimeout(() => (node.hidden = true), NOTICE_MS);
  }

  #showState({ state, reason, code, delayMs, attempt }) {
    const node = this.part("state");
    const isWaiting = state === "recovering";
    // While it tries, the page says that it is lost: each dial is not news to anyone.
    const isTrying = this.#outUntil > 0 && (state === "connecting" || state === "authenticating");
    if (!isTrying) {
      node.dataset.state = this.part("wire").dataset.state = state;
      node.textContent = STATES[state];
    }
    clearInterval(this.#countdown);
    this.part("detail").hidden = !isWaiting;
    this.part("cut").setAttribute("aria-disabled", String(state !== "online"));
    if (isWaiting) {
      const until = Date.now() + delayMs;
      const why = code ? `${reason.replaceAll("_", " ")}, ${code}` : reason;
      const [words, bar] = this.part("detail").children;
      const show = () => {
        const left = Math.max(0, until - Date.now());
        words.textContent = `${why} · attempt ${attempt} in ${seconds(left)}`;
        bar.style.transform = `scaleX(${left / delayMs})`;
      };
      show();
      this.#countdown = setInterval(show, 100);
      if (attempt === 1) this.#pulse(null);
    }
    if (state !== "online") return;
    this.#outUntil = 0;
    const { userId, clientId, protocol } = this.client.diagnostics();
    this.part("identity").replaceChildren(
      element("span", { className: "sr" }, "user "),
      `${userId} · `,
      element("code", { title: `client ${clientId}` }, protocol),
    );
  }

  // One bar per event, as high as it took long; null is a loss.
  #pulse(latency) {
    const pulse = this.part("pulse");
    const bar = element("i", { className: latency === null ? "lost" : "" });
    if (latency === undefined) return;
    if (latency !== null) {
      const share = Math.log1p(latency) / Math.log1p(PULSE_LATENCY_MS);
      bar.style.height = `${Math.round(100 * Math.min(1, Math.max(0.1, share)))}%`;
      pulse.ariaLabel = `last event after ${milliseconds(latency)}`;
    }
    pulse.append(bar);
    while (pulse.childElementCount > PULSES_MAX) pulse.firstElementChild.remove();
  }

  #showFrame({ way, event, data, to }) {
    const text = JSON.stringify({ event, data, to });
    const start = text.slice(0, FRAME_CHARACTERS_MAX);
    const shown = `${way === "sent" ? "→" : "←"} ${start}${start === text ? "" : "…"}`;
    putFirst(this.part("frames"), element("li", { dataset: { way } }, shown), FRAMES_MAX);
  }
}

// === Who got what ===

const trace = {
  rows: [],
  latencies: [],

  add(name, data, meta, latency) {
    const at = performance.now();
    const text = JSON.stringify([meta.event, data]);
    let row = this.rows.find(
      (row) => row.text === text && !row.names.has(name) && at - row.at < SAME_EVENT_MS,
    );
    if (!row) {
      row = { text, at, names: new Set(), cells: {} };
      this.rows.unshift(row);
      this.rows.length = Math.min(this.rows.length, DELIVERIES_MAX);
      this.show(row, data, meta);
    }
    row.names.add(name);
    row.cells[name].className = "right got";
    row.cells[name].textContent = latency === undefined ? "got it" : milliseconds(latency);
    row.node.dataset.got = [...row.names].sort().join(" ");
    if (latency === undefined) return;
    this.latencies.push(latency);
    if (this.latencies.length > LATENCIES_MAX) this.latencies.shift();
    byId("median").textContent = `median ${milliseconds(median(this.latencies))}`;
  },

  show(row, data, { event, to }) {
    const subject = isObject(data) ? String(data.id ?? data.payment ?? data.text ?? "") : "";
    for (const name of ["pos", "admin"]) {
      const mark = element("span", { ariaHidden: "true" }, "–");
      row.cells[name] = element("td", { className: "right not" }, mark, element("span", { className: "sr" }, "did not get it"));
    }
    const whom = to?.room ?? (to?.user ? "user admin" : to?.client ? "one client" : "everyone");
    row.node = element(
      "tr",
      { className: "fresh", dataset: { testid: "delivery", event, subject } },
      element("td", {}, event, element("small", {}, subject)),
      element("td", {}, chip("target", whom)),
      row.cells.pos,
      row.cells.admin,
    );
    byId("deliveries-empty").hidden = true;
    putFirst(byId("deliveries"), row.node, DELIVERIES_MAX);
  },
};

// === Point of sale: one branch ===

function startPos() {
  const view = new View("pos", { userId: "pos-1", protocol: "json" });
  const { client } = view;
  const tickets = new Map();
  const branchOf = () => document.querySelector("input[name=branch]:checked").value;
  let following;

  const clear = () => {
    tickets.clear();
    byId("tickets").replaceChildren();
    byId("tickets-empty").hidden = false;
  };

  const showOrder = (order, isNews = true) => {
    if (!isObject(order) || tickets.has(order.id)) return;
    const payment = chip("waiting", "to pay");
    const lines = itemsOf(order).map(({ quantity, name }) =>
      element("li", {}, element("b", {}, `${quantity}×`), String(name)),
    );
    const ticket = element(
      "li",
      { className: isNews ? "fresh" : "", dataset: { testid: "ticket", order: order.id, branch: order.branch, payment: "waiting" } },
      element("h3", {}, String(order.id)),
      payment,
      element("ul", {}, ...lines),
      element("span", { className: "total" }, money(order.total, order.currency)),
    );
    tickets.set(order.id, { ticket, payment });
    trim(tickets, TICKETS_MAX);
    byId("tickets-empty").hidden = true;
    putFirst(byId("tickets"), ticket, TICKETS_MAX);
    if (isNews) byId("pos-announcer").textContent = `Order ${order.id}, ${money(order.total, order.currency)}`;
  };

  const showPayment = (payment) => {
    const shown = tickets.get(payment?.order);
    if (!shown) return;
    shown.ticket.dataset.payment = "paid";
    shown.payment.dataset.kind = "paid";
    shown.payment.textContent = `paid by ${payment.method}`;
  };

  const apply = (event, data) => {
    if (event === "order.created") showOrder(data);
    if (event === "payment.captured") showPayment(data);
  };

  // Subscribe, load, apply what came meanwhile; and again after each loss.
  const follow = () => {
    const branch = Number(branchOf());
    const known = () => new Set(tickets.keys());
    following = client.follow(roomOf(branch), {
      spreadMs: 0,
      load: ({ signal }) => client.request("orders.list", { branch }, { signal }),
      reset: ({ orders }) => {
        const before = known();
        clear();
        for (const order of orders) {
          showOrder(order, false);
          if (order.payment) showPayment(order.payment);
        }
        view.caughtUp([...known()].filter((id) => !before.has(id)).length);
      },
      apply,
    });
  };

  for (const input of document.querySelectorAll("input[name=branch]")) {
    input.addEventListener("change", () => {
      following.stop();
      client.leave(BRANCHES.map(roomOf));
      clear();
      follow();
    });
  }
  byId("place").addEventListener("click", () => {
    client
      .request("order.place", { branch: Number(branchOf()) })
      .catch(({ message }) => view.notice(`No order was placed: ${message}`));
  });
  follow();
}

// === Admin: all branches, and what is for the user admin ===

function startAdmin() {
  const view = new View("admin", { userId: "admin", protocol: "msgpack" });
  const { client } = view;
  const orders = new Map();
  let totals;

  const showTotals = () => {
    byId("count-orders").textContent = totals.orders;
    byId("count-payments").textContent = totals.payments;
    byId("count-flagged").textContent = totals.flagged;
    const amounts = BRANCHES.map((branch) => totals.captured.get(branch) ?? 0n);
    byId("captured").textContent = money(centsAsText(amounts.reduce((sum, amount) => sum + amount, 0n)));
    const most = amounts.reduce((one, other) => (one > other ? one : other), 1n);
    amounts.forEach((amount, index) => {
      const row = byId("shares").children[index];
      row.querySelector("i").style.width = `${Number((amount * 100n) / most)}%`;
      row.lastElementChild.textContent = money(centsAsText(amount));
    });
  };

  const showOrder = (order, isNews = true) => {
    if (!isObject(order) || orders.has(order.id)) return;
    const payment = element("td", {}, chip("waiting", "to pay"));
    const items = itemsOf(order).map(({ quantity, name }) => `${quantity}× ${name}`);
    const row = element(
      "tr",
      { className: isNews ? "fresh" : "", dataset: { testid: "order", order: order.id, branch: order.branch, payment: "waiting" } },
      element("td", { className: "mono" }, String(order.id)),
      element("td", {}, String(order.branch)),
      element("td", { className: "wide soft" }, items.join(", ")),
      element("td", { className: "right" }, money(order.total, order.currency)),
      payment,
    );
    orders.set(order.id, { row, payment, isPaid: false, isFlagged: false });
    trim(orders, ORDERS_MAX);
    if (isNews) totals.orders += 1;
    byId("orders-empty").hidden = true;
    putFirst(byId("orders"), row, ORDERS_MAX);
  };

  const showPayment = (payment, isNews = true) => {
    const order = orders.get(payment?.order);
    if (!order || order.isPaid) return;
    order.isPaid = true;
    if (isNews) {
      totals.payments += 1;
      const before = totals.captured.get(payment.branch) ?? 0n;
      totals.captured.set(payment.branch, before + cents(String(payment.amount)));
    }
    if (order.isFlagged) return;
    order.row.dataset.payment = "paid";
    order.payment.replaceChildren(chip("paid", String(payment.method)));
  };

  // Comes on another channel than the payment, so it may be here first.
  const showFlag = (flag, isNews = true) => {
    const order = orders.get(flag?.order);
    if (!order || order.isFlagged) return;
    order.isFlagged = true;
    if (isNews) totals.flagged += 1;
    order.row.dataset.payment = "flagged";
    order.payment.replaceChildren(chip("flagged", "flagged"), element("small", {}, String(flag.reason)));
  };

  const apply = (event, data) => {
    if (event === "order.created") showOrder(data);
    if (event === "payment.captured") showPayment(data);
    if (event === "payment.flagged") showFlag(data);
    showTotals();
  };

  byId("shares").replaceChildren(
    ...BRANCHES.map((branch) =>
      element("li", {}, element("span", {}, `Branch ${branch}`), element("span", { className: "bar", ariaHidden: "true" }, element("i")), element("span")),
    ),
  );

  const reset = (snapshot) => {
    const before = new Set(orders.keys());
    orders.clear();
    byId("orders").replaceChildren();
    const captured = Object.entries(snapshot.totals.captured);
    totals = {
      ...snapshot.totals,
      captured: new Map(captured.map(([branch, amount]) => [Number(branch), cents(amount)])),
    };
    for (const order of snapshot.orders) {
      showOrder(order, false);
      if (order.payment) showPayment(order.payment, false);
      if (order.flag) showFlag(order.flag, false);
    }
    showTotals();
    view.caughtUp([...orders.keys()].filter((id) => !before.has(id)).length);
  };

  const load = ({ signal }) => client.request("orders.list", {}, { signal });
  const { ready } = client.follow(BRANCHES.map(roomOf), { spreadMs: 0, load, reset, apply });
  // What is for the user comes by no room.
  ready.then(() => client.on("payment.flagged", (data) => apply("payment.flagged", data)));
}

// === The page itself ===

const THEMES = ["auto", "light", "dark"];

function startTheme() {
  const button = byId("theme");
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  let theme = "auto";
  try {
    theme = localStorage.getItem("theme") ?? "auto";
  } catch {
    // A page without storage has the theme of the system.
  }
  show(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    show(theme);
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // As above.
    }
  });
}

// On a phone the cards are side by side: the links below say which one is seen.
function startTabs() {
  const links = [...document.querySelectorAll("nav a")];
  const main = byId("main");
  for (const link of links) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const card = document.querySelector(link.hash);
      card.scrollIntoView({ inline: "start", block: "nearest" });
      card.focus({ preventScroll: true });
    });
  }
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        for (const link of links) {
          if (link.hash === `#${target.id}`) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
      }
    },
    { root: main, threshold: 0.6 },
  );
  for (const link of links) observer.observe(document.querySelector(link.hash));
}

const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
byId("hint").textContent = `signal tail --url ${address} --user you --room ${roomOf(1)}`;
startTheme();
startTabs();
startPos();
startAdmin();
