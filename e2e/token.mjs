// Tokens as a login service mints them.

import { createHmac } from "node:crypto";

export const JWT_SECRET = "secret-of-the-e2e-suite-32-bytes-long";

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

// A token of a user; `seconds` until it ends.
export function mint(user, { seconds = 3600, rooms = ["*"] } = {}) {
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, exp, rooms })}`;
  return `${text}.${createHmac("sha256", JWT_SECRET).update(text).digest("base64url")}`;
}
