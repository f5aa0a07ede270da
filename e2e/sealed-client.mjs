// A client that encrypts, with nothing but what a browser has: the same text runs in Node and in
// Chromium, where it is loaded as a script. Written from docs/protocol.md, not from the server.

export class SealedClient {
  // `agreement` makes the client's half of the session key: see `webCrypto` below.
  static async connect(url, { WebSocket = globalThis.WebSocket, protocol, userId, agreement }) {
    const client = new SealedClient(new WebSocket(url, protocol ? [protocol] : []));
    await client.opened;
    const half = await (agreement ?? SealedClient.webCrypto)();
    client.socket.send(
      JSON.stringify({ event: "authenticate", data: { userId, publicKey: half.publicKey } }),
    );
    const connected = await client.when(() =>
      client.clear.find(({ event }) => event === "connected"),
    );
    client.id = connected.data.id;
    client.session = await half.derive(connected.data.serverPublicKey, connected.data.salt);
    client.isReady();
    return client;
  }

  // A session key by WebCrypto.
  static async webCrypto() {
    const { subtle } = crypto;
    const pair = await subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, false, [
      "deriveBits",
    ]);
    const raw = new Uint8Array(await subtle.exportKey("raw", pair.publicKey));
    return {
      publicKey: SealedClient.base64(raw),
      async derive(serverPublicKey, salt) {
        const curve = { name: "ECDH", namedCurve: "P-256" };
        const bytes = SealedClient.bytes(serverPublicKey);
        const peer = await subtle.importKey("raw", bytes, curve, false, []);
        const shared = await subtle.deriveBits(
          { name: "ECDH", public: peer },
          pair.privateKey,
          256,
        );
        const secret = await subtle.importKey("raw", shared, "HKDF", false, ["deriveKey"]);
        const info = new TextEncoder().encode("ignis-ecdh-p256-aes-256-gcm-v1");
        const hkdf = { name: "HKDF", hash: "SHA-256", salt: SealedClient.bytes(salt), info };
        const cipher = { name: "AES-GCM", length: 256 };
        const uses = ["encrypt", "decrypt"];
        return SealedClient.cipher(await subtle.deriveKey(hkdf, secret, cipher, false, uses));
      },
    };
  }

  static cipher(key) {
    const { subtle } = crypto;
    return {
      async encrypt(text) {
        const iv = crypto.getRandomValues(new Uint8Array(12));
        const plain = new TextEncoder().encode(text);
        const sealed = await subtle.encrypt({ name: "AES-GCM", iv }, key, plain);
        return { iv: SealedClient.base64(iv), ct: SealedClient.base64(new Uint8Array(sealed)) };
      },
      async decrypt({ iv, ct }) {
        const parameters = { name: "AES-GCM", iv: SealedClient.bytes(iv) };
        const plain = await subtle.decrypt(parameters, key, SealedClient.bytes(ct));
        return new TextDecoder("utf-8", { fatal: true }).decode(plain);
      },
    };
  }

  static base64(bytes) {
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  }

  static bytes(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  }

  constructor(socket) {
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    this.clear = []; // Messages that came as they are.
    this.sealed = []; // `data` of those that came sealed, in order.
    this.texts = []; // What was in them, room keys left out.
    this.roomKeys = new Map(); // By number.
    this.problems = [];
    this.watchers = new Set();
    const ready = new Promise((resolve) => (this.isReady = resolve));
    this.opened = new Promise((resolve) => (socket.onopen = resolve));
    let turn = ready;
    this.closed = new Promise((resolve) => {
      // What came before the end is opened first, if there is anything to open it with.
      socket.onclose = ({ code, reason }) =>
        (this.session ? turn : Promise.resolve()).then(() => resolve({ code, reason }));
    });
    socket.onmessage = ({ data }) => {
      const message = SealedClient.message(data);
      if (message.event !== "encrypted") {
        this.clear.push(message);
        this.#look();
        return;
      }
      // Opened one after another, so that order holds although WebCrypto does not wait.
      turn = turn
        .then(() => this.#open(message.data))
        .catch((error) => this.problems.push(`${error}`));
      turn.then(() => this.#look());
    };
  }

  // A frame's message. Of MessagePack only what an edge sends is understood: the map of an event
  // and of data, whose JSON text is all that follows its length.
  static message(data) {
    if (typeof data === "string") return JSON.parse(data);
    const bytes = new Uint8Array(data);
    const text = new TextDecoder("latin1").decode(bytes);
    const [, event] = /^.\xa5event.([a-z]+)\xa4data/s.exec(text);
    const start = text.indexOf("\xa4data") + 5;
    const lengthBytes = { 0xc4: 1, 0xc5: 2, 0xc6: 4 }[bytes[start]];
    const json = new TextDecoder().decode(bytes.subarray(start + 1 + lengthBytes));
    return { event, data: JSON.parse(json) };
  }

  async #open(sealed) {
    this.sealed.push(sealed);
    const key = sealed.kid === undefined ? this.session : this.roomKeys.get(sealed.kid);
    if (!key) throw new Error(`no key ${sealed.kid}`);
    const text = await key.decrypt(sealed);
    const { event, data } = JSON.parse(text);
    if (event !== "roomkey") {
      this.texts.push(text);
      return;
    }
    const uses = ["encrypt", "decrypt"];
    const bytes = SealedClient.bytes(data.key);
    const imported = await crypto.subtle.importKey("raw", bytes, "AES-GCM", false, uses);
    this.roomKeys.set(data.kid, SealedClient.cipher(imported));
  }

  #look() {
    for (const watcher of this.watchers) watcher();
  }

  get messages() {
    return this.texts.map((text) => JSON.parse(text));
  }

  // Waits until `test` is truthy, and returns its result.
  when(test) {
    return new Promise((resolve, reject) => {
      const watcher = () => {
        if (this.problems.length > 0) reject(new Error(this.problems.join(", ")));
        const result = test();
        if (!result) return;
        this.watchers.delete(watcher);
        resolve(result);
      };
      this.watchers.add(watcher);
      this.closed.then(({ code }) => {
        watcher();
        reject(new Error(`closed with ${code}`));
      });
      watcher();
    });
  }

  message(event) {
    return this.when(() => this.messages.find((message) => message.event === event));
  }

  // Sends a message sealed.
  async send(message) {
    const data = await this.session.encrypt(JSON.stringify(message));
    this.socket.send(JSON.stringify({ event: "encrypted", data }));
  }

  // Joins rooms, and waits until it is done: the plain protocol answers no join, but what comes
  // behind it and is no message.
  async join(rooms) {
    const before = this.texts.length;
    await this.send({ event: "join", data: { rooms }, id: "join" });
    await this.send("no message");
    await this.when(() => this.messages.slice(before).some(({ event }) => event === "error"));
  }

  close() {
    this.socket.close();
    return this.closed;
  }
}
