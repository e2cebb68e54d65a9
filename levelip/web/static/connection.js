// One connection: figures, and its tabs.

import { el, say } from "./dom.js";
import * as format from "./format.js";
import { Graphs } from "./graphs.js";
import { LadderTab } from "./ladder.js";
import { PacketPanel } from "./packets.js";
import { ReplayPanel } from "./replay.js";
import { States } from "./states.js";

const TABS = [["ladder", "Ladder"], ["graphs", "Graphs"], ["states", "States"], ["packets", "Packets and events"]];

export class ConnectionPage {
  constructor(app, main, [conn, tab]) {
    this.app = app;
    this.conn = conn ?? "";
    const tabs = app.about()?.kind === "recording" ? [...TABS, ["replay", "Replay"]] : TABS;
    this.tabs = tabs;
    this.name = tabs.some(([one]) => one === tab) ? tab : "ladder";
    const [local, remote] = this.conn.split("#")[0].split(">");
    this.state = el("span", { class: "chip", id: "connection-state" });
    this.figures = el("span", { class: "quiet figures-line" });
    main.append(el("div", { class: "bar title" }, el("button", { class: "icon", title: "Back (Esc)", onclick: () => this.back() }, "←"),
      el("h1", {}, `${local} `, el("span", { class: "quiet" }, "↔"), ` ${remote ?? ""}`), this.state, this.figures,
      el("span", { class: "space" }), el("button", { class: "small", id: "connection-why", title: "What went wrong first, and by which rule (w)", onclick: () => this.app.to("why", this.conn) }, "Why?"),
      el("nav", { class: "tabs", "aria-label": "Of this connection" }, tabs.map(([one, title]) => el("a", { href: `#/connection/${encodeURIComponent(conn)}/${one}`, class: one === this.name ? "here" : "" }, title)))));
    const body = el("div", { class: "body" });
    main.append(body);
    const search = this.searched = this.conn.split("#")[0].replace(">", " ");
    app.ask("connections", { source: app.source, search, sort: "local", descending: false }).then((found) => this.show(found), () => {});
    if (this.name === "ladder") this.tab = new LadderTab(app, body, this.conn);
    else if (this.name === "graphs") this.tab = new Graphs(app, body, this.conn);
    else if (this.name === "states") this.tab = new States(app, body, this.conn);
    else if (this.name === "replay") this.replay(body);
    else {
      const panel = new PacketPanel(app, body, { conn: this.conn });
      this.tab = { tick: (data) => panel.tick(data), seek: (t) => panel.seek(t), move: (by) => panel.list.move(by), openSelected: () => panel.list.openSelected(),
        toggleFollow: () => panel.toggleFollow(), why: () => panel.why(), fields: () => panel.detail.enter(), search: () => panel.search(), end: () => panel.end() };
    }
  }

  show(found) {
    const row = found?.rows.find((one) => one.name === this.conn) ?? found?.rows[0];
    if (!row) { say(this.state, "gone"); return; }
    say(this.state, row.state.replaceAll("_", "-"));
    this.state.dataset.state = row.state;
    const parts = [];
    if (row.rtt) parts.push(`RTT ${format.ms(row.rtt)}`);
    if (row.rto) parts.push(`RTO ${format.ms(row.rto)}`);
    if (row.cwnd) parts.push(`cwnd ${row.cwnd}`);
    if (row.ssthresh) parts.push(`ssthresh ${row.ssthresh}`);
    if (row.unacked) parts.push(`${row.unacked} unacked`);
    if (row.retrans) parts.push(`${format.count(row.retrans)} packets sent again`);
    else if (row.retrans_bytes) parts.push(`${format.bytes(row.retrans_bytes)} sent again`);
    parts.push(`${format.bytes(row.received)} in, ${format.bytes(row.acked)} out`);
    if (row.up || row.down) parts.push(`${format.rate((row.up || 0) * 8, "bit/s")} in, ${format.rate((row.down || 0) * 8, "bit/s")} out`);
    say(this.figures, parts.join(" · "));
    this.figures.title = this.figures.textContent;
  }

  tick(data) {
    if (data.connections?.source === this.app.source && data.connections.search === this.searched) this.show(data.connections);
    this.tab.tick?.(data);
  }

  turn(by) {
    const { tabs } = this, at = tabs.findIndex(([one]) => one === this.name);
    this.app.to("connection", this.conn, tabs[(at + by + tabs.length) % tabs.length][0]);
  }

  // tcp's calls, with this connection's state
  replay(body) {
    const panel = new ReplayPanel(this.app, body, { layer: "tcp", conn: this.conn });
    this.tab = { seek: (t) => panel.seek(t), move: (by) => panel.move(by), pan: (share) => panel.move(share > 0 ? "down" : "up"), mark: () => panel.mark(), check: () => panel.check(),
      why: () => panel.why(), search: () => panel.search(), end: () => panel.end() };
  }

  why() {
    if (!this.tab.why?.()) this.app.to("why", this.conn);
    return true;
  }

  get mark() { return this.tab.mark; }
  get check() { return this.tab.check; }
  fields() { this.tab.fields?.(); }

  back() { this.app.to("connections"); }
  seek(seconds) { this.tab.seek?.(seconds); }
  move(by) { this.tab.move?.(by); }
  openSelected() { this.tab.openSelected?.(); }
  toggleFollow() { this.tab.toggleFollow?.(); }
  search() { this.tab.search?.(); }
  redraw() { this.tab.redraw?.(); }
  zoom(factor) { this.tab.zoom?.(factor); }
  pan(share) { this.tab.pan?.(share); }
  zoomAll() { this.tab.zoomAll?.(); }
  otherWay() { this.tab.otherWay?.(); }
  end() { this.tab.end?.(); this.app.ask("connections", { off: true }).catch(() => {}); }
}
