// Stopping: hold and step, breakpoints, and the frames that are held, each to be looked at, changed, dropped, moved.

import { el, say, toast } from "./dom.js";
import * as format from "./format.js";
import { Detail } from "./detail.js";
import { Inject } from "./inject.js";

const PLACES = ["", "link", "ip", "tcp", "udp", "gateway", "link:up", "link:down", "link-ip:up", "link-ip:down", "ip-tcp:up", "ip-tcp:down",
  "ip-udp:up", "ip-udp:down", "tcp-gateway:up", "tcp-gateway:down", "udp-gateway:up", "udp-gateway:down"];

const STOPS = ["", ...["link", "link-ip", "ip-tcp", "ip-udp"].flatMap((name) => [name, `${name}:up`, `${name}:down`])];

export class DebugPage {
  constructor(app, main) {
    this.app = app;
    this.selected = "";
    this.where = el("select", { id: "hold-where", title: "What is held", "aria-label": "What is held" }, PLACES.map((name) => el("option", { value: name }, name ? `before ${name}` : "everything")));
    this.holdButton = el("button", { id: "debug-hold", title: "Hold what is chosen beside it (Space: everything)", onclick: () => app.command("hold", { where: this.where.value }) }, "Hold");
    this.stepCount = el("input", { type: "number", min: "1", max: "1000", value: "1", class: "short", title: "How many frames", "aria-label": "How many frames" });
    this.stepButton = el("button", { id: "debug-step", title: "Hand frames to their cores (s)", onclick: () => this.step({ count: +this.stepCount.value || 1 }) }, "Step");
    this.timerButton = el("button", { title: "Let stack time jump to the next timer", onclick: () => this.timer() }, "Next timer");
    this.goButton = el("button", { id: "debug-continue", title: "Go on (Space)", onclick: () => app.resume() }, "Continue");
    this.told = el("span", { id: "debug-told", class: "quiet" });
    this.expression = el("input", { type: "text", id: "break-expression", class: "filter", placeholder: "tcp.flags.syn and tcp.dstport == 80", title: "At a packet, or as: event retransmit and conn.cwnd < 4", spellcheck: "false", autocomplete: "off", "aria-label": "Where to stop: an expression" });
    this.at = el("select", { id: "break-at", title: "At which seam, and which way", "aria-label": "At which seam" }, STOPS.map((name) => el("option", { value: name }, name || "any seam")));
    this.once = el("input", { type: "checkbox" });
    this.after = el("input", { type: "number", id: "break-after", min: "0", max: "1000000000", value: "0", class: "short", title: "How many it lets pass before", "aria-label": "How many it lets pass before" });
    this.error = el("pre", { class: "error", id: "break-error", role: "alert", hidden: true });
    this.breakpoints = el("tbody");
    this.frames = el("tbody");
    this.frames.addEventListener("click", (event) => { const row = event.target.closest("tr"); if (row) this.choose(row.dataset.name); });
    this.nothing = el("p", { class: "quiet" });
    this.results = el("div", { id: "steps" });
    this.detail = new Detail(app, null, (name, value) => this.edit(name, value), document.getElementById("page"));
    this.delay = el("input", { type: "number", id: "held-ms", min: "1", max: "3600000", value: "100", class: "short", title: "ms", "aria-label": "Delay in ms" });
    this.keep = el("input", { type: "checkbox", title: "Leave checksums as they are, wrong on purpose" });
    this.actions = el("div", { class: "row", hidden: true }, [["Release", () => this.step({ frame: this.selected })], ["Drop", () => this.change("drop")], ["Duplicate", () => this.change("duplicate")],
      ["Delay", () => this.change("delay", { ms: +this.delay.value || 100 })], ["To the front", () => this.change("move", { place: 0 })], ["To the end", () => this.change("move", { place: -1 })]].map(([text, run]) => text === "Delay" ? [el("button", { class: "small", onclick: run }, text), el("label", { class: "quiet" }, this.delay, " ms")] : el("button", { class: "small", onclick: run }, text)),
      el("label", { class: "quiet" }, this.keep, " keep checksums when editing"));
    this.inject = new Inject(app);
    this.detail.clear("Choose a held frame; its fields can be changed with a click.");
    main.append(el("div", { class: "bar" }, this.holdButton, this.where, this.stepButton, this.stepCount, this.timerButton, this.goButton, this.told),
      el("div", { class: "debug" },
        el("div", { class: "debug-left" },
          el("section", { class: "panel" }, el("h2", {}, "Breakpoints"),
            el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); this.add(); } }, this.expression, this.at, el("label", {}, "after ", this.after), el("label", {}, this.once, " once"), el("button", { type: "submit", id: "break-add" }, "Add")),
            this.error, el("table", { id: "breakpoints" }, this.breakpoints)),
          el("section", { class: "panel grow" }, el("h2", {}, "Held frames"), this.nothing, el("div", { class: "scroller" }, el("table", { class: "table held", id: "held" }, this.frames))),
          el("section", { class: "panel" }, el("h2", {}, "What the last step did"), this.results),
          this.inject.element),
        el("div", { class: "debug-right" }, el("div", { class: "panel" }, this.actions), this.detail.element)));
    this.onStepped = () => this.drawSteps();
    app.addEventListener("stepped", this.onStepped);
    this.draw();
    this.drawSteps();
  }

  async step(args) {
    const done = await this.app.command("step", args);
    if (done) this.app.stepped(done);
  }

  async timer() {
    const done = await this.app.command("step.timer", {});
    if (done) this.app.stepped(done);
  }

  async add() {
    this.error.hidden = true;
    try {
      const done = await this.app.ask("break.add", { expression: this.expression.value, at: this.at.value, once: this.once.checked, after: +this.after.value || 0 });
      this.expression.value = "";
      toast(done.said, "good");
    } catch (error) {
      this.error.hidden = false;
      say(this.error, error.message);
    }
  }

  async change(what, more = {}) {
    const frame = this.selected;
    const done = await this.app.command("held.change", { what, frame, ...more });
    if (done && what === "drop") this.choose("");
  }

  async edit(name, value) {
    const done = await this.app.command("held.edit", { frame: this.selected, changes: { [name]: value }, checksums: this.keep.checked ? "keep" : "mend" });
    if (done) this.detail.show(done);
  }

  async choose(name) {
    this.selected = name;
    this.actions.hidden = !name;
    for (const row of this.frames.children) row.classList.toggle("selected", row.dataset.name === name);
    if (!name) { this.detail.clear("Choose a held frame; its fields can be changed with a click."); return; }
    const whole = await this.app.tell("held.frame", { frame: name });
    if (whole && this.selected === name) this.detail.show(whole);
  }

  tick(data) { if (data.debug !== undefined) this.draw(); }

  draw() {
    const debug = this.app.debug;
    const held = Boolean(debug?.held);
    this.holdButton.disabled = !debug;
    for (const button of [this.stepButton, this.timerButton, this.goButton]) button.disabled = !held;
    let told = "the stack is not running; start it with: lvlip up";
    if (debug) {
      told = held ? `held by ${debug.mine ? "this page" : debug.holder || "somebody"} since ${new Date(debug.since * 1000).toLocaleTimeString()}${debug.at.length ? `, before ${debug.at.join(", ")}` : ""}; the peers' timers go on`
        : "the stack runs";
      if (held && debug.stop) told += `; stopped by breakpoint ${debug.stop.breakpoint} in ${debug.stop.process}${debug.stop.event ? `: ${debug.stop.event}` : ""}`;
      if (debug.error) told = debug.error;
    }
    say(this.told, told);
    const points = debug?.breakpoints ?? [];
    const shown = JSON.stringify(points);
    if (this.breakpoints.dataset.shown !== shown) {
      this.breakpoints.dataset.shown = shown;
      this.breakpoints.replaceChildren(...points.map((one) => el("tr", { class: one.enabled ? "" : "quiet" },
        el("td", {}, el("input", { type: "checkbox", checked: one.enabled, title: "On or off", onchange: () => this.app.command("break.change", { number: one.number, enabled: !one.enabled }) })),
        el("td", { class: "num" }, String(one.number)), el("td", {}, el("code", {}, one.text)), el("td", { class: "quiet" }, `met ${format.count(one.met)}, stopped ${format.count(one.stops)}`),
        el("td", {}, el("button", { class: "small", onclick: () => this.app.command("break.change", { number: one.number, remove: true }) }, "Remove")))));
    }
    const frames = debug?.frames ?? [];
    say(this.nothing, held ? (debug.count ? `${format.count(debug.count)} held${debug.count > frames.length ? `, the first ${frames.length} shown` : ""}` : "Nothing is held yet; a timer can be stepped.") : "Frames wait here while the stack is held.");
    this.frames.replaceChildren(...frames.map((one) => el("tr", { "data-name": one.name, class: one.name === this.selected ? "selected" : "" },
      el("td", {}, one.name), el("td", {}, `${one.way === "up" ? "↑" : "↓"} ${one.seam}`), el("td", { class: "num" }, String(one.length)), el("td", { class: "wide" }, one.text, one.due ? el("span", { class: "warn" }, " delayed") : null))));
    if (!frames.some((one) => one.name === this.selected)) this.choose(this.next(frames));
  }

  // Which held frame is shown when the one that was is not held any more: what the last step made of it, else what a step takes.
  next(frames) {
    const made = (this.app.steps?.at(-1)?.output ?? []).map((frame) => frame.name);
    return (frames.find((one) => made.includes(one.name)) ?? frames[0])?.name ?? "";
  }

  drawSteps() {
    const steps = this.app.steps ?? [];
    if (!steps.length) { this.results.replaceChildren(el("p", { class: "quiet" }, "Nothing was stepped yet.")); return; }
    this.results.replaceChildren(...steps.slice(-8).map((step) => el("div", { class: "step-result" },
      el("div", {}, el("b", {}, step.process), step.frame ? (step.left ? ` let out ${step.frame.name}: ` : ` took ${step.frame.name}: `) : " ran a timer", el("code", {}, step.frame?.text ?? "")),
      step.events.map((event) => el("div", { class: "quiet" }, `• ${event.text}`)),
      step.output.map((frame) => el("div", {}, `→ ${frame.name} ${frame.way === "up" ? "↑" : "↓"} ${frame.seam}: `, el("code", {}, frame.text))),
      step.passed.map((text) => el("div", { class: "quiet" }, `→ ${text}, went on`)))));
  }

  move(by) {
    const frames = this.app.debug?.frames ?? [];
    if (!frames.length) return;
    const at = frames.findIndex((one) => one.name === this.selected);
    const next = { up: at - 1, down: at + 1, pageup: at - 10, pagedown: at + 10, first: 0, last: frames.length - 1 }[by];
    this.choose(frames[Math.max(0, Math.min(frames.length - 1, next))].name);
  }

  fields() { this.detail.enter(); }
  search() { this.expression.focus(); }
  end() { this.app.removeEventListener("stepped", this.onStepped); }
}
