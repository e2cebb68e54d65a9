// The line at the foot: how much happened when, and the instant that everything shows; dragged, it scrubs.

import { colour, eachFrame, el, prepare, say } from "./dom.js";

const RELOAD_MS = 1000;

export class Timeline {
  constructor(app, main) {
    this.app = app;
    this.data = null;
    this.marked = null;
    this.canvas = el("canvas", { id: "scrub", tabindex: "0", role: "slider", "aria-label": "The instant that everything shows", title: "Drag to scrub; n: the newest again" });
    this.label = el("span", { class: "time", id: "instant" });
    this.newest = el("button", { class: "small toggle", title: "The newest again (n)", onclick: () => app.seek(null) }, "Newest");
    main.append(this.label, this.canvas, this.newest);
    this.draw = eachFrame(() => this.paint());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); this.dragging = true; this.to(event); });
    this.canvas.addEventListener("pointermove", (event) => { if (this.dragging) this.to(event); });
    this.canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      this.step(way);
    });
    this.canvas.addEventListener("pointerup", () => { this.dragging = false; });
  }

  reset() { this.data = null; this.marked = null; this.load(); }

  tick() {
    const now = performance.now();
    if (now - (this.loaded ?? -Infinity) < RELOAD_MS || (!this.app.live && this.data)) return;
    this.loaded = now;
    this.load();
  }

  async load() {
    const { source } = this.app;
    try {
      const data = await this.app.ask("density", { source, bins: Math.max(50, Math.floor(this.canvas.clientWidth / 3)) });
      if (source === this.app.source) this.data = data;
    } catch { return; }
    this.draw();
  }

  // The time of what is chosen, shown as a thin line.
  mark(seconds) { this.marked = seconds; this.draw(); }

  to(event) {
    if (!this.data?.bins.length) return;
    const share = Math.max(0, Math.min(1, event.offsetX / this.canvas.clientWidth));
    this.app.seek(this.data.from + share * (this.data.to - this.data.from));
  }

  step(by) {
    if (!this.data?.bins.length) return;
    const { from, to } = this.data, width = (to - from) / 100;
    const next = (this.app.cursor ?? (by < 0 ? to : from)) + by * width;
    this.app.seek(Math.max(from, Math.min(to, next)));
  }

  paint() {
    const { cursor } = this.app;
    this.newest.classList.toggle("on", cursor === null);
    if (!this.canvas.clientWidth) return;
    const [context, width, height] = prepare(this.canvas);
    const { data } = this;
    if (!data?.bins.length) { say(this.label, "nothing seen yet"); return; }
    const most = Math.max(1, ...data.bins), step = width / data.bins.length;
    context.fillStyle = colour("density");
    data.bins.forEach((count, i) => {
      if (!count) return;
      const tall = Math.max(2, (Math.log1p(count) / Math.log1p(most)) * (height - 3));
      context.fillRect(i * step, height - tall, Math.max(1, step - 1), tall);
    });
    const x = (seconds) => ((seconds - data.from) / (data.to - data.from || 1)) * width;
    if (this.marked !== null) { context.fillStyle = colour("quiet"); context.fillRect(x(this.marked) - 0.5, 0, 1, height); }
    if (cursor !== null) { context.fillStyle = colour("cursor"); context.fillRect(x(cursor) - 1, 0, 2, height); }
    say(this.label, cursor === null ? `${data.to.toFixed(3)} s` : `${cursor.toFixed(6)} s`);
    for (const [name, value] of [["min", data.from], ["max", data.to], ["now", cursor ?? data.to]]) this.canvas.setAttribute(`aria-value${name}`, value.toFixed(3));
    this.canvas.setAttribute("aria-valuetext", this.label.textContent);
  }
}
