// The orders of a branch, kept current: load, apply what comes, load again after a loss.

import { connect } from "http://127.0.0.1:3000/signal.js";

const signal = connect({ url: "ws://127.0.0.1:3000/ws", credentials: { userId: "office" } });
const banner = document.getElementById("banner");
const list = document.getElementById("orders");
const rows = new Map();

// A loss that is over in two seconds is not worth a word.
let timer;
signal.on("state", ({ state }) => {
  clearTimeout(timer);
  if (state === "online") banner.hidden = true;
  else timer = setTimeout(() => (banner.hidden = false), 2000);
});

function show({ id, total, currency, payment }) {
  const row = rows.get(id) ?? document.createElement("li");
  row.textContent = `${id}: ${total} ${currency}`;
  row.dataset.paid = String(Boolean(payment));
  if (!rows.has(id)) list.prepend(row);
  rows.set(id, row);
}

signal.follow("branch:1", {
  load: ({ signal: aborted }) => signal.request("orders.list", { branch: 1 }, { signal: aborted }),
  reset: ({ orders }) => {
    rows.clear();
    list.replaceChildren();
    orders.forEach(show);
  },
  apply: (event, data) => {
    if (event === "order.created" && !rows.has(data.id)) show(data);
    if (event === "payment.captured" && rows.has(data.order)) rows.get(data.order).dataset.paid = "true";
  },
});
