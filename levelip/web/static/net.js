// The WebSocket: requests with answers, ticks with what is new; comes back by itself.

const RETRY_MS = 1000;

export class Net extends EventTarget {
  constructor() {
    super();
    this.open = false;
    this.waiting = new Map();
    this.number = 0;
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}/ws`);
    this.socket.onopen = () => { this.open = true; this.dispatchEvent(new Event("open")); };
    this.socket.onmessage = (message) => this.take(JSON.parse(message.data));
    this.socket.onclose = () => {
      const was = this.open;
      this.open = false;
      for (const { reject } of this.waiting.values()) reject(new Error("the connection to lvlip web is lost"));
      this.waiting.clear();
      if (was) this.dispatchEvent(new Event("close"));
      setTimeout(() => this.connect(), RETRY_MS);
    };
  }

  take(data) {
    if (data.push) {
      this.dispatchEvent(new CustomEvent(data.push, { detail: data }));
      return;
    }
    const asked = this.waiting.get(data.id);
    if (!asked) return;
    this.waiting.delete(data.id);
    if ("ok" in data) asked.resolve(data.ok);
    else asked.reject(Object.assign(new Error(data.error), { where: data.where }));
  }

  // Ask; a promise of the answer. It is rejected with the server's words.
  ask(name, args = {}) {
    if (!this.open) return Promise.reject(new Error("not connected to lvlip web"));
    const id = ++this.number;
    this.socket.send(JSON.stringify({ id, do: name, ...args }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
}
