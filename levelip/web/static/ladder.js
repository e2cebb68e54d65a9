// The ladder: both ends as lines, a segment as an arrow between them, decisions beside the end that made them.

import { el, say, svg } from "./dom.js";
import * as format from "./format.js";
import { VirtualList } from "./list.js";

const NOTES = { retransmission: "sent again", spurious_retransmission: "sent again for nothing", out_of_order: "out of order", lost_segment: "bytes before it not seen",
  duplicate_ack: "duplicate ACK", window_update: "window update", zero_window: "zero window", window_full: "window full", keep_alive: "keep-alive",
  zero_window_probe: "zero-window probe", dsack: "D-SACK", beyond_window: "far outside the window" };
const BAD = new Set(["retransmission", "spurious_retransmission", "lost_segment", "zero_window", "beyond_window"]);

export class LadderTab {
  constructor(app, main, conn) {
    this.app = app;
    this.conn = conn;
    this.view = 0;
    this.choice = el("select", { title: "Decisions", onchange: () => this.open() }, [["main", "decisions that matter"], ["all", "all decisions"], ["none", "segments alone"]].map(([value, text]) => el("option", { value }, text)));
    this.count = el("span", { class: "quiet", id: "ladder-count" });
    this.followButton = el("button", { class: "small toggle", title: "Follow what comes (f)", onclick: () => this.toggleFollow() }, "Follow");
    const [local, remote] = conn.split("#")[0].split(">");
    this.list = new VirtualList({ label: "Ladder", rowHeight: 24, make: () => this.make(), draw: (element, row) => this.draw(element, row),
      fetch: (at, count) => app.ask("rows", { view: this.view, at, count }), choose: (row) => app.timeline.mark(row[0]), open: (row) => app.seek(row[0]) });
    this.list.following = (follow) => this.followButton.classList.toggle("on", follow);
    this.empty = el("p", { class: "quiet pad", hidden: true });
    main.append(el("div", { class: "bar" }, this.choice, this.count, el("span", { class: "space" }), this.followButton), this.empty,
      el("div", { class: "list-frame" }, el("div", { class: "list-head ladder-row" }, el("span", {}, "Time"), el("span", { class: "ladder-end" }, app.live ? `${local} (the stack)` : local), el("span", { class: "ladder-end right" }, remote), el("span", {}, "Findings")), this.list.element));
    this.open();
  }

  async open() {
    if (this.view) this.app.ask("close_view", { view: this.view }).catch(() => {});
    this.view = 0;
    this.list.reset();
    let opened;
    try {
      opened = await this.app.ask("ladder", { source: this.app.source, conn: this.conn, decisions: this.choice.value });
    } catch (error) {
      this.empty.hidden = false;
      say(this.empty, error.message);
      return;
    }
    this.empty.hidden = true;
    if (this.ended) { this.app.ask("close_view", { view: opened.view }).catch(() => {}); return; }
    this.view = opened.view;
    this.list.follow = false;
    this.list.following(false);
    this.show(opened.start, opened.count);
    if (this.app.cursor !== null) this.seek(this.app.cursor);
  }

  show(start, count) {
    this.list.update(start, count);
    say(this.count, `${format.several(count - start, "row")}${start ? `, ${format.count(start)} older ones no longer kept` : ""}`);
  }

  tick(data) {
    const mine = data.views?.[this.view];
    if (mine) this.show(...mine);
    else if (!this.view && data.stack) this.open();
  }

  async seek(seconds) {
    if (!this.view) return;
    if (seconds === null) { this.list.follow = true; this.list.following(true); this.list.stick(); return; }
    const found = await this.app.tell("seek", { view: this.view, time: seconds });
    if (found) { this.list.centre(found.position); this.list.selected = Math.min(found.position, this.list.count - 1); this.list.schedule(); }
  }

  make() {
    const line = svg("line", { x1: "0", x2: "100%", y1: "7", y2: "17" });
    const element = el("div", { class: "ladder-row" }, el("span", { class: "time" }), el("span", { class: "rung" },
      svg("svg", { class: "arrow" }, line, svg("path")), el("span", { class: "said" })), el("span", { class: "findings" }));
    element.parts = { line, head: element.querySelector("path"), said: element.querySelector(".said"), rung: element.querySelector(".rung"), findings: element.querySelector(".findings"), time: element.querySelector(".time") };
    return element;
  }

  draw(element, row) {
    const { line, said, findings, time } = element.parts;
    const selected = element.position === this.list.selected ? " selected" : "";
    if (!row) { element.className = "ladder-row list-row pending"; say(time, ""); say(said, ""); say(findings, ""); return; }
    say(time, format.seconds(row[0]));
    if (row[1] === "seg") {
      const [, , way, seq, length, flags, ack, win, sack, dsack, again, notes, flight, , pieces] = row;
      const bad = again || notes.some((note) => BAD.has(note));
      element.className = `ladder-row list-row seg ${way}${bad ? " again" : ""}${/[SF]/.test(flags) ? " edge" : ""}${flags.includes("R") ? " reset" : ""}${selected}`;
      line.setAttribute("y1", way === "out" ? "15" : "20");
      line.setAttribute("y2", way === "out" ? "20" : "15");
      let text = `[${flags}] ${length ? `${seq}:${seq + length} (${length}${pieces > 1 ? ` = ${pieces} packets` : ""})` : `seq ${seq}`}`;
      if (ack !== null) text += ` ack ${ack}`;
      text += ` win ${win}`;
      if (sack.length) text += ` sack ${sack.map(([left, right]) => `${left}:${right}`).join(" ")}`;
      if (dsack) text += ` dsack ${dsack[0]}:${dsack[1]}`;
      say(said, text);
      const found = notes.map((note) => NOTES[note] ?? note);
      if (flight) found.push(`${format.short(flight)} in flight`);
      say(findings, found.join(", "));
    } else if (row[1] === "state") {
      element.className = `ladder-row list-row state-change${selected}`;
      say(said, `${row[2]} → ${row[3]}`.replaceAll("_", "-"));
      say(findings, row[4].toLowerCase().replaceAll("_", " "));
    } else {
      element.className = `ladder-row list-row decision kind-${row[3]}${row[5] ? " drop" : ""}${selected}`;
      say(said, `${row[2]}: ${row[4]}`);
      say(findings, row[6]);
    }
  }

  move(by) { this.list.move(by); }
  openSelected() { this.list.openSelected(); }
  toggleFollow() { this.app.seek(this.list.follow ? (this.list.row(this.list.count - 1)?.[0] ?? null) : null); }
  search() { this.choice.focus(); }
  end() { this.ended = true; this.list.end(); if (this.view) this.app.ask("close_view", { view: this.view }).catch(() => {}); }
}
