// A board with the orders of a branch.

import { connect } from "@signal/client";
import { useState } from "react";
import { useConnection, useEvent, useRoom } from "./useSignal.js";

const signal = connect({ url: "ws://127.0.0.1:3000/ws", credentials: { userId: "board" } });

const load = async (room, context) => {
  const branch = Number(room.split(":")[1]);
  const { orders } = await signal.request("orders.list", { branch }, context);
  return Object.fromEntries(orders.map((order) => [order.id, order]));
};

// By id, so that what comes twice counts once.
const reduce = (orders, event, data) => {
  if (event === "order.created") return { ...orders, [data.id]: { payment: null, ...orders[data.id], ...data } };
  const order = orders[data.order];
  if (event === "payment.captured" && order) return { ...orders, [order.id]: { ...order, payment: data } };
  return orders;
};

export function OrderBoard({ branch }) {
  const state = useConnection(signal);
  const orders = useRoom(signal, `branch:${branch}`, { initial: {}, load, reduce });
  const [notice, setNotice] = useState("");
  useEvent(signal, "notice", ({ text }) => setNotice(text));
  return (
    <section aria-busy={state !== "online"}>
      <h1>Branch {branch}</h1>
      <p role="status">{state === "online" ? notice : "No connection: what you see may be old."}</p>
      <ul>
        {Object.values(orders).map(({ id, total, currency, payment }) => (
          <li key={id}>
            {id}: {total} {currency}, {payment ? `paid by ${payment.method}` : "to pay"}
          </li>
        ))}
      </ul>
    </section>
  );
}
