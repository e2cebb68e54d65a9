// A client and a server over a Level-IP stack, in Node.js: docs/rpc.md with zeromq and @msgpack/msgpack, nothing of ours.
//
//     npm install
//     node echo.mjs serve ENDPOINT PORT        echoes one connection until the peer has finished, then ends
//     node echo.mjs ask ENDPOINT ADDRESS PORT  sends standard input, finishes, prints what comes back
//
// ENDPOINT is ipc://RUN/NAME.door/gateway.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { decode, encode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

const SEND = 1, ACCEPTED = 2, DATA = 3, CONSUMED = 4, EOF = 5, RESET = 6;
const HELLO = 20, WELCOME = 21, REFUSED = 22, REQUEST = 23, REPLY = 24, PENDING = 25;
const CHUNK = 65536, EAGAIN = 11;
const options = { useBigInt64: true }; // socket ids and epochs have 63 bits: more than a number of JavaScript

class GatewayError extends Error {
  constructor(errno, text) {
    super(`${text} (errno ${errno})`);
    this.errno = errno;
  }
}

/** One connected socket. Offsets are BigInts, as they go to the wire. */
class Stream {
  sent = 0n;
  limit = 0n;
  received = 0n;
  chunks = [];
  ended = false;
  error = null;
}

/** A session with the gateway; any number of sockets. */
class Session {
  #dealer = new Dealer({ sendHighWaterMark: 0, receiveHighWaterMark: 0, linger: 1000 });
  #epoch = BigInt("0x" + randomBytes(7).toString("hex")) | 1n;
  #gateway = 0n;
  #number = 0;
  #calls = new Map(); // request -> {resolve, reject}
  #streams = new Map(); // sock -> Stream
  #waiting = new Map(); // listening sock -> connections to be accepted
  #changed = []; // who waits for anything to happen
  #sending = Promise.resolve();
  #failure = null;

  static async open(endpoint) {
    const session = new Session();
    session.#dealer.connect(endpoint);
    session.#hear();
    await session.#post([HELLO, 1, "example.mjs"]);
    await session.#until(() => session.#gateway !== 0n);
    return session;
  }

  close() {
    this.#failure = new Error("closed");
    this.#dealer.close();
  }

  /** A call of docs/rpc.md; the reply's data. */
  call(op, sock = 0n, args = {}) {
    const number = ++this.#number;
    const answer = new Promise((resolve, reject) => this.#calls.set(number, { resolve, reject, op }));
    this.#post([REQUEST, number, op, sock, args]);
    return answer;
  }

  async connect(sock, address, port) {
    this.#open(sock); // its first bytes may come with the answer
    const data = await this.call("connect", sock, { address, port });
    this.#open(sock).limit = maximum(this.#open(sock).limit, BigInt(data.limit));
  }

  async accept(listener) {
    for (;;) {
      try {
        const data = await this.call("accept", listener);
        const sock = BigInt(data.sock);
        this.#open(sock).limit = maximum(this.#open(sock).limit, BigInt(data.limit));
        return sock;
      } catch (error) {
        if (error.errno !== EAGAIN) throw error;
        this.#waiting.set(listener, 0);
        await this.#until(() => this.#waiting.get(listener) > 0);
      }
    }
  }

  /** Send all, as the grants allow. */
  async send(sock, bytes) {
    const stream = this.#open(sock);
    for (let rest = bytes; rest.length; ) {
      await this.#until(() => stream.limit > stream.sent || stream.error);
      if (stream.error) throw stream.error;
      const length = Math.min(rest.length, CHUNK, Number(stream.limit - stream.sent));
      const part = rest.subarray(0, length);
      const offset = stream.sent;
      stream.sent += BigInt(length);
      rest = rest.subarray(length);
      const apart = length > 2048; // a part of its own
      await this.#post([SEND, sock, offset, length, apart ? ["", 1, length, 0, length, 0] : part], apart ? [part] : []);
    }
  }

  /** The next bytes; null at the peer's FIN. */
  async read(sock) {
    const stream = this.#open(sock);
    await this.#until(() => stream.chunks.length || stream.ended || stream.error);
    if (!stream.chunks.length) {
      if (stream.error) throw stream.error;
      return null;
    }
    const bytes = Buffer.concat(stream.chunks.splice(0));
    this.#post([CONSUMED, sock, stream.received]);
    return bytes;
  }

  /** The FIN. */
  finish(sock) {
    return this.#post([EOF, sock, this.#open(sock).sent]);
  }

  #open(sock) {
    if (!this.#streams.has(sock)) this.#streams.set(sock, new Stream());
    return this.#streams.get(sock);
  }

  #post(message, parts = []) {
    const envelope = encode([1, this.#epoch, this.#gateway, [message]], options);
    this.#sending = this.#sending.then(() => this.#dealer.send([envelope, ...parts])); // one at a time, in order
    return this.#sending;
  }

  async #until(ready) {
    while (!ready()) {
      if (this.#failure) throw this.#failure;
      await new Promise((resolve) => this.#changed.push(resolve));
    }
  }

  async #hear() {
    try {
      for await (const parts of this.#dealer) {
        for (const message of decode(parts[0], options)[3]) this.#take(message, parts);
        for (const resolve of this.#changed.splice(0)) resolve();
      }
    } catch (error) {
      this.#failure = error;
      for (const { reject } of this.#calls.values()) reject(error);
      for (const resolve of this.#changed.splice(0)) resolve();
    }
  }

  #take(message, parts) {
    const [kind, first, second, third] = message;
    if (kind === WELCOME) {
      this.#gateway = BigInt(second);
    } else if (kind === REFUSED) {
      throw new GatewayError(first, second);
    } else if (kind === PENDING) {
      this.#waiting.set(BigInt(first), second);
    } else if (kind === REPLY) {
      const call = this.#calls.get(Number(first));
      if (!call) return;
      this.#calls.delete(Number(first));
      if (second) call.reject(new GatewayError(second, message[4] || call.op));
      else call.resolve(third);
    } else {
      const stream = this.#open(BigInt(first));
      if (kind === ACCEPTED) {
        stream.limit = maximum(stream.limit, BigInt(third));
      } else if (kind === DATA) {
        const payload = Array.isArray(third) ? parts[Number(third[1])] : third;
        stream.chunks.push(payload);
        stream.received += BigInt(payload.length);
      } else if (kind === EOF) {
        stream.ended = true;
      } else if (kind === RESET) {
        stream.error = new GatewayError(second, "the connection is gone");
      }
    }
  }
}

function maximum(one, other) {
  return one > other ? one : other;
}

async function serve(endpoint, port) {
  const session = await Session.open(endpoint);
  const listener = BigInt((await session.call("socket")).sock);
  await session.call("bind", listener, { address: new Uint8Array(0), port });
  await session.call("listen", listener);
  console.error("listening");
  const sock = await session.accept(listener);
  for (let bytes; (bytes = await session.read(sock)); ) await session.send(sock, bytes);
  await session.finish(sock);
  await session.call("close", sock);
  await session.call("close", listener);
  session.close();
}

async function ask(endpoint, address, port) {
  const session = await Session.open(endpoint);
  const sock = BigInt((await session.call("socket")).sock);
  await session.connect(sock, Uint8Array.from(address.split("."), Number), port);
  const sending = (async () => {
    for await (const bytes of process.stdin) await session.send(sock, bytes);
    await session.finish(sock);
  })();
  for (let bytes; (bytes = await session.read(sock)); ) {
    if (!process.stdout.write(bytes)) await once(process.stdout, "drain");
  }
  await sending;
  await session.call("close", sock);
  session.close();
}

const [what, endpoint, ...rest] = process.argv.slice(2);
try {
  if (what === "serve" && rest.length === 1) await serve(endpoint, Number(rest[0]));
  else if (what === "ask" && rest.length === 2) await ask(endpoint, rest[0], Number(rest[1]));
  else {
    console.error("echo.mjs serve ENDPOINT PORT | echo.mjs ask ENDPOINT ADDRESS PORT");
    process.exitCode = 2;
  }
} catch (error) {
  console.error(`echo.mjs: ${error.message}`);
  process.exit(1); // the session ends with the process
}
