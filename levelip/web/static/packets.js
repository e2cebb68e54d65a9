// The packet list, and beside it the chosen packet's fields and bytes.

import { el, say } from "./dom.js";
import * as format from "./format.js";
import { VirtualList } from "./list.js";
import { Detail } from "./detail.js";

export class PacketsPage {
  // `rest[0]`: a filter
  constructor(app, main, rest) {
    this.app = app;
    this.panel = new PacketPanel(app, main, { filter: rest[0] ?? app.packetFilter ?? "", keep: true });
  }

  tick(data) { this.panel.tick(data); }
  seek(seconds) { this.panel.seek(seconds); }
  move(by) { this.panel.list.move(by); }
  openSelected() { this.panel.list.openSelected(); }
  toggleFollow() { this.panel.toggleFollow(); }
  why() { return this.panel.why(); }
  fields() { this.panel.detail.enter(); }
  search() { this.panel.search(); }
  end() { this.panel.end(); }
}

export class PacketPanel {
  // options: conn; filter; keep: remember the filter
  constructor(app, main, options) {
    this.app = app;
    this.options = options;
    this.view = 0;
    this.filter = el("input", { type: "search", class: "filter", id: "filter", "aria-label": "Filter", value: options.filter ?? "", spellcheck: "false", autocomplete: "off",
      placeholder: "Filter: tcp.flags.syn, ip.src == 10.0.0.1, event retransmit and conn.cwnd < 4", onchange: () => this.open(), onsearch: () => this.open() });
    this.error = el("pre", { class: "error filter-error", role: "alert", hidden: true });
    this.count = el("span", { class: "quiet", id: "packet-count" });
    this.followButton = el("button", { class: "small toggle", title: "Follow what comes (f)", onclick: () => this.toggleFollow() }, "Follow");
    this.frames = el("input", { type: "checkbox", checked: true, onchange: () => this.open() });
    this.events = el("input", { type: "checkbox", checked: true, onchange: () => this.open() });
    const seams = app.about()?.kind === "capture" ? (app.about().seams.length ? app.about().seams : ["link"]) : app.hello.seams;
    this.seams = new Map(seams.map((name) => [name, el("input", { type: "checkbox", checked: true, onchange: () => this.open() })]));
    this.bar = el("div", { class: "bar" }, this.filter,
      el("span", { class: "checks" }, el("label", {}, this.frames, " packets"), el("label", {}, this.events, " events"),
        [...this.seams].map(([name, box]) => el("label", { class: "seam-check" }, box, ` ${name}`))),
      this.count, el("span", { class: "space" }), this.followButton);
    this.list = new VirtualList({
      label: "Packets", rowHeight: 20, make: () => this.make(), draw: (element, row) => this.draw(element, row),
      fetch: (at, count) => app.ask("rows", { view: this.view, at, count }),
      choose: (row) => this.choose(row), open: (row) => this.openRow(row),
    });
    this.nothing = el("p", { class: "quiet pad nothing", hidden: true });
    this.list.following = (follow) => this.followButton.classList.toggle("on", follow);
    this.list.following(true);
    this.detail = new Detail(app, (text) => this.narrow(text), null, this.list.element);
    main.append(this.bar, this.error, el("div", { class: "split" },
      el("div", { class: "list-frame" }, el("div", { class: "list-head packet-row" }, ["No.", "Time", "Seam", "Source", "Destination", "Proto", "Length", "Info"].map((title) => el("span", {}, title))), this.nothing, this.list.element),
      this.detail.element));
    this.open();
  }

  async open() {
    this.list.reset();
    say(this.count, "…"); // how many passed another filter is no answer to this one
    delete this.count.dataset.scanned;
    this.nothing.hidden = true;
    if (this.view) this.app.ask("close_view", { view: this.view }).catch(() => {});
    this.view = 0;
    const seams = [...this.seams].filter(([, box]) => box.checked).map(([name]) => name);
    const filter = this.filter.value.trim();
    if (this.options.keep) this.app.packetFilter = filter;
    const request = { source: this.app.source, conn: this.options.conn, filter, frames: this.frames.checked, events: this.events.checked,
      seams: seams.length === this.seams.size ? null : seams };
    const number = this.opening = (this.opening ?? 0) + 1;
    let opened;
    try {
      opened = await this.app.ask("view", request);
    } catch (error) {
      if (this.opening !== number) return;
      this.error.hidden = false;
      say(this.error, error.message);
      this.filter.setAttribute("aria-invalid", "true");
      say(this.count, "");
      this.list.update(0, 0);
      return;
    }
    if (this.opening !== number) { this.app.ask("close_view", { view: opened.view }).catch(() => {}); return; }
    this.error.hidden = true;
    this.filter.removeAttribute("aria-invalid");
    if (this.ended) { this.app.ask("close_view", { view: opened.view }).catch(() => {}); return; }
    this.view = opened.view;
    this.list.follow = this.app.cursor === null;
    this.list.following(this.list.follow);
    this.show(opened.start, opened.count, opened.scanned);
    if (this.app.cursor !== null) this.seek(this.app.cursor);
  }

  // One more condition: a field was clicked.
  narrow(text) {
    const { value } = this.filter;
    this.filter.value = value.trim() ? `${value.trim()} and ${text}` : text;
    this.open();
  }

  show(start, count, scanned) {
    this.list.update(start, count);
    let text = format.several(count - start, "row");
    if (scanned < 1) text += `, searching: ${format.percent(scanned)}`;
    say(this.count, text);
    this.count.dataset.scanned = scanned;
    const none = count === start && scanned >= 1;
    if (none && this.nothing.hidden) {
      this.chosen = undefined; // what was asked of it comes too late
      this.detail.clear("Choose a packet or an event.");
    }
    this.nothing.hidden = !none;
    if (none) say(this.nothing, this.whyNothing());
  }

  whyNothing() {
    const { app } = this, boxes = [this.frames, this.events, ...this.seams.values()];
    if (this.filter.value.trim() || boxes.some((box) => !box.checked)) return "Nothing of what was seen passes this filter.";
    if (this.options.conn) return "Nothing of this connection was seen.";
    if (!app.live) return "There is nothing in it.";
    return app.settings.listening ? "Nothing was seen yet. What crosses the seams that are listened to comes here (Stack, Listening)." : "Nobody listens: see Stack, Listening.";
  }

  tick(data) {
    const mine = data.views?.[this.view];
    if (mine) this.show(...mine);
  }

  async seek(seconds) {
    if (!this.view) return;
    if (seconds === null) {
      this.list.follow = true;
      this.list.following(true);
      this.list.stick();
      return;
    }
    const found = await this.app.tell("seek", { view: this.view, time: seconds });
    if (found) { this.list.centre(found.position); this.list.selected = Math.min(found.position, this.list.count - 1); this.list.schedule(); }
  }

  make() {
    const element = el("div", { class: "packet-row" }, Array.from({ length: 8 }, () => el("span", {}, "")));
    element.cells = [...element.children].map((cell) => cell.appendChild(new Text()));
    return element;
  }

  draw(element, row) {
    const { cells } = element;
    if (!row) {
      if (element.empty) return;
      element.empty = true;
      element.className = "packet-row list-row pending";
      for (const cell of cells) cell.data = "";
      return;
    }
    element.empty = false;
    const [n, seconds, kind] = row;
    put(cells[0], String(n + 1));
    put(cells[1], format.seconds(seconds));
    if (kind === "f") {
      const [, , , seam, way, source, destination, protocol, length, text, , flags] = row;
      element.className = `packet-row list-row proto-${protocol.toLowerCase()}${/[SFR]/.test(flags) ? " edge" : ""}${flags.includes("R") ? " reset" : ""}`;
      put(cells[2], `${way === "up" ? "↑" : "↓"} ${seam}`);
      put(cells[3], source);
      put(cells[4], destination);
      put(cells[5], protocol);
      put(cells[6], String(length));
      put(cells[7], flags ? `[${flags}] ${text}` : text);
    } else if (kind === "e") {
      const [, , , process, , conn, text, severity] = row;
      element.className = `packet-row list-row event severity-${severity}`;
      put(cells[2], `• ${process}`);
      const [local, remote] = conn.split(">");
      put(cells[3], (local ?? "").replace(/:(\d+)$/, ".$1"));
      put(cells[4], (remote ?? "").replace(/:(\d+)$/, ".$1"));
      put(cells[5], row[4]);
      put(cells[6], "");
      put(cells[7], text);
    } else {
      element.className = "packet-row list-row notice";
      for (const i of [2, 3, 4, 5, 6]) put(cells[i], "");
      put(cells[7], row[3]);
    }
    element.classList.toggle("selected", element.position === this.list.selected);
  }

  choose(row) {
    this.chosen = row[0];
    this.app.timeline.mark(row[1]);
    this.shown = this.app.tell("packet", { source: this.app.source, n: row[0] }).then((packet) => { if (packet && this.chosen === row[0]) this.detail.show(packet); });
  }

  openRow(row) {
    const conn = row[2] === "f" ? row[10] : row[2] === "e" ? row[5] : "";
    if (conn && !this.options.conn) this.app.to("connection", conn, "ladder");
  }

  // The frame that is chosen, or that the event is about; else the connection.
  why() {
    const row = this.list.row(this.list.selected);
    if (!row) return false;
    const conn = row[2] === "f" ? row[10] : row[2] === "e" ? row[5] : "";
    Promise.resolve(this.shown).then(() => { // what was chosen a moment ago is asked for still
      const subject = this.detail.frame || conn;
      if (!this.ended) this.app.to("why", ...(subject ? [subject] : []));
    });
    return true;
  }

  toggleFollow() { this.app.seek(this.list.follow ? (this.list.row(this.list.count - 1)?.[1] ?? null) : null); }
  search() { this.filter.focus(); this.filter.select(); }

  end() {
    this.ended = true;
    this.list.end();
    if (this.view) this.app.ask("close_view", { view: this.view }).catch(() => {});
  }
}

function put(text, value) { if (text.data !== value) text.data = value; }
