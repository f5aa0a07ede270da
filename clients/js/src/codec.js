// Messages as frames. Of MessagePack only what `signal.v1.msgpack` uses, see docs/protocol.md: `data`
// is JSON text in a `bin`, and what is no such frame is an error.

export const encoder = new TextEncoder();
export const decoder = new TextDecoder("utf-8", { fatal: true });

// A map of strings; `data` goes as JSON text.
export function encodeMessagePack({ event, data, id }) {
  const bytes = [];
  const text = (string) => {
    const utf8 = encoder.encode(string);
    const { length } = utf8;
    if (length < 32) bytes.push(0xa0 | length);
    else bytes.push(0xdb, length >>> 24, (length >> 16) & 255, (length >> 8) & 255, length & 255);
    for (const byte of utf8) bytes.push(byte);
  };
  const members = Object.entries({ event, data: JSON.stringify(data), id });
  const present = members.filter(([, value]) => value !== undefined);
  bytes.push(0x80 | present.length);
  for (const member of present) member.forEach(text);
  return Uint8Array.from(bytes);
}

export function decodeMessagePack(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const check = (isRight) => {
    if (!isRight) throw new RangeError(`no frame of signal.v1.msgpack, at byte ${at}`);
  };
  const take = (length) => {
    check(at + length <= bytes.length);
    at += length;
    return at - length;
  };
  const number = (size) => {
    const from = take(size);
    if (size === 8) return Number(view.getBigUint64(from));
    return size === 1 ? bytes[from] : size === 2 ? view.getUint16(from) : view.getUint32(from);
  };
  const text = (length) => decoder.decode(bytes.subarray(take(length), at));
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [value(), value()]));
  const value = () => {
    const head = number(1);
    if (head < 0x80) return head;
    if (head < 0x90) return map(head & 15);
    if (head >= 0xa0 && head < 0xc0) return text(head & 31);
    if (head === 0xc0) return null;
    if (head === 0xc2 || head === 0xc3) return head === 0xc3;
    if (head >= 0xc4 && head <= 0xc6) return JSON.parse(text(number(1 << (head - 0xc4))));
    if (head >= 0xcc && head <= 0xcf) return number(1 << (head - 0xcc));
    if (head >= 0xd9 && head <= 0xdb) return text(number(1 << (head - 0xd9)));
    check(head === 0xde);
    return map(number(2));
  };
  const message = value();
  check(at === bytes.length);
  return message;
}

const json = { encode: (message) => JSON.stringify(message), decode: (text) => JSON.parse(text) };

// How each protocol is asked for, and how its frames are written.
export const PROTOCOLS = {
  json: { ...json, names: ["signal.v1.json"] },
  msgpack: { encode: encodeMessagePack, decode: decodeMessagePack, names: ["signal.v1.msgpack"] },
  plain: { ...json, names: [] },
};
