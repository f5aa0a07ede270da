// Why something did not come about, and what a close code means for a client.

import { CLOSE_CODES } from "./close-codes.js";

// `code` is for programs, `message` for people.
export class SignalError extends Error {
  constructor(code, message = code, details) {
    super(message);
    this.name = "SignalError";
    this.code = code;
    Object.assign(this, details);
  }
}

// Whether a client comes back after a close with this code. Codes that are not Signal's are those of
// proxies and of lost connections.
export function mayReconnect(code) {
  return CLOSE_CODES[code]?.again ?? !(code >= 4500 && code < 4600);
}
