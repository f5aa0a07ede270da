// The demo page: two clients of Signal's plain protocol side by side, and who got what.
//
// It owns two connections and what the page shows of them. It never turns what arrives into markup
// (text goes in as text), and every list forgets its oldest entries.

const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 5000;

const TICKETS_MAX = 30;
const ORDERS_MAX = 100;
const DELIVERIES_MAX = 100;
const FRAMES_MAX = 30;
const FRAME_CHARACTERS_MAX = 400;
const NOTICE_MS = 15_000;

// How long the second view may take to get what the first one got, to count as the same event.
const SAME_EVENT_MS = 3000;

const BRANCHES = [1, 2, 3];
const roomOf = (branch) => `branch:${branch}`;

// === Client ===

// One connection that logs in, remembers its rooms, and comes back when it is lost.
class Client {
  #url;
  #credentials;
  #rooms = new Set();
  #listeners = new Map();
  #socket = null;
  #state = "connecting";

  constructor({ url, credentials, rooms }) {
    this.#url = url;
    this.#credentials = credentials;
    this.#rooms = new Set(rooms);
  }

  // Listens to an event of the server, or to "state", "frame" or "message" of this client.
  on(event, listener) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
    return this;
  }

  open() {
    this.#enter("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#send("authenticate", this.#credentials);
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code }) => this.#lose(code);
    return this;
  }

  join(room) {
    this.#rooms.add(room);
    this.#request("join", { rooms: [room] });
  }

  leave(room) {
    this.#rooms.delete(room);
    this.#request("leave", { rooms: [room] });
  }

  #receive(text) {
    this.#emit("frame", "received", text);
    const message = JSON.parse(text);
    if (message.event === "connected") {
      this.#enter("connected", message.data);
      if (this.#rooms.size > 0) this.#send("join", { rooms: [...this.#rooms] });
    } else if (message.event !== "error") {
      this.#emit("message", message, text);
      this.#emit(`event:${message.event}`, message.data);
    }
  }

  // Full jitter: after a restart not everyone comes back in the same instant.
  #lose(code) {
    this.#socket = null;
    const delay = RETRY_MS_MIN + Math.random() * (RETRY_MS_MAX - RETRY_MS_MIN);
    this.#enter("waiting", { code, delay });
    setTimeout(() => this.open(), delay);
  }

  #request(event, data) {
    if (this.#state === "connected") this.#send(event, data);
  }

  #send(event, data) {
    const text = JSON.stringify({ event, data });
    this.#socket.send(text);
    this.#emit("frame", "sent", text);
  }

  #enter(state, detail = {}) {
    this.#state = state;
    this.#emit("state", state, detail);
  }

  #emit(event, ...details) {
    for (const listener of this.#listeners.get(event) ?? []) listener(...details);
  }
}

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

function chip(kind, text) {
  return element("span", { className: "chip", dataset: { kind } }, text);
}

// An amount is a decimal text and stays one: no sum of money passes through a binary fraction.
function money(amount, currency) {
  try {
    return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(amount);
  } catch {
    return `${amount} ${currency ?? ""}`.trim();
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

// A mark, and in words for those who do not see it.
function gotCell(className, words) {
  const mark = element("span", { className });
  return element("td", { className: "middle" }, mark, element("span", { className: "sr" }, words));
}

const facts = ({ id, branch }) => ({ order: id, branch, payment: "waiting" });
const itemsOf = (order) => (Array.isArray(order.lines) ? order.lines : []);
const isObject = (data) => typeof data === "object" && data !== null;

// === What both views have ===

function showState(name, state, { id, userId, code, delay } = {}) {
  const texts = {
    connecting: () => "connecting",
    connected: () => "connected",
    waiting: () => `closed (${code}), again in ${(delay / 1000).toFixed(1)} s`,
  };
  const node = byId(`${name}-state`);
  node.dataset.state = state;
  node.textContent = texts[state]();
  if (state !== "connected") return;
  byId(`${name}-identity`).replaceChildren(
    element("span", { className: "sr" }, "user "),
    `${userId} · `,
    element("code", { title: "client id" }, id),
  );
}

function showFrame(name, way, text) {
  const start = text.slice(0, FRAME_CHARACTERS_MAX);
  const shown = `${way === "sent" ? "→" : "←"} ${start}${start === text ? "" : "…"}`;
  putFirst(byId(`${name}-frames`), element("li", { dataset: { way } }, shown), FRAMES_MAX);
}

const noticeTimers = {};

function showNotice(name, data) {
  if (!isObject(data)) return;
  const node = byId(`${name}-notice`);
  node.textContent = String(data.text);
  node.hidden = false;
  clearTimeout(noticeTimers[name]);
  noticeTimers[name] = setTimeout(() => (node.hidden = true), NOTICE_MS);
}

function watch(name, client) {
  client
    .on("state", (state, detail) => showState(name, state, detail))
    .on("frame", (way, text) => showFrame(name, way, text))
    .on("message", (message, text) => trace.add(name, message, text))
    .on("event:notice", (data) => showNotice(name, data));
}

// === Who got what ===

const trace = {
  rows: [],
  got: { pos: 0, admin: 0 },

  // An event that both views get comes as two frames of the same text.
  add(name, message, text) {
    const now = performance.now();
    this.got[name] += 1;
    byId(`got-${name}`).textContent = this.got[name];
    let row = this.rows.find(
      (row) => row.text === text && !row.names.has(name) && now - row.at < SAME_EVENT_MS,
    );
    if (!row) {
      row = { text, at: now, names: new Set(), cells: {} };
      this.rows.unshift(row);
      this.rows.length = Math.min(this.rows.length, DELIVERIES_MAX);
      this.show(row, message);
    }
    row.names.add(name);
    const cell = gotCell("got", "got it");
    row.cells[name].replaceWith(cell);
    row.cells[name] = cell;
    row.node.dataset.got = [...row.names].sort().join(" ");
  },

  show(row, { event, data }) {
    row.cells = { pos: gotCell("not", "did not get it"), admin: gotCell("not", "did not get it") };
    const subject = isObject(data) ? String(data.id ?? data.payment ?? data.text ?? "") : "";
    row.node = element(
      "tr",
      { className: "fresh", dataset: { testid: "delivery", event, subject } },
      element("td", {}, event, element("small", {}, subject)),
      element("td", {}, chip("target", whomFor(event, data))),
      row.cells.pos,
      row.cells.admin,
    );
    byId("deliveries-empty").hidden = true;
    putFirst(byId("deliveries"), row.node, DELIVERIES_MAX);
  },
};

// The plain protocol does not say by which way a message came; what the services publish does.
function whomFor(event, data) {
  if (event === "payment.flagged") return "user admin";
  if (event === "notice") return "everyone";
  return isObject(data) && data.branch !== undefined ? roomOf(data.branch) : "not said";
}

// === Point of sale: one branch ===

function startPos(url) {
  const tickets = new Map();
  let branch = document.querySelector("input[name=branch]:checked").value;
  const client = new Client({ url, credentials: { userId: "pos-1" }, rooms: [roomOf(branch)] });

  const clear = () => {
    tickets.clear();
    byId("tickets").replaceChildren();
    byId("tickets-empty").hidden = false;
  };

  // All that arrives is shown, whatever its branch: the server decides who gets what, not the page.
  const showOrder = (order) => {
    if (!isObject(order)) return;
    const payment = chip("waiting", "to pay");
    const lines = itemsOf(order).map(({ quantity, name }) =>
      element("li", {}, element("b", {}, `${quantity}×`), String(name)),
    );
    const ticket = element(
      "li",
      { className: "fresh", dataset: { testid: "ticket", ...facts(order) } },
      element("h3", {}, String(order.id)),
      payment,
      element("ul", {}, ...lines),
      element("span", { className: "where" }, `Branch ${order.branch}`),
      element("span", { className: "total" }, money(order.total, order.currency)),
    );
    tickets.set(order.id, { ticket, payment });
    trim(tickets, TICKETS_MAX);
    byId("tickets-empty").hidden = true;
    putFirst(byId("tickets"), ticket, TICKETS_MAX);
    byId("pos-announcer").textContent = `Order ${order.id}, ${money(order.total, order.currency)}`;
  };

  const showPayment = (payment) => {
    const shown = tickets.get(payment?.order);
    if (!shown) return;
    shown.ticket.dataset.payment = "paid";
    shown.payment.dataset.kind = "paid";
    shown.payment.textContent = `paid by ${payment.method}`;
  };

  watch("pos", client);
  client.on("event:order.created", showOrder).on("event:payment.captured", showPayment);
  for (const input of document.querySelectorAll("input[name=branch]")) {
    input.addEventListener("change", () => {
      client.leave(roomOf(branch));
      branch = input.value;
      clear();
      client.join(roomOf(branch));
    });
  }
  client.open();
}

// === Admin: all branches, and what is for the user admin ===

function startAdmin(url) {
  const orders = new Map();
  const orderOfPayment = new Map();
  const flags = new Map();
  const total = { orders: 0, payments: 0, flagged: 0, cents: 0n };
  const client = new Client({ url, credentials: { userId: "admin" }, rooms: BRANCHES.map(roomOf) });

  const showTotals = (currency = "EUR") => {
    byId("count-orders").textContent = total.orders;
    byId("count-payments").textContent = total.payments;
    byId("count-flagged").textContent = total.flagged;
    byId("captured").textContent = money(centsAsText(total.cents), currency);
  };

  const showOrder = (order) => {
    if (!isObject(order)) return;
    const payment = element("td", {}, chip("waiting", "to pay"));
    const items = itemsOf(order).map(({ quantity, name }) => `${quantity}× ${name}`);
    const row = element(
      "tr",
      { className: "fresh", dataset: { testid: "order", ...facts(order) } },
      element("td", { className: "mono" }, String(order.id)),
      element("td", {}, String(order.branch)),
      element("td", { className: "wide soft" }, items.join(", ")),
      element("td", { className: "right" }, money(order.total, order.currency)),
      payment,
    );
    orders.set(order.id, { row, payment, currency: order.currency });
    trim(orders, ORDERS_MAX);
    total.orders += 1;
    byId("orders-empty").hidden = true;
    putFirst(byId("orders"), row, ORDERS_MAX);
    showTotals(order.currency);
  };

  const showPayment = (payment) => {
    if (!isObject(payment)) return;
    total.payments += 1;
    total.cents += cents(String(payment.amount));
    orderOfPayment.set(payment.id, payment.order);
    trim(orderOfPayment, ORDERS_MAX);
    const order = orders.get(payment.order);
    if (order) {
      order.row.dataset.payment = "paid";
      order.payment.replaceChildren(chip("paid", String(payment.method)));
    }
    if (flags.has(payment.id)) mark(payment.id);
    showTotals(order?.currency);
  };

  const mark = (payment) => {
    const order = orders.get(orderOfPayment.get(payment));
    if (!order) return;
    order.row.dataset.payment = "flagged";
    const reason = element("small", {}, flags.get(payment));
    order.payment.replaceChildren(chip("flagged", "flagged"), reason);
  };

  // Comes on another channel than the payment, so it may be here first.
  const showFlag = (flag) => {
    if (!isObject(flag)) return;
    total.flagged += 1;
    flags.set(flag.payment, String(flag.reason));
    trim(flags, ORDERS_MAX);
    mark(flag.payment);
    showTotals();
  };

  watch("admin", client);
  client
    .on("event:order.created", showOrder)
    .on("event:payment.captured", showPayment)
    .on("event:payment.flagged", showFlag);
  showTotals();
  client.open();
}

const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
byId("hint").textContent = `signal tail --url ${url} --user you --room ${roomOf(1)}`;
startPos(url);
startAdmin(url);
