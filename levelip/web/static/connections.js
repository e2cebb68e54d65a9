// All connections: searched, sorted, opened.

import { el, heading, say } from "./dom.js";
import * as format from "./format.js";

const WHAT = { state: "State of RFC 9293; gone: its end was not seen", up: "Bits of payload received a second", down: "Bits of payload acknowledged a second",
  received: "Bytes of payload received", acked: "Bytes of payload that the peer acknowledged", recv_q: "Bytes that the program has not read; of a listener, connections that it has not accepted",
  send_q: "Bytes that the peer has not acknowledged; of a listener, its backlog", rtt: "Smoothed round trip time", cwnd: "Congestion window, in segments", ssthresh: "Slow start threshold, in segments",
  unacked: "Segments sent and not acknowledged", retrans: "Segments sent again; of a connection that is gone, bytes", timer: "The timer that runs out next, and when", drops: "Datagrams discarded" };
const COLUMNS = [
  ["state", "State", (r) => r.state.replaceAll("_", "-"), ""],
  ["proto", "Proto", (r) => r.proto, ""],
  ["local", "Local", (r) => r.local, ""],
  ["remote", "Remote", (r) => r.remote, ""],
  ["up", "In", (r) => (r.up ? format.rate(r.up * 8, "bit/s") : ""), "num"],
  ["down", "Out", (r) => (r.down ? format.rate(r.down * 8, "bit/s") : ""), "num"],
  ["received", "Received", (r) => (r.received === null ? "" : format.bytes(r.received)), "num"],
  ["acked", "Sent", (r) => (r.acked === null ? "" : format.bytes(r.acked)), "num"],
  ["recv_q", "Recv-Q", (r) => (r.recv_q ? format.count(r.recv_q) : ""), "num"],
  ["send_q", "Send-Q", (r) => (r.send_q ? format.count(r.send_q) : ""), "num"],
  ["rtt", "RTT", (r) => format.ms(r.rtt), "num"],
  ["cwnd", "cwnd", (r) => r.cwnd ?? "", "num"],
  ["ssthresh", "ssthresh", (r) => r.ssthresh ?? "", "num"],
  ["unacked", "Flight", (r) => r.unacked || "", "num"],
  ["retrans", "Retr", (r) => r.retrans || (r.retrans_bytes ? format.bytes(r.retrans_bytes) : ""), "num"],
  ["timer", "Timer", (r) => r.timer ?? "", ""],
  ["drops", "Discarded", (r) => (r.drops ? format.count(r.drops) : ""), "num"],
  ["groups", "Groups", (r) => (r.groups ?? []).join(" "), ""],
];

const SELDOM = ["drops", "groups"]; // columns that are there when they have something

export class ConnectionsPage {
  constructor(app, main) {
    this.app = app;
    this.sort = app.connectionSort ?? "state";
    this.descending = app.connectionDescending ?? false;
    this.rows = [];
    this.selected = app.connectionSelected ?? "";
    this.input = el("input", { type: "search", id: "search", "aria-label": "Search connections", placeholder: "Search: udp, state, address, port, algorithm", value: app.connectionSearch ?? "", spellcheck: "false", oninput: () => this.watch() });
    this.count = el("span", { class: "quiet", id: "connection-count" });
    this.heads = new Map(COLUMNS.map(([name, title, , kind]) => [name, heading(title, kind, () => this.order(name), WHAT[name])]));
    this.nothing = el("p", { class: "quiet pad nothing", hidden: true });
    this.body = el("tbody");
    this.body.addEventListener("click", (event) => this.click(event));
    this.scroller = el("div", { class: "scroller" }, el("table", { class: "table", id: "connections" }, el("thead", {}, el("tr", {}, [...this.heads.values()])), this.body), this.nothing);
    main.append(el("div", { class: "bar" }, this.input, this.count), this.scroller);
    this.elements = new Map();
    this.watch();
  }

  async watch() {
    this.app.connectionSearch = this.input.value;
    this.app.connectionSort = this.sort;
    this.app.connectionDescending = this.descending;
    for (const [name, head] of this.heads) head.setAttribute("aria-sort", name === this.sort ? (this.descending ? "descending" : "ascending") : "none");
    const found = await this.app.tell("connections", { source: this.app.source, search: this.input.value, sort: this.sort, descending: this.descending });
    if (found && !this.ended) this.draw(found);
  }

  order(name) {
    this.descending = this.sort === name ? !this.descending : !["proto", "state", "local", "remote", "timer", "groups"].includes(name);
    this.sort = name;
    this.watch();
  }

  tick(data) { if (data.connections?.source === this.app.source && data.connections.search === this.input.value) this.draw(data.connections); }

  draw({ rows, found, all }) {
    this.rows = rows;
    say(this.count, found === all ? `${format.count(all)} ${all === 1 ? "connection" : "connections"}` : `${format.count(found)} of ${format.count(all)}`);
    if (found > rows.length) this.count.append(`, the first ${rows.length} shown`);
    this.nothing.hidden = rows.length > 0;
    say(this.nothing, all ? "No connection has these words." : this.app.live ? "No connections yet: those of programs that use the stack come here (lvlip run PROGRAM, lvlip shell)." : "There are no connections in it.");
    const kept = new Map();
    const children = rows.map((row) => {
      const element = this.elements.get(row.name) ?? el("tr", {}, COLUMNS.map(([, , , kind]) => el("td", { class: kind })));
      kept.set(row.name, element);
      element.dataset.name = row.name;
      element.dataset.state = row.state;
      element.classList.toggle("gone", Boolean(row.seen) && this.app.live);
      element.classList.toggle("selected", row.name === this.selected);
      COLUMNS.forEach(([, , text], i) => say(element.children[i], String(text(row))));
      return element;
    });
    this.elements = kept;
    for (const name of SELDOM) {
      const at = COLUMNS.findIndex(([one]) => one === name), text = COLUMNS[at][2], none = !rows.some((row) => text(row));
      for (const cells of [this.scroller.querySelector("thead tr").children, ...children.map((one) => one.children)]) cells[at].hidden = none;
    }
    const same = children.length === this.body.children.length && children.every((child, i) => this.body.children[i] === child);
    if (!same) this.body.replaceChildren(...children);
  }

  click(event) {
    const row = event.target.closest("tr");
    if (!row) return;
    this.select(row.dataset.name);
    this.openSelected();
  }

  select(name) {
    this.selected = this.app.connectionSelected = name;
    for (const [one, element] of this.elements) element.classList.toggle("selected", one === name);
    this.elements.get(name)?.scrollIntoView({ block: "nearest" });
  }

  move(by) {
    if (!this.rows.length) return;
    const at = this.rows.findIndex((row) => row.name === this.selected);
    const next = { up: at - 1, down: at + 1, pageup: at - 20, pagedown: at + 20, first: 0, last: this.rows.length - 1 }[by];
    this.select(this.rows[Math.max(0, Math.min(this.rows.length - 1, next))].name);
  }

  openSelected() {
    const row = this.rows.find((one) => one.name === this.selected);
    if (row?.proto === "udp") { if (row.port) this.app.to("packets", `udp.port == ${row.port}`); }
    else if (row && row.state === "LISTEN") this.app.to("packets", `tcp.port == ${row.local.split(":").at(-1)}`);
    else if (row) this.app.to("connection", row.name, "ladder");
  }

  why() {
    const row = this.rows.find((one) => one.name === this.selected);
    if (!row || row.proto !== "tcp") return false;
    this.app.to("why", row.state === "LISTEN" ? row.local.split(":").at(-1) : row.name);
    return true;
  }

  search() { this.input.focus(); this.input.select(); }
  end() { this.ended = true; this.app.ask("connections", { off: true }).catch(() => {}); }
}
