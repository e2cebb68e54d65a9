// The WebSocket: requests with answers, ticks with what is new; comes back by itself. Events: "open", "tick", and "close"
// whenever there is none, with what is known of why: "lost", "gone" (nobody answers) or "token" (a server that was
// started anew, whose token is another).

const RETRY_MS = 1000;
const PRESS_MS = 30_000; // what lasts longer is no click, or its end was not told, as where a menu took it
const PRESSED = "button, a, label, tr, summary, .list-row, .field";

export class Net extends EventTarget {
  constructor() {
    super();
    this.open = false;
    this.waiting = new Map();
    this.number = 0;
    this.later = null; // what comes while something is pressed
    this.stand();
    this.connect();
  }

  // Nothing is drawn anew between press and release: a click on what is gone is none.
  stand() {
    let pressed = false, limit = 0;
    const go = () => {
      const { later } = this;
      if (pressed || !later) return;
      this.later = null;
      for (const data of later) this.take(data);
    };
    const release = () => {
      pressed = false;
      clearTimeout(limit);
      setTimeout(go); // behind the click
    };
    document.addEventListener("pointerdown", (event) => {
      if (event.button || !event.target.closest?.(PRESSED)) return;
      pressed = true;
      this.later ??= [];
      clearTimeout(limit);
      limit = setTimeout(release, PRESS_MS);
    }, true);
    document.addEventListener("pointermove", (event) => { if (pressed && !event.buttons) release(); }, true);
    for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, release, true);
    window.addEventListener("blur", release);
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}/ws`);
    this.socket.onopen = () => { this.open = true; this.dispatchEvent(new Event("open")); };
    this.socket.onmessage = (message) => this.take(JSON.parse(message.data));
    this.socket.onclose = async () => {
      const was = this.open;
      this.open = false;
      for (const { reject } of this.waiting.values()) reject(new Error("the connection to lvlip web is lost"));
      this.waiting.clear();
      this.dispatchEvent(new CustomEvent("close", { detail: was ? "lost" : await refusal() }));
      setTimeout(() => this.connect(), RETRY_MS);
    };
  }

  take(data) {
    if (this.later) {
      this.later.push(data);
      return;
    }
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

// A file, sent to the server; what came of it. An Error in its words.
export async function post(url, body) {
  let answer;
  try {
    answer = await fetch(url, { method: "POST", body });
  } catch { throw new Error("not sent: lvlip web does not answer, or the file cannot be read"); }
  if (!answer.headers.get("content-type")?.startsWith("application/json")) throw new Error(await answer.text());
  const data = await answer.json();
  if (data.error) throw new Error(data.error);
  return data;
}

// Why there is no WebSocket, which a browser does not tell: a request beside it does.
async function refusal() {
  try {
    return (await fetch("/", { method: "HEAD" })).status === 401 ? "token" : "lost";
  } catch { return "gone"; }
}
