// The stack: processes from the applications down to the device, what crosses the seams between them, faults, drops.

import { colour, eachFrame, el, prepare, say, toast } from "./dom.js";
import { Addons } from "./addons.js";
import * as format from "./format.js";

// From top to bottom; what stands in brackets stands side by side.
const TOWER = ["gateway-client", "gateway",
  [["tcp-gateway", "tcp", "ip-tcp"], ["udp-gateway", "udp", "ip-udp"]],
  "ip", "link-ip", "link", "device"];
const PROCESSES = ["gateway", "tcp", "udp", "ip", "link"];
const FAULT_SEAMS = ["link", "link-ip", "ip-tcp", "ip-udp"];
const POINTS = 120; // of a sparkline, one a second (while the stack is held, more)
const COUNTS = [["packets", "packets"], ["lost", "lost"], ["duplicated", "doubled"], ["reordered", "reordered"],
  ["corrupted", "corrupted"], ["overflowed", "overflowed"]];

export class StackPage {
  constructor(app, main) {
    this.app = app;
    this.processes = new Map();
    this.seams = new Map();
    const tower = el("section", { class: "tower" }, el("div", { class: "end" }, "applications"));
    const part = (name) => PROCESSES.includes(name) ? this.process(name) : this.seam(name === "device" ? "link" : name);
    for (const name of TOWER) {
      tower.append(typeof name === "string" ? part(name)
        : el("div", { class: "beside" }, name.map((column) => el("div", { class: "column" }, column.map(part)))));
    }
    tower.append(el("div", { class: "end" }, "device, network"));
    this.addons = new Addons(app);
    this.drops = el("tbody");
    this.dropsEmpty = el("p", { class: "quiet" }, "Nothing was discarded.");
    main.append(el("div", { class: "columns" }, tower, el("div", { class: "side" },
      this.faultPanel(),
      el("section", { class: "panel" }, el("h2", {}, "Discarded, and why"), this.dropsEmpty,
        el("table", { class: "drops" }, this.drops)),
      this.addons.element, this.listenPanel())));
    this.drawLines = eachFrame(() => this.sparklines());
    if (app.stack) this.draw();
    this.drawSettings();
  }

  process(name) {
    const parts = { state: el("span", { class: "state" }), figures: el("dl", { class: "figures" }), cells: {} };
    for (const [key, title] of [["pid", "pid"], ["uptime", "up"], ["cpu", "CPU"], ["memory", "memory"],
      ["queue", "queued"], ["restarts", "restarts"], ["drops", "discarded"]]) {
      parts.cells[key] = el("dd");
      parts.figures.append(el("div", {}, el("dt", {}, title), parts.cells[key]));
    }
    this.processes.set(name, parts);
    parts.element = el("article", { class: "process", id: `process-${name}` }, el("h2", {}, name, parts.state), parts.figures);
    return parts.element;
  }

  seam(name) {
    const parts = { up: el("span", { class: "rate" }), down: el("span", { class: "rate" }), canvas: el("canvas", { "aria-hidden": "true" }), faults: el("span", { class: "faults" }) };
    this.seams.set(name, parts);
    return el("div", { class: "seam", "data-seam": name },
      el("span", { class: "seam-name" }, name),
      el("span", { class: "way up", title: "toward the applications" }, "↑ ", parts.up),
      el("span", { class: "way down", title: "toward the network" }, name === "gateway-client" ? "" : "↓ ", parts.down),
      parts.canvas, parts.faults);
  }

  faultPanel() {
    this.faultSeam = el("select", { id: "fault-seam", "aria-label": "Seam" }, FAULT_SEAMS.map((name) => el("option", { value: name }, name)));
    this.faultWords = el("input", { id: "fault-words", type: "text", placeholder: "loss=5% delay=20ms±5ms rate=10mbit dir=up", spellcheck: "false", autocomplete: "off", "aria-label": "Fault" });
    this.faultError = el("p", { class: "error", hidden: true });
    this.faultRows = el("tbody");
    const form = el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); this.setFault(); } },
      this.faultSeam, this.faultWords, el("button", { id: "fault-set", type: "submit" }, "Set"));
    const presets = el("div", { class: "row presets" }, ["loss=1%", "loss=10%", "delay=50ms", "delay=20ms±10ms", "reorder=5%", "dup=2%", "corrupt=1%", "rate=10mbit"].map((words) =>
      el("button", { type: "button", class: "small", onclick: () => this.addWord(words) }, words)));
    return el("section", { class: "panel", id: "faults" }, el("h2", {}, "Faults"), form, presets, this.faultError,
      el("table", { class: "fault-table" }, this.faultRows));
  }

  addWord(word) {
    const key = word.split("=")[0];
    const words = this.faultWords.value.split(/\s+/).filter((one) => one && one.split("=")[0] !== key);
    this.faultWords.value = [...words, word].join(" ");
    this.faultWords.focus();
  }

  async setFault() {
    this.faultError.hidden = true;
    try {
      const done = await this.app.ask("fault.set", { seam: this.faultSeam.value, words: this.faultWords.value });
      toast(`${done.seam}: ${done.text}`, "good");
    } catch (error) {
      this.faultError.hidden = false;
      say(this.faultError, error.message);
    }
  }

  listenPanel() {
    this.listenSeams = new Map(this.app.hello.seams.map((name) => [name, el("input", { type: "checkbox", onchange: () => this.changeSettings() })]));
    this.listenEvents = el("input", { type: "checkbox", onchange: () => this.changeSettings() });
    this.listenOn = el("input", { type: "checkbox", onchange: () => this.changeSettings() });
    this.listenDetail = el("select", { onchange: () => this.changeSettings() }, [["headers", "headers alone"], ["first128", "the first 128 bytes"], ["full", "all of it"]].map(([value, text]) => el("option", { value }, text)));
    this.listenLost = el("p", { class: "quiet" });
    return el("section", { class: "panel", id: "listening" }, el("h2", {}, "Listening"),
      el("p", {}, el("label", {}, this.listenOn, " listen to the tap bus")),
      el("p", { class: "checks" }, [...this.listenSeams].map(([name, box]) => el("label", {}, box, ` ${name}`)), el("label", {}, this.listenEvents, " events")),
      el("p", {}, el("label", {}, "of payload, keep ", this.listenDetail)), this.listenLost);
  }

  async changeSettings() {
    const seams = [...this.listenSeams].filter(([, box]) => box.checked).map(([name]) => name);
    const settings = await this.app.tell("settings", { seams, events: this.listenEvents.checked, detail: this.listenDetail.value, listening: this.listenOn.checked });
    if (settings) { this.app.settings = settings; this.app.status(); }
    this.drawSettings();
  }

  drawSettings() {
    const settings = this.app.settings;
    if (!settings) return;
    this.listenOn.checked = settings.listening;
    this.listenEvents.checked = settings.events;
    if (document.activeElement !== this.listenDetail) this.listenDetail.value = settings.detail;
    for (const [name, box] of this.listenSeams) box.checked = settings.seams.includes(name);
    const lost = Object.entries(settings.lost).map(([name, n]) => `${name} ${format.count(n)}`);
    if (settings.passed_over) lost.push(`passed over here ${format.count(settings.passed_over)}`);
    say(this.listenLost, `${format.count(settings.rate)} records a second; ${lost.length ? `left out: ${lost.join(", ")}` : "nothing left out"}.`);
  }

  tick(data) {
    if (data.stack) { this.draw(); this.addons.load(); }
    if (data.settings) this.drawSettings();
  }

  redraw() { this.drawLines(); }

  draw() {
    const stack = this.app.stack;
    for (const layer of stack.layers) {
      const parts = this.processes.get(layer.name);
      parts.element.dataset.state = layer.held ? "held" : layer.state;
      say(parts.state, layer.waiting_for.length ? `waits for ${layer.waiting_for.join(", ")}` : layer.held ? "held" : layer.state);
      const drops = layer.drops.filter((one) => one.severity !== "normal").reduce((sum, one) => sum + one.count, 0);
      const queue = Object.entries(layer.queues).filter(([, n]) => n).map(([name, n]) => `${n} → ${name}`).join(", ");
      const figures = { pid: layer.pid || "–", uptime: format.duration(layer.uptime), cpu: format.percent(layer.cpu), memory: layer.memory ? format.bytes(layer.memory) : "",
        queue: queue || "0", restarts: String(layer.restarts), drops: format.count(layer.drops.reduce((sum, one) => sum + one.count, 0)) };
      for (const [key, value] of Object.entries(figures)) say(parts.cells[key], String(value));
      parts.cells.restarts.classList.toggle("warn", layer.restarts > 0);
      parts.cells.drops.classList.toggle("warn", drops > 0);
    }
    for (const [name, parts] of this.seams) {
      const rates = stack.seams[name];
      say(parts.up, this.rateText(name, rates.up_packets, rates.up_bytes, rates));
      say(parts.down, name === "gateway-client" ? "" : this.rateText(name, rates.down_packets, rates.down_bytes, rates));
      const faults = stack.faults.filter((one) => one.seam === name);
      const texts = [...new Set(faults.map((one) => `${one.direction === "up" ? "↑" : "↓"} ${one.text}`))];
      if (parts.faults.dataset.shown !== texts.join()) {
        parts.faults.dataset.shown = texts.join();
        parts.faults.replaceChildren(...texts.map((text) => el("span", { class: "fault" }, text)));
      }
    }
    this.drawFaults(stack.faults);
    this.drawDrops(stack.layers);
    this.drawLines();
  }

  rateText(name, packets, bytes, rates) {
    if (name === "gateway-client") return rates.calls === undefined ? "0" : `${format.short(rates.calls)} calls/s`;
    if (bytes === undefined && packets !== undefined) return `${format.short(packets)} p/s`;
    const bits = format.rate((bytes ?? 0) * 8, "bit/s");
    if (!bytes && !packets) return "0";
    return packets === undefined ? bits : `${bits}, ${format.short(packets)} p/s`;
  }

  drawFaults(faults) {
    this.faultRows.replaceChildren(...faults.map((one) => el("tr", {},
      el("td", {}, `${one.seam} ${one.direction === "up" ? "↑" : "↓"}`), el("td", {}, el("code", {}, one.text)),
      el("td", { class: "quiet" }, COUNTS.filter(([key]) => one[key]).map(([key, title]) => `${format.count(one[key])} ${title}`).join(", ")),
      el("td", {}, el("button", { class: "small", onclick: () => this.app.tell("fault.clear", { seam: one.seam }) }, "Clear")))));
  }

  drawDrops(layers) {
    const rows = layers.flatMap((layer) => layer.drops.map((drop) => ({ ...drop, layer: layer.name })));
    rows.sort((a, b) => b.rate - a.rate || b.count - a.count);
    this.dropsEmpty.hidden = rows.length > 0;
    this.drops.replaceChildren(...rows.slice(0, 30).map((drop) => el("tr", { class: `severity-${drop.severity}` },
      el("td", { class: "num" }, format.count(drop.count)), el("td", { class: "num quiet" }, drop.rate ? `${format.short(drop.rate)}/s` : ""),
      el("td", {}, drop.layer), el("td", {}, el("b", {}, drop.name), " ", el("span", { class: "quiet" }, drop.text)))));
  }

  sparklines() {
    for (const [name, { canvas }] of this.seams) {
      if (!canvas.clientWidth) continue;
      const [context, width, height] = prepare(canvas);
      const history = this.app.history.map(({ seams }) => crossed(seams[name]));
      const highest = Math.max(0, ...history.map(([up, down]) => Math.max(up, down)));
      canvas.title = `the last two minutes; the highest: ${peak(this.app.stack?.seams[name], highest)}`;
      const most = Math.max(1, highest);
      ["up", "down"].forEach((way, i) => {
        context.beginPath();
        history.forEach((values, k) => {
          const x = width - (history.length - 1 - k) * (width / POINTS), y = height - 1.5 - (values[i] / most) * (height - 4);
          if (k) context.lineTo(x, y); else context.moveTo(x, y);
        });
        context.strokeStyle = colour(way);
        context.lineWidth = 1.25;
        context.stroke();
      });
    }
  }

  search() { this.faultWords.focus(); }
}

// [up, down] a second: bytes where they are counted, else packets or calls.
function crossed(rates) {
  return [rates?.up_bytes ?? rates?.up_packets ?? rates?.calls ?? 0, rates?.down_bytes ?? rates?.down_packets ?? 0];
}

function peak(rates, most) {
  if (rates && "up_bytes" in rates) return format.rate(most * 8, "bit/s");
  return `${format.short(most)} ${rates && "calls" in rates ? "calls" : "packets"}/s`;
}
