// The state machine of a connection, drawn as RFC 9293 figure 5, with the way that it took.

import { el, say, svg } from "./dom.js";

const W = 118, H = 34;
const STATES = { CLOSED: [330, 20], LISTEN: [330, 105], SYN_RECEIVED: [110, 195], SYN_SENT: [550, 195], ESTABLISHED: [330, 265],
  FIN_WAIT_1: [110, 345], CLOSE_WAIT: [550, 345], FIN_WAIT_2: [110, 435], CLOSING: [330, 435], LAST_ACK: [550, 435],
  TIME_WAIT: [330, 520], CLOSED_END: [550, 520] };
// from, to, what the figure writes on it, and where: an offset from the middle of the line
const EDGES = [
  ["CLOSED", "LISTEN", "passive OPEN", [-44, 0]], ["LISTEN", "CLOSED", "CLOSE", [22, 14]],
  ["LISTEN", "SYN_RECEIVED", "rcv SYN", [-18, -12]], ["LISTEN", "SYN_SENT", "SEND", [-22, 14]],
  ["CLOSED", "SYN_SENT", "active OPEN", [46, -14]], ["SYN_SENT", "CLOSED", "CLOSE, RST, timeout", [78, 14]],
  ["SYN_SENT", "SYN_RECEIVED", "rcv SYN", [0, -8]], ["SYN_RECEIVED", "LISTEN", "rcv RST", [-40, 4]],
  ["SYN_RECEIVED", "ESTABLISHED", "rcv ACK of SYN", [22, -10]], ["SYN_SENT", "ESTABLISHED", "rcv SYN, ACK", [-20, -10]],
  ["SYN_RECEIVED", "FIN_WAIT_1", "CLOSE", [-24, 0]], ["ESTABLISHED", "FIN_WAIT_1", "CLOSE", [-20, -10]],
  ["ESTABLISHED", "CLOSE_WAIT", "rcv FIN", [22, -10]], ["FIN_WAIT_1", "FIN_WAIT_2", "rcv ACK of FIN", [-44, 0]],
  ["FIN_WAIT_1", "CLOSING", "rcv FIN", [14, -10]], ["FIN_WAIT_1", "TIME_WAIT", "rcv FIN, ACK", [34, 36]],
  ["CLOSE_WAIT", "LAST_ACK", "CLOSE", [26, 0]], ["FIN_WAIT_2", "TIME_WAIT", "rcv FIN", [-34, 16]],
  ["CLOSING", "TIME_WAIT", "rcv ACK of FIN", [46, 0]], ["LAST_ACK", "CLOSED_END", "rcv ACK of FIN", [46, 0]],
  ["TIME_WAIT", "CLOSED_END", "2 MSL", [0, -8]],
];

export class States {
  constructor(app, main, conn) {
    this.app = app;
    this.conn = conn;
    this.boxes = new Map();
    this.lines = new Map();
    const arrow = (id) => svg("marker", { id, viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, svg("path", { d: "M0 0L10 5L0 10z" }));
    const drawing = svg("svg", { viewBox: "0 0 680 570", class: "machine", role: "img", "aria-label": "TCP state machine" }, svg("defs", {}, arrow("arrow"), arrow("arrow-taken")));
    const texts = svg("g"); // above all lines
    for (const [from, to, text, [dx, dy]] of EDGES) drawing.append(this.edge(texts, from, to, text, dx, dy));
    drawing.append(texts);
    for (const [name, [x, y]] of Object.entries(STATES)) {
      const box = svg("g", { class: "state-box" }, svg("rect", { x: x - W / 2, y: y - H / 2, width: W, height: H, rx: 7 }),
        svg("text", { x, y: y + 4 }, name.replace("_END", "").replaceAll("_", "-")));
      this.boxes.set(name, box);
      drawing.append(box);
    }
    this.marks = svg("g");
    drawing.append(this.marks);
    this.rows = el("tbody");
    this.note = el("p", { class: "quiet" });
    main.append(el("div", { class: "states" }, drawing, el("div", { class: "way-taken" }, el("h3", {}, "The way taken"),
      el("table", {}, this.rows), this.note)));
    this.load();
  }

  edge(texts, from, to, text, dx, dy) {
    const [x1, y1] = STATES[from], [x2, y2] = STATES[to];
    const back = EDGES.some(([a, b]) => a === to && b === from);
    const length = Math.hypot(x2 - x1, y2 - y1), shift = back ? 9 : 0;
    const sx = (-(y2 - y1) / length) * shift, sy = ((x2 - x1) / length) * shift;
    const start = border(x1, y1, x2 - x1, y2 - y1, sx, sy), end = border(x2, y2, x1 - x2, y1 - y2, sx, sy);
    const line = svg("path", { d: `M${start}L${end}`, class: "edge", "marker-end": "url(#arrow)" });
    const label = svg("text", { x: (start[0] + end[0]) / 2 + dx, y: (start[1] + end[1]) / 2 + dy + 3, class: "edge-text" }, text);
    const group = svg("g", { class: "edge-group" }, line);
    texts.append(label);
    this.lines.set(`${from}>${to}`, { parts: [group, label], line, middle: [(start[0] * 2 + end[0]) / 3, (start[1] * 2 + end[1]) / 3] });
    return group;
  }

  async load() {
    try {
      this.data = await this.app.ask("states", { source: this.app.source, conn: this.conn });
    } catch (error) {
      say(this.note, error.message);
      return;
    }
    this.draw();
  }

  tick() {
    const now = performance.now();
    if (now - (this.loaded ?? 0) > 900) { this.loaded = now; this.load(); }
  }

  seek() { if (this.data) this.draw(); }

  draw() {
    const { cursor } = this.app;
    const all = this.data.rows;
    const until = cursor === null ? all.length : all.filter(([t]) => t <= cursor).length;
    const taken = all.slice(0, until);
    const state = taken.length ? taken.at(-1)[2] : cursor === null ? this.data.state : all[0]?.[1];
    const ended = state === "CLOSED" && taken.length > 0;
    for (const [name, box] of this.boxes) {
      const here = ended ? name === "CLOSED_END" : name === state;
      box.classList.toggle("here", here);
      box.classList.toggle("passed", taken.some(([, old, next]) => old === name || next === name));
    }
    for (const { parts, line } of this.lines.values()) { for (const part of parts) part.classList.remove("taken"); line.setAttribute("marker-end", "url(#arrow)"); }
    this.marks.replaceChildren();
    taken.forEach(([, old, next], i) => {
      const edge = this.lines.get(`${old}>${next}`) ?? (next === "CLOSED" ? this.lines.get(`${old}>CLOSED_END`) : undefined);
      if (!edge) return;
      for (const part of edge.parts) part.classList.add("taken");
      edge.line.setAttribute("marker-end", "url(#arrow-taken)");
      const [x, y] = edge.middle;
      this.marks.append(svg("g", { class: "step" }, svg("circle", { cx: x, cy: y, r: 8 }), svg("text", { x, y: y + 3.5 }, String(i + 1))));
    });
    this.rows.replaceChildren(...all.map(([t, old, next, input], i) => el("tr", { class: i < until ? "" : "later", tabindex: "0", onclick: () => this.app.seek(t), onkeydown: (event) => { if (event.key === "Enter") this.app.seek(t); } },
      el("td", { class: "num" }, String(i + 1)), el("td", { class: "num" }, t.toFixed(6)), el("td", {}, `${old} → ${next}`.replaceAll("_", "-")),
      el("td", { class: "quiet" }, input.toLowerCase().replaceAll("_", " ")))));
    say(this.note, all.length ? (this.data.told ? "" : "Inferred from the packets: a capture does not tell states.")
      : "No change was seen: it began before we listened.");
  }
}

// Where a line that passes (shiftX, shiftY) beside the middle of a box, in a direction, leaves the box.
function border(x, y, dx, dy, shiftX, shiftY) {
  const along = (d, shift, half) => (d ? (Math.sign(d) * half - shift) / d : Infinity);
  const share = Math.min(along(dx, shiftX, W / 2), along(dy, shiftY, H / 2));
  return [x + shiftX + dx * share, y + shiftY + dy * share];
}
