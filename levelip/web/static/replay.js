// A recording run again: its calls, what came of each, the state behind it, and what changed between two instants.

import { el, say, toast } from "./dom.js";
import * as format from "./format.js";
import { VirtualList } from "./list.js";
import { frameLink, withLinks } from "./why.js";

const STATE_WAIT_MS = 60;
const FIRST = ["tx", "rx", "rto", "congestion", "recovery", "timers"]; // of a connection; the others behind them, as they come
const GROUPS_OPEN = new Set(["", ...FIRST]);

export class ReplayPage {
  constructor(app, main, rest) {
    this.app = app;
    const about = app.about();
    if (about?.kind === "recording") this.panel = new ReplayPanel(app, main, { layer: rest[0] ?? app.replayLayer, place: rest[1] });
    else this.offer(main);
  }

  // Nothing to run again: say what can be.
  offer(main) {
    const { app } = this;
    const button = el("button", { id: "flight", disabled: !app.stack?.running, onclick: () => app.openFlight() }, "Open what the flight recorders hold");
    this.flight = app.live ? button : null;
    main.append(el("div", { class: "offer" }, el("h2", {}, "Replay"),
      el("p", {}, app.live ? "The running stack itself cannot be run again; what just happened can." : "A capture cannot be run again: it holds packets, and not what entered each layer."),
      el("p", {}, this.flight, " ", el("button", { onclick: () => app.picker.click() }, "Open a recording…")),
      el("p", { class: "quiet" }, "A recording: ", el("code", {}, "lvlip record start DIR"), ", later ", el("code", {}, "lvlip record stop"), "; choose all files of the directory together.")));
  }

  tick() { if (this.flight) this.flight.disabled = !this.app.stack?.running; }
  seek(seconds) { this.panel?.seek(seconds); }
  move(by) { this.panel?.move(by); }
  pan(share) { this.panel?.move(share > 0 ? "down" : "up"); }
  mark() { this.panel?.mark(); }
  check() { this.panel?.check(); }
  why() { return this.panel?.why(); }
  search() { this.panel?.search(); }
  end() { this.panel?.end(); }
}

export class ReplayPanel {
  // options: layer; conn: whose state is shown first; place: where to go
  constructor(app, main, options) {
    this.app = app;
    this.layers = app.about().layers;
    this.conn = (options.conn ?? "").split("#")[0];
    this.picked = Boolean(this.conn); // else it is the one about which something was decided last
    this.marked = null; // the call behind which the other instant lies, or null: before this call
    this.here = null;
    const names = this.layers.map((one) => one.layer);
    const layer = names.includes(options.layer) ? options.layer : names.includes("tcp") ? "tcp" : names[0];
    this.select = el("select", { id: "replay-layer", title: "Which layer's calls", onchange: () => this.change(this.select.value) }, names.map((name) => el("option", { value: name }, name)));
    this.place = el("input", { type: "text", id: "replay-place", class: "filter", spellcheck: "false", autocomplete: "off", "aria-label": "Go to",
      placeholder: "#123, 1.5, 20ms, 19:22:47.9, tcp-3fa21-77, or: event retransmit and conn.cwnd < 10",
      onkeydown: (event) => { if (event.key === "Enter") this.goto(event.shiftKey); } });
    this.told = el("span", { class: "quiet", id: "replay-told" });
    this.error = el("pre", { class: "error filter-error", id: "replay-error", hidden: true });
    this.checkButton = el("button", { id: "replay-check", title: "Run all of it, and hold it against what was recorded (c)", onclick: () => this.check() }, "Same again?");
    this.checked = el("div", { class: "checked", id: "replay-checked", hidden: true });
    const button = (text, title, run, id) => el("button", { class: "icon", title, id, "aria-label": title, onclick: run }, text);
    this.list = new VirtualList({
      label: "Calls", rowHeight: 20, make: () => this.make(), draw: (element, row) => this.draw(element, row),
      fetch: (at, count) => this.fetch(at, count),
      choose: (row) => this.chosen(row), open: () => this.why(),
    });
    this.idle = el("input", { type: "checkbox", onchange: () => this.change(this.layer) });
    this.came = el("div", { class: "came", id: "replay-came" }, el("p", { class: "quiet" }, "Choose a call."));
    this.markButton = el("button", { class: "small", id: "replay-mark", title: "What changed is counted from here on (m)", onclick: () => this.mark() }, "Mark");
    this.since = el("span", { class: "quiet", id: "replay-since" });
    this.changes = el("tbody", { id: "replay-changes" });
    this.whose = el("select", { id: "replay-conn", title: "Whose state", onchange: () => { this.conn = this.whose.value; this.picked = true; this.refresh(); } });
    this.search_ = el("input", { type: "search", id: "replay-search", placeholder: "part of a name", spellcheck: "false", "aria-label": "Part of a name", oninput: () => this.drawState() });
    this.figures = el("p", { class: "mono", id: "replay-figures" });
    this.state = el("div", { id: "replay-state", class: "state-tree" });
    this.changeInput = el("input", { type: "text", class: "filter", id: "replay-whatif", spellcheck: "false", autocomplete: "off", "aria-label": "What if the next packet",
      placeholder: "drop, or: edit tcp.window_size_value=0 then silence for 5s" });
    this.future = el("pre", { class: "future", id: "replay-future", hidden: true });
    main.append(
      el("div", { class: "bar" }, this.select,
        el("span", { class: "group" }, button("|◀", "The first call (Home)", () => this.move("first")), button("◀", "One call back (↑)", () => this.move("up"), "replay-back"), button("▶", "One call on (↓)", () => this.move("down"), "replay-next"), button("▶|", "The last call (End)", () => this.move("last"))),
        this.place, el("button", { class: "small", title: "The next call of which it is true (Enter)", id: "replay-goto", onclick: () => this.goto(false) }, "Go to"), el("button", { class: "small", title: "The last call before of which it is true (Shift+Enter)", onclick: () => this.goto(true) }, "Back to"),
        this.checkButton, el("label", { class: "quiet", title: "Also calls of which nothing came" }, this.idle, " idle calls"), this.told),
      this.error, this.checked,
      el("div", { class: "replay" },
        el("div", { class: "list-frame" }, el("div", { class: "list-head call-row" }, ["Call", "Time", "Seam", "What", "Decisions"].map((title) => el("span", {}, title))), this.list.element),
        el("aside", { class: "replay-side" },
          el("section", { class: "panel" }, el("h2", {}, "What came of it"), this.came),
          this.changed = el("section", { class: "panel" }, el("div", { class: "row" }, el("h2", {}, "What changed"), this.since, el("span", { class: "space" }), this.markButton), el("table", { class: "changes" }, this.changes)),
          this.stated = el("section", { class: "panel" }, el("div", { class: "row" }, el("h2", {}, "State"), this.whose, this.search_), this.figures, this.state),
          el("section", { class: "panel" }, el("h2", {}, "What if the next packet were"),
            el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); this.whatif(); } }, this.changeInput, el("button", { type: "submit", id: "replay-whatif-run" }, "Run")), this.future))));
    this.list.follow = false;
    this.change(layer, options.place);
  }

  // places

  change(layer, place) {
    const when = this.row?.t ?? this.app.cursor;
    if (layer === this.layer && this.row) place ??= `#${this.row.call + 1}`; // the same call, in the other list
    this.layer = this.app.replayLayer = layer;
    this.about = this.layers.find((one) => one.layer === layer);
    this.select.value = layer;
    this.marked = this.here = this.row = null;
    this.list.reset();
    this.list.update(0, 1); // how many there are comes with the first
    if (place) this.go(place).catch((error) => toast(error.message));
    else if (when !== null && when !== undefined) this.seek(when);
    else this.show(0);
  }

  ask(name, more) { return this.app.ask(name, { source: this.app.source, layer: this.layer, idle: this.idle.checked, ...more }); }

  async fetch(at, count) {
    const { layer } = this, idle = this.idle.checked;
    const found = await this.ask("replay.steps", { at, count });
    if (layer === this.layer && idle === this.idle.checked && found.all !== this.list.count) this.list.update(0, found.all);
    return found;
  }

  async seek(seconds) {
    if (seconds === null) { this.counted().then(() => this.show(this.list.count - 1, false), () => {}); return; }
    this.wanted = seconds;
    if (this.seeking) return;
    this.seeking = true;
    while (this.wanted !== null && !this.ended) {
      const { wanted, layer } = this;
      this.wanted = null;
      try {
        await this.counted();
        const found = await this.ask("replay.time", { time: wanted });
        if (layer === this.layer) this.show(found.position, false);
      } catch (error) { toast(error.message); }
    }
    this.seeking = false;
  }

  // The list knows its length once some of it was fetched.
  async counted() { if (this.list.count <= 1) await this.fetch(0, 1); }

  // The call at this position is the last that was run.
  show(position, marks = true) {
    this.quiet = !marks;
    if (!this.list.sees(position)) this.list.centre(position);
    this.list.select(position);
  }

  async go(place, back = false) {
    const { layer } = this, at = this.here ?? this.about.first;
    await this.counted();
    const found = await this.ask("replay.find", { at: Math.max(back ? at - 1 : at, this.about.first), place, back });
    if (layer === this.layer) this.show(found.position);
  }

  async goto(back) {
    const place = this.place.value.trim();
    if (!place) return;
    this.error.hidden = true;
    say(this.told, "looking…");
    try {
      await this.go(place, back);
      this.place.blur();
    } catch (error) {
      this.error.hidden = false;
      say(this.error, error.message);
    }
    this.position();
  }

  move(by) { this.list.move(by); }

  mark() {
    this.marked = this.marked === this.here ? null : this.here;
    this.refresh();
  }

  position() {
    const { row } = this;
    say(this.told, row ? `#${row.call} of #${this.about.first} to #${this.about.stop - 1}, ${row.t.toFixed(6)} s` : "");
  }

  // one call

  chosen(row) {
    this.row = row;
    this.here = row.call + 1;
    const about = row.events.find((one) => one.conn)?.conn;
    if (about && !this.picked && this.layer === "tcp") this.conn = about;
    if (!this.quiet) this.app.timeline.mark(row.t);
    this.quiet = false;
    this.position();
    this.drawCame();
    this.refresh();
  }

  make() {
    const element = el("div", { class: "call-row" }, Array.from({ length: 5 }, () => el("span", {}, "")));
    element.cells = [...element.children].map((cell) => cell.appendChild(new Text()));
    return element;
  }

  draw(element, row) {
    const { cells } = element;
    const selected = element.position === this.list.selected ? " selected" : "";
    if (!row) { element.className = `call-row list-row pending${selected}`; for (const cell of cells) cell.data = ""; return; }
    const [seam, what] = said(row);
    const idle = !row.in && !row.out.length && !row.events.length && row.kind === "other" && !row.divergence;
    element.className = `call-row list-row${idle ? " idle" : ""}${row.kind === "in" ? " incoming" : ""}${row.divergence || row.raised ? " diverged" : ""}${worst(row)}${selected}`;
    const texts = [`#${row.call}`, row.t.toFixed(6), seam, what, row.events.map((one) => one.text).join("; ")];
    texts.forEach((text, i) => { if (cells[i].data !== text) cells[i].data = text; });
  }

  drawCame() {
    const { row } = this;
    const frame = (one, arrow) => el("div", { class: "frame-line" }, el("span", { class: "quiet" }, `${arrow} ${one.way === "up" ? "↑" : one.way === "down" ? "↓" : ""} ${one.seam} `), el("code", {}, one.text), " ", one.id ? frameLink(one.id) : null);
    this.came.replaceChildren(...[
      row.in ? frame(row.in, "in") : el("div", {}, el("code", {}, row.text)),
      ...row.events.map((one) => el("div", { class: `decision severity-${one.severity}` }, el("span", { class: "kind" }, one.kind), one.text.startsWith(one.kind) ? one.text.slice(one.kind.length) : ` ${one.text}`,
        one.reason ? el("div", { class: "quiet" }, el("b", {}, one.reason), ` ${one.rule}`) : null)),
      ...row.out.map((one) => frame(one, "out")),
      row.raised ? el("p", { class: "error" }, `raised ${row.raised}`) : null,
      row.divergence ? divergence(row.divergence) : null,
      !row.events.length && !row.out.length && !row.raised ? el("p", { class: "quiet" }, "Nothing came out, and nothing was decided.") : null,
    ].filter(Boolean));
  }

  // states

  refresh() {
    if (this.waiting || this.here === null) return;
    this.waiting = true;
    this.old(true);
    setTimeout(async () => {
      const { layer, here, conn, marked } = this;
      const since = marked ?? here - 1;
      let state = null;
      try {
        state = await this.app.ask("replay.state", { source: this.app.source, layer, at: here, since, conn: layer === "tcp" ? conn : "" });
      } catch (error) { if (!this.ended) toast(error.message); }
      this.waiting = false;
      if (this.ended) return;
      if (layer !== this.layer || here !== this.here || conn !== this.conn || marked !== this.marked) { this.refresh(); return; }
      this.old(!state);
      if (state) { this.data = { ...state, layer, here, conn }; this.drawChanges(); this.drawWhose(); this.drawState(); }
    }, STATE_WAIT_MS);
  }

  // What is shown is of another instant, as long as the answer is on its way.
  old(yes) { for (const one of [this.changed, this.stated]) one.classList.toggle("stale", yes); }

  drawChanges() {
    const { data } = this;
    this.markButton.classList.toggle("on", this.marked !== null);
    say(this.markButton, this.marked === null ? "Mark" : this.marked === this.here ? "Unmark" : "Mark here");
    say(this.since, this.marked === null ? `by call #${this.here - 1}` : between(data));
    this.changes.replaceChildren(...(data.changes.length ? data.changes.slice(0, 300).map(([name, before, after]) => el("tr", {}, el("td", {}, name), el("td", { class: "quiet" }, before), el("td", {}, "→"), el("td", {}, after)))
      : [el("tr", {}, el("td", { class: "quiet", colspan: "4" }, "nothing"))]));
    if (data.changed > 300) this.changes.append(el("tr", {}, el("td", { class: "quiet" }, `and ${format.count(data.changed - 300)} more`)));
  }

  drawWhose() {
    const { sockets } = this.data;
    this.whose.hidden = this.layer !== "tcp";
    const names = sockets.map((one) => `${one.local}:${one.local_port}>${one.remote}:${one.remote_port}`);
    if (this.conn && !names.includes(this.conn)) names.push(this.conn);
    const shown = names.join();
    if (this.whose.dataset.shown !== shown) {
      this.whose.dataset.shown = shown;
      this.whose.replaceChildren(el("option", { value: "" }, "all of the layer"), ...names.map((name) => el("option", { value: name }, name.replace(">", " ↔ "))));
    }
    if (!this.conn && !this.picked && names.length) { [this.conn] = names; this.refresh(); }
    this.whose.value = this.conn;
    const socket = sockets.find((one, i) => names[i] === this.conn);
    say(this.figures, socket ? figures(socket) : this.layer === "tcp" && this.conn ? "not there at this instant" : "");
  }

  drawState() {
    if (!this.data) return;
    const { rows, all, changes } = this.data;
    const wanted = this.search_.value.trim().toLowerCase();
    const changed = new Map(changes.map(([name, before]) => [name, before]));
    const groups = new Map();
    for (const row of rows) {
      if (wanted && !row[0].toLowerCase().includes(wanted)) continue;
      const dot = row[0].search(/[.[]/), group = dot < 0 ? "" : row[0].slice(0, dot);
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(row);
    }
    this.open ??= new Set(GROUPS_OPEN);
    const rank = ([group]) => (FIRST.indexOf(group) + 1 || FIRST.length + 1);
    const ordered = [...groups].sort((a, b) => rank(a) - rank(b));
    let left = 1500;
    this.state.replaceChildren(...ordered.map(([group, those]) => {
      const shown = those.slice(0, Math.max(0, left));
      left -= shown.length;
      const lines = shown.map(([name, value]) => el("div", { class: changed.has(name) ? "line changed" : "line", title: changed.has(name) ? `was ${changed.get(name)}` : name }, el("span", { class: "label" }, name), el("span", { class: "value" }, value)));
      if (shown.length < those.length) lines.push(el("p", { class: "quiet" }, `and ${format.count(those.length - shown.length)} more; type a part of a name`));
      if (!group) return el("div", {}, lines);
      return el("details", { open: Boolean(wanted) || this.open.has(group), ontoggle: (event) => { if (!wanted) this.open[event.currentTarget.open ? "add" : "delete"](group); } }, el("summary", {}, `${group} `, el("span", { class: "quiet" }, String(those.length))), lines);
    }));
    if (all > rows.length) this.state.append(el("p", { class: "quiet" }, `the first ${format.count(rows.length)} of ${format.count(all)} values; choose a connection`));
    if (!groups.size) this.state.append(el("p", { class: "quiet" }, wanted ? "no such name" : "nothing"));
  }

  // the whole

  async check() {
    this.checkButton.disabled = true;
    this.checked.hidden = false;
    this.checked.replaceChildren(el("span", { class: "quiet" }, "running all of it…"));
    const found = await this.app.tell("replay.check", { source: this.app.source });
    this.checkButton.disabled = false;
    if (this.ended) return;
    if (!found) { this.checked.hidden = true; return; }
    this.checked.replaceChildren(...found.layers.map((one) => el("div", {},
      el("b", { class: one.same ? "good" : "bad" }, `${one.layer}: ${one.same ? "the same" : "not the same"} `),
      el("span", { class: "quiet" }, `${format.count(one.calls)} calls, ${format.count(one.frames)} frames, ${format.count(one.events)} events${one.raised ? `, ${one.raised} raised` : ""}${one.torn ? `; ${one.torn}` : ""}`),
      one.divergence ? divergence(one.divergence, () => { if (one.layer !== this.layer) this.change(one.layer); this.go(`#${one.divergence.call + 1}`).catch((error) => toast(error.message)); }) : null)));
  }

  async whatif() {
    this.future.hidden = false;
    say(this.future, "running…");
    try {
      const done = await this.app.ask("replay.whatif", { source: this.app.source, layer: this.layer, at: this.here, change: this.changeInput.value });
      say(this.future, done.lines.join("\n"));
    } catch (error) { say(this.future, error.message); }
  }

  why() {
    const id = this.row?.in?.id || this.row?.out.find((one) => one.id)?.id;
    if (id) this.app.to("why", id);
    else if (this.conn) this.app.to("why", this.conn);
    return true;
  }

  search() { this.place.focus(); this.place.select(); }
  end() { this.ended = true; this.list.end(); }
}

// [seam, text] of a call in the list.
function said(row) {
  // Ports, flags and numbers first: addresses are in what came of it.
  const brief = (text) => text.replace(/^IP \S+\.(\d+) > \S+\.(\d+): Flags (\[\S*\]), /, "$1 > $2 $3 ");
  const arrow = (one) => `${one.way === "up" ? "↑" : one.way === "down" ? "↓" : ""} ${one.seam}`.trim();
  if (row.in) return [arrow(row.in), brief(row.in.text)];
  if (row.out.length) return [arrow(row.out[0]), `${brief(row.out[0].text)}${row.out.length > 1 ? `  and ${row.out.length - 1} more` : ""}`];
  return ["", row.text];
}

function worst(row) {
  for (const severity of ["error", "warning", "notice"]) if (row.events.some((one) => one.severity === severity)) return ` severity-${severity}`;
  return row.events.some((one) => one.kind === "state") ? " severity-state" : "";
}

function divergence(found, go) {
  return el("div", { class: "divergence" },
    el("p", {}, el("b", { class: "bad" }, `This is not what was recorded: the first ${found.what} that differs is of call `), go ? el("button", { class: "small", onclick: go }, `#${found.call}`) : `#${found.call}`, `, ${found.time} s${found.seam ? ` at ${found.seam}` : ""}`),
    el("dl", { class: "facts" }, el("div", {}, el("dt", {}, "recorded"), el("dd", {}, el("code", {}, found.recorded))), el("div", {}, el("dt", {}, "replayed"), el("dd", {}, el("code", {}, found.replayed)))),
    found.differs.map((line) => el("div", { class: "mono" }, withLinks(line))));
}

// The two instants, the earlier first.
function between(data) {
  const place = (at, t) => `#${at} (${t.toFixed(6)} s)`;
  const ends = [place(data.since, data.since_t), place(data.at, data.t)];
  if (data.since > data.at) ends.reverse();
  return `from ${ends[0]} to ${ends[1]}, ${format.ms(Math.abs(data.t - data.since_t) * 1000) || "0 ms"}`;
}

function figures(one) {
  const info = one.info ?? {};
  const timers = Object.entries(one.timers ?? {}).map(([name, ns]) => `${name} in ${format.ms(ns / 1e6) || "0 ms"}`);
  return [one.state.replaceAll("_", "-"), info.snd_cwnd !== undefined && `cwnd ${info.snd_cwnd}`,
    info.snd_ssthresh !== undefined && `ssthresh ${info.snd_ssthresh < 1 << 28 ? info.snd_ssthresh : "∞"}`, info.rtt && `RTT ${format.ms(info.rtt / 1000)}`,
    info.rto && `RTO ${format.ms(info.rto / 1000)}`, info.unacked !== undefined && `unacked ${info.unacked}`, info.lost ? `lost ${info.lost}` : false, ...timers].filter(Boolean).join(" · ");
}
