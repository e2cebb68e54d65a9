// A connection over time: tcptrace's time-sequence graph, the windows, round trips; one time axis for all three.

import { colour, eachFrame, el, prepare, say } from "./dom.js";
import * as format from "./format.js";

const LEFT = 74, RIGHT = 12, TOP = 28, BOTTOM = 20; // above: the legend
const ASK_MS = 90;
const MIN_RANGE = 1e-6; // seconds

export class Graphs {
  constructor(app, main, conn) {
    this.app = app;
    this.conn = conn;
    this.way = "out";
    this.range = null; // [from, to] in seconds; null: everything
    this.last = null; // the newest so many seconds
    this.hidden = new Set();
    this.data = null;
    this.pointer = null;
    this.plots = [
      { name: "sequence", title: "sequence number, from the SYN", canvas: el("canvas", { id: "graph-sequence", role: "img", "aria-label": "Time-sequence graph: segments, acknowledgments, window" }), draw: (plot) => this.drawSequence(plot) },
      { name: "windows", title: "bytes", canvas: el("canvas", { id: "graph-windows", role: "img", "aria-label": "cwnd, ssthresh and bytes in flight over time" }), draw: (plot) => this.drawWindows(plot) },
      { name: "rtts", title: "ms, logarithmic", canvas: el("canvas", { id: "graph-rtts", role: "img", "aria-label": "Round trips and RTO over time" }), draw: (plot) => this.drawTimes(plot) },
    ];
    this.wayButton = el("button", { class: "small", id: "graph-way", title: "Data of the other direction (d)", onclick: () => this.otherWay() });
    this.spans = [["All", null], ["60 s", 60], ["10 s", 10], ["1 s", 1]].map(([text, seconds]) => el("button", { class: "small toggle", onclick: () => this.span(seconds) }, text));
    this.told = el("span", { class: "quiet", id: "graph-told" });
    this.tip = el("div", { class: "tip", hidden: true });
    this.element = el("div", { class: "graphs" });
    main.append(el("div", { class: "bar" }, this.wayButton, el("span", { class: "group" }, this.spans), this.told, el("span", { class: "space" }),
      el("span", { class: "quiet" }, "wheel: zoom, drag: move, click: this instant everywhere")), this.element);
    for (const plot of this.plots) {
      const legend = el("div", { class: "legend" }, el("span", { class: "quiet axis" }, plot.title));
      plot.legend = legend;
      this.element.append(el("figure", { class: `plot plot-${plot.name}` }, legend, plot.canvas));
      this.listen(plot);
    }
    this.element.append(this.tip);
    this.legends();
    this.redraw = eachFrame(() => this.draw());
    this.observer = new ResizeObserver(() => { this.redraw(); });
    this.observer.observe(this.element);
    this.drawWay();
    this.ask();
  }

  legends() {
    const entries = {
      sequence: [["data", "data", "segment"], ["again", "bad", "sent again"], ["edge", "good", "SYN, FIN, RST"], ["probe", "warn", "probe"], ["acks", "ack", "acknowledged"], ["window", "window", "window"], ["sacks", "sack", "SACK"], ["dsacks", "cursor", "D-SACK"]],
      windows: [["cwnd", "data", "cwnd"], ["ssthresh", "warn", "ssthresh"], ["flight", "ack", "in flight"]],
      rtts: [["rtt", "data", "RTT"], ["srtt", "ack", "smoothed"], ["rto", "bad", "RTO"]],
    };
    for (const plot of this.plots) {
      plot.legend.append(...entries[plot.name].map(([key, ink, text]) => {
        const name = `${plot.name}.${key}`;
        return el("button", { class: `key ink-${ink}`, "aria-pressed": "true", title: "Show or hide", onclick: (event) => {
          if (!this.hidden.delete(name)) this.hidden.add(name);
          event.currentTarget.setAttribute("aria-pressed", String(!this.hidden.has(name)));
          event.currentTarget.classList.toggle("off", this.hidden.has(name));
          this.redraw();
        } }, text);
      }));
    }
  }

  shows(name) { return !this.hidden.has(name); }

  // asking

  ask() {
    if (this.asking) { this.again = true; return; }
    this.asking = true;
    const width = Math.max(200, this.element.clientWidth - LEFT - RIGHT);
    const [from, to] = this.range ?? [null, null];
    this.app.ask("graph", { source: this.app.source, conn: this.conn, way: this.way, width, from, to, last: this.last })
      .then((data) => this.take(data), (error) => say(this.told, error.message))
      .finally(() => setTimeout(() => { this.asking = false; if (this.again && !this.ended) { this.again = false; this.ask(); } }, ASK_MS));
  }

  take(data) {
    if (data.way !== this.way) return;
    this.data = data;
    const dropped = data.left_out ? `, ${format.count(data.left_out)} older ones no longer kept` : "";
    say(this.told, `${format.count(data.segments)} segments${data.exact ? "" : ", as many as there are pixels drawn"}${dropped}`);
    this.redraw();
  }

  tick(data) {
    if (data.graph) this.take(data.graph);
    else if (!this.data && !this.asking) this.ask();
  }

  // ranges

  get whole() {
    const { data } = this;
    return [(data.first + data.shift) / 1e9, (Math.max(data.last, data.first + 1000) + data.shift) / 1e9];
  }

  get shown() {
    if (this.range) return this.range;
    const [first, last] = this.whole;
    if (this.last !== null) return [Math.max(first, last - this.last), last];
    const margin = (last - first) * 0.01;
    return [first - margin, last + margin];
  }

  span(seconds) {
    this.range = null;
    this.last = seconds;
    this.ask();
    this.redraw();
  }

  set(from, to) {
    if (to - from < MIN_RANGE) return;
    this.range = [from, to];
    this.ask();
    this.redraw();
  }

  zoom(factor, around) {
    if (!this.data) return;
    const [from, to] = this.shown;
    const middle = around ?? (from + to) / 2;
    this.set(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }

  pan(share) {
    if (!this.data) return;
    const [from, to] = this.shown, by = (to - from) * share;
    this.set(from + by, to + by);
  }

  zoomAll() { this.span(null); }
  otherWay() { this.way = this.way === "out" ? "in" : "out"; this.data = null; this.drawWay(); this.ask(); this.redraw(); }
  drawWay() { say(this.wayButton, this.way === "out" ? "↓ what we send" : "↑ what we receive"); }
  seek() { this.redraw(); }

  // the pointer

  listen(plot) {
    const { canvas } = plot;
    const time = (event) => {
      const [from, to] = this.shown;
      const x = event.clientX - canvas.getBoundingClientRect().left;
      return from + ((x - LEFT) / Math.max(1, canvas.clientWidth - LEFT - RIGHT)) * (to - from);
    };
    canvas.addEventListener("wheel", (event) => {
      if (!this.data) return;
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, time(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.data || event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = { x: event.clientX, range: this.shown, moved: false, time: time(event) };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.data) return;
      if (this.drag) {
        const by = event.clientX - this.drag.x, [from, to] = this.drag.range;
        if (Math.abs(by) > 3) this.drag.moved = true;
        if (this.drag.moved) {
          const seconds = (-by / Math.max(1, canvas.clientWidth - LEFT - RIGHT)) * (to - from);
          this.set(from + seconds, to + seconds);
        }
      }
      this.pointer = { plot, x: event.offsetX, y: event.offsetY };
      this.redraw();
    });
    canvas.addEventListener("pointerup", () => {
      if (this.drag && !this.drag.moved) this.app.seek(this.drag.time);
      this.drag = null;
    });
    canvas.addEventListener("pointerleave", () => { this.pointer = null; this.tip.hidden = true; this.redraw(); });
    canvas.addEventListener("dblclick", () => this.zoomAll());
  }

  // drawing

  draw() {
    if (this.ended) return;
    const begun = performance.now();
    for (const plot of this.plots) {
      if (!plot.canvas.clientWidth) continue;
      const [context, width, height] = prepare(plot.canvas);
      if (!this.data) continue;
      Object.assign(plot, { context, width, height });
      const [from, to] = this.shown;
      plot.x = (t) => LEFT + (((t + this.data.shift) / 1e9 - from) / (to - from)) * (width - LEFT - RIGHT);
      plot.draw(plot);
    }
    this.hint();
    this.cost = performance.now() - begun;
  }

  // `scale`: how a value becomes a length; `marks`: the values that the axis names
  frame(plot, low, high, name, scale = (value) => value, marks = ticks) {
    if (!(high > low)) high = low + 1;
    const { context, width, height } = plot, bottom = scale(low), span = scale(high) - bottom;
    plot.y = (value) => height - BOTTOM - ((scale(value) - bottom) / span) * (height - TOP - BOTTOM);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = colour("quiet");
    context.strokeStyle = colour("grid");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.beginPath();
    for (const value of marks(low, high, Math.max(2, height / 45))) {
      const y = Math.round(plot.y(value)) + 0.5;
      context.moveTo(LEFT, y);
      context.lineTo(width - RIGHT, y);
      context.fillText(name(value), LEFT - 6, y);
    }
    const [from, to] = this.shown, times = ticks(from, to, width / 110), step = times[1] - times[0] || 1;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (const time of times) {
      const x = Math.round(LEFT + ((time - from) / (to - from)) * (width - LEFT - RIGHT)) + 0.5;
      context.moveTo(x, TOP);
      context.lineTo(x, height - BOTTOM);
      context.fillText(`${format.tick(time, step)} s`, x, height - 6);
    }
    context.stroke();
    context.save();
    context.beginPath();
    context.rect(LEFT, TOP, width - LEFT - RIGHT, height - TOP - BOTTOM);
    context.clip();
  }

  close(plot) {
    const { context, height } = plot;
    const { cursor } = this.app;
    if (cursor !== null) this.vertical(plot, (cursor * 1e9) - this.data.shift, colour("cursor"));
    if (this.pointer) {
      context.beginPath();
      context.moveTo(this.pointer.x + 0.5, TOP);
      context.lineTo(this.pointer.x + 0.5, height - BOTTOM);
      context.strokeStyle = colour("quiet");
      context.setLineDash([3, 3]);
      context.stroke();
      context.setLineDash([]);
    }
    context.restore();
  }

  vertical(plot, t, ink) {
    const x = Math.round(plot.x(t)) + 0.5;
    plot.context.beginPath();
    plot.context.moveTo(x, 0);
    plot.context.lineTo(x, plot.height);
    plot.context.strokeStyle = ink;
    plot.context.lineWidth = 1.5;
    plot.context.stroke();
  }

  steps(plot, points, ink, width = 1.25) {
    const { context } = plot;
    context.beginPath();
    let before = null;
    for (const [t, value] of points) {
      if (value === null) { before = null; continue; }
      const x = plot.x(t), y = plot.y(value);
      if (before === null) context.moveTo(x, y);
      else { context.lineTo(x, before); context.lineTo(x, y); }
      before = y;
    }
    if (before !== null && points.length) context.lineTo(plot.x(this.data.last), before);
    context.strokeStyle = ink;
    context.lineWidth = width;
    context.stroke();
  }

  drawSequence(plot) {
    const { data, acks, sacks } = this.data;
    let low = Infinity, high = -Infinity;
    for (const [, first, last] of data) { if (first < low) low = first; if (last > high) high = last; }
    for (const [, ack] of acks) { if (ack < low) low = ack; if (ack > high) high = ack; }
    if (low === Infinity) [low, high] = [0, 1];
    const size = high - low;
    if (this.shows("sequence.window")) {
      const edge = acks.reduce((most, [, , right]) => Math.max(most, right), high);
      high = Math.min(edge, high + size * 0.35 + 3000); // a wide window must not flatten the data
    }
    this.frame(plot, low - size * 0.03, high + size * 0.03, format.short);
    const { context } = plot;
    if (this.shows("sequence.window")) this.steps(plot, acks.map(([t, , right]) => [t, right]), colour("window"), 1);
    if (this.shows("sequence.acks")) this.steps(plot, acks, colour("ack"));
    [["sacks", "sack"], ["dsacks", "cursor"]].forEach(([name, ink], twice) => {
      if (!this.shows(`sequence.${name}`)) return;
      context.beginPath();
      for (const [t, left, right, again] of sacks) {
        if (again !== twice) continue;
        const x = plot.x(t);
        context.moveTo(x, plot.y(left));
        context.lineTo(x, Math.min(plot.y(right), plot.y(left) - 2));
      }
      context.strokeStyle = colour(ink);
      context.lineWidth = 1.25;
      context.stroke();
    });
    [["data", "data"], ["again", "bad"], ["edge", "good"], ["probe", "warn"]].forEach(([name, ink], kind) => {
      if (!this.shows(`sequence.${name}`)) return;
      context.beginPath();
      const caps = data.length < 600;
      for (const [t, first, last, what] of data) {
        if (what !== kind) continue;
        const x = plot.x(t), bottom = plot.y(first), top = Math.min(plot.y(last), bottom - 2);
        context.moveTo(x, bottom);
        context.lineTo(x, top);
        if (caps) { context.moveTo(x - 3, top); context.lineTo(x + 3, top); context.moveTo(x - 3, bottom); context.lineTo(x + 3, bottom); }
      }
      context.strokeStyle = colour(ink);
      context.lineWidth = kind === 0 ? 1.25 : 2;
      context.stroke();
    });
    this.close(plot);
  }

  drawWindows(plot) {
    const { windows, flight } = this.data;
    let high = 1;
    if (this.shows("windows.flight")) for (const [, value] of flight) if (value > high) high = value;
    if (this.shows("windows.cwnd")) for (const [, cwnd] of windows) if (cwnd > high) high = cwnd;
    this.frame(plot, 0, high * 1.06, format.short);
    if (this.shows("windows.flight")) this.steps(plot, flight, colour("ack"), 1);
    if (this.shows("windows.ssthresh")) this.steps(plot, windows.map(([t, , ssthresh]) => [t, ssthresh]), colour("warn"), 1);
    if (this.shows("windows.cwnd")) this.steps(plot, windows, colour("data"), 1.5);
    this.close(plot);
  }

  // An RTO of 200 ms or more beside round trips of few: only a logarithm shows both.
  drawTimes(plot) {
    const { rtts } = this.data, rto = this.shows("rtts.rto");
    let low = Infinity, high = 0;
    for (const [, rtt, srtt, timer] of rtts) {
      for (const value of [rtt, srtt, rto ? timer : null]) if (value) { low = Math.min(low, value); high = Math.max(high, value); }
    }
    if (!high) [low, high] = [1e6, 1e8];
    this.frame(plot, (low / 1e6) * 0.7, (high / 1e6) * 1.4, (value) => format.short(value), (value) => Math.log(Math.max(value, 1e-6)), decades);
    const scaled = (i) => rtts.filter((row) => row[i] !== null).map((row) => [row[0], row[i] / 1e6]);
    if (rto) this.steps(plot, scaled(3), colour("bad"), 1);
    if (this.shows("rtts.srtt")) this.steps(plot, scaled(2), colour("ack"), 1.25);
    if (this.shows("rtts.rtt")) {
      plot.context.fillStyle = colour("data");
      for (const [t, rtt] of scaled(1)) plot.context.fillRect(plot.x(t) - 1, plot.y(rtt) - 1, 2.5, 2.5);
    }
    if (rto) {
      for (const row of rtts) if (row[4]) this.vertical(plot, row[0], colour("bad"));
    }
    this.close(plot);
  }

  // What lies under the pointer, in words.
  hint() {
    const { pointer } = this;
    if (!pointer || !this.data || !pointer.plot.y) { this.tip.hidden = true; return; }
    const { plot, x, y } = pointer, [from, to] = this.shown;
    const time = from + ((x - LEFT) / (plot.width - LEFT - RIGHT)) * (to - from), t = time * 1e9 - this.data.shift;
    const lines = [`${time.toFixed(6)} s`];
    if (plot.name === "sequence") {
      let best = null, near = 64;
      for (const row of this.data.data) {
        const dx = plot.x(row[0]) - x, top = plot.y(row[2]), bottom = plot.y(row[1]), dy = y < top ? top - y : y > bottom ? y - bottom : 0;
        const far = dx * dx + dy * dy;
        if (far < near) { near = far; best = row; }
      }
      if (best) lines.push(`${["data", "sent again", "SYN, FIN or RST", "probe"][best[3]]} ${format.count(best[1])}:${format.count(best[2])}${best[4] > 1 ? `, ${best[4]} segments` : ""}`);
      const ack = at(this.data.acks, t);
      if (ack) lines.push(`acknowledged ${format.count(ack[1])}, window to ${format.count(ack[2])}`);
    } else if (plot.name === "windows") {
      const window = at(this.data.windows, t), flight = at(this.data.flight, t), { mss } = this.data;
      if (window) lines.push(`cwnd ${format.count(window[1])}${mss ? ` (${(window[1] / mss).toFixed(1)} segments)` : ""}, ssthresh ${window[2] === null ? "∞" : format.count(window[2])}`);
      if (flight) lines.push(`in flight ${format.count(flight[1])}`);
    } else {
      const row = at(this.data.rtts, t);
      if (row) lines.push([["RTT", row[1]], ["smoothed", row[2]], ["RTO", row[3]]].filter(([, value]) => value !== null).map(([name, value]) => `${name} ${format.ms(value / 1e6)}`).join(", "));
    }
    this.tip.hidden = false;
    this.tip.replaceChildren(...lines.map((line) => el("div", {}, line)));
    const box = this.element.getBoundingClientRect(), canvas = plot.canvas.getBoundingClientRect();
    const left = canvas.left - box.left + x, wide = this.tip.offsetWidth + 12;
    this.tip.style.left = `${left + wide > box.width ? Math.max(0, left - wide) : left + 12}px`;
    this.tip.style.top = `${canvas.top - box.top + Math.max(0, y - 10)}px`;
  }

  end() {
    this.ended = true;
    this.observer.disconnect();
    this.app.ask("graph", { off: true }).catch(() => {});
  }
}

// The last row at or before an instant.
function at(rows, t) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle][0] <= t) low = middle + 1; else high = middle;
  }
  return rows[low - 1] ?? null;
}

// Round values of a logarithmic axis: 1, 2, 5, 10, …; of many decades some.
function decades(low, high, wanted) {
  const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high)), span = Math.log10(high / low);
  const digits = span * 3 <= wanted + 2 ? [1, 2, 5] : [1], every = Math.ceil(span / (wanted + 1));
  const found = [];
  for (let power = from; power <= to; power += every) {
    for (const digit of digits) {
      const value = Number(`${digit}e${power}`);
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
}

// Round values between two bounds.
function ticks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw) ?? raw;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high && found.length < 100; value += step) found.push(value);
  return found;
}
