// Paths: packets grouped by the way they took through the processes, with counts and percentiles of the time they took.

import { el, heading, say } from "./dom.js";
import * as format from "./format.js";
import { frameLink } from "./why.js";

const COLUMNS = [["count", "count", true], ["p50_ns", "p50", true], ["p90_ns", "p90", true], ["p99_ns", "p99", true],
  ["what", "what"], ["path", "way"], ["outcome", "end"], ["example", "such as"]];
const SPANS = [["1", "1 s from now"], ["3", "3 s from now"], ["10", "10 s from now"], ["60", "60 s from now"], ["0", "until now"]];

export class PathsPage {
  constructor(app, main) {
    this.app = app;
    this.kept = ((app.paths ??= {})[app.source] ??= { rows: null, notes: [], sort: "count", descending: true, search: "", open: new Set() });
    this.span = el("select", { id: "paths-span", "aria-label": "Which packets", title: "Which packets: those that come now, timed to the microsecond; or what the flight recorders hold, timed to a round of the processes", onchange: () => this.show() },
      SPANS.map(([value, text]) => el("option", { value }, text)));
    this.span.value = app.pathsSpan ?? "3";
    this.words = el("input", { type: "text", id: "paths-words", class: "filter", placeholder: "of these alone: port=80 proto=tcp host=10.0.0.1 flags=S", value: app.pathsWords ?? "", spellcheck: "false", autocomplete: "off", "aria-label": "Only these packets" });
    this.button = el("button", { type: "submit", id: "paths-ask" }, app.live ? "Measure" : "All packets");
    this.input = el("input", { type: "search", id: "paths-search", class: "filter", placeholder: "Search: data, udp, dropped, gateway", value: this.kept.search, spellcheck: "false", autocomplete: "off", "aria-label": "Search ways", oninput: () => { this.kept.search = this.input.value; this.draw(); } });
    this.told = el("span", { class: "quiet", id: "paths-told", role: "status" });
    this.error = el("pre", { class: "error filter-error", id: "paths-error", hidden: true });
    this.heads = COLUMNS.map(([name, title, number]) => heading(title, number ? "num" : "", () => this.sortBy(name)));
    this.body = el("tbody");
    this.table = el("table", { class: "table paths", id: "paths" }, el("thead", {}, el("tr", {}, this.heads)), this.body);
    this.hint = el("p", { class: "quiet pad", id: "paths-hint" });
    this.notes = el("div", { class: "quiet pad notes" });
    main.append(el("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); this.go(); } }, app.live ? [this.span, this.words] : null, this.button, this.input, this.told),
      this.error, el("div", { class: "scroller" }, this.table, this.hint, this.notes));
    this.show();
    if (!this.kept.rows && !app.live) this.go();
    else this.draw();
  }

  show() {
    const until = this.span.value === "0";
    this.words.hidden = until;
    if (this.app.live) say(this.button, until ? "Look" : "Measure");
  }

  async go() {
    if (this.asking) return;
    const { app } = this, seconds = app.live ? +this.span.value : 0;
    app.pathsSpan = this.span.value;
    app.pathsWords = this.words.value;
    this.error.hidden = true;
    this.asking = this.button.disabled = true;
    const begun = performance.now();
    say(this.told, seconds ? `listening for ${seconds} s…` : app.live ? "reading the flight recorders…" : "reading…");
    try {
      const found = await app.ask("paths", { source: app.source, seconds, words: seconds ? this.words.value : "" });
      Object.assign(this.kept, { rows: found.paths, all: found.all, notes: found.notes });
      const took = ((performance.now() - begun) / 1000).toFixed(1);
      if (!this.ended) say(this.told, `${format.count(found.paths.reduce((sum, one) => sum + one.count, 0))} packets on ${format.count(found.all)} ways, ${took} s`);
    } catch (error) {
      if (this.ended) return;
      say(this.told, "");
      this.error.hidden = false;
      say(this.error, error.message);
    } finally {
      this.asking = this.button.disabled = false;
    }
    if (!this.ended) this.draw();
  }

  sortBy(name) {
    const { kept } = this;
    kept.descending = kept.sort === name ? !kept.descending : COLUMNS.some(([one, , number]) => one === name && number);
    kept.sort = name;
    this.draw();
  }

  draw() {
    const { kept, app } = this;
    this.heads.forEach((head, i) => head.setAttribute("aria-sort", COLUMNS[i][0] !== kept.sort ? "none" : kept.descending ? "descending" : "ascending"));
    const words = kept.search.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = (kept.rows ?? []).filter((one) => words.every((word) => `${one.what} ${one.path} ${one.outcome}`.toLowerCase().includes(word)));
    const way = kept.descending ? -1 : 1, { sort } = kept;
    rows.sort((a, b) => way * (typeof a[sort] === "number" ? a[sort] - b[sort] : String(a[sort] ?? "").localeCompare(String(b[sort] ?? ""))));
    this.rows = rows;
    const most = Math.max(1, ...rows.map((one) => one.p99_ns));
    this.body.replaceChildren(...rows.flatMap((one, i) => this.row(one, i, most)));
    this.hint.hidden = rows.length > 0;
    say(this.hint, kept.rows ? (kept.rows.length ? "No way has these words." : "No packets were seen.")
      : app.live ? "Measure listens to all processes for a while and groups the packets by what they are, the processes that they passed, and how they ended. Times are from the first seam to the last." : "");
    this.notes.replaceChildren(...kept.notes.map((text) => el("p", {}, text)));
  }

  row(one, i, most) {
    const key = `${one.what}|${one.path}|${one.outcome}`, open = this.kept.open.has(key);
    const share = (ns) => `${Math.min(100, (100 * ns) / most).toFixed(1)}%`;
    const line = el("tr", { class: this.selected === i ? "selected" : "", "aria-expanded": String(open), "data-key": key, onclick: (event) => { if (!event.target.closest("a")) { this.selected = i; this.toggle(key); } } },
      el("td", { class: "num" }, format.count(one.count)), el("td", { class: "num" }, format.ns(one.p50_ns)), el("td", { class: "num" }, format.ns(one.p90_ns)),
      el("td", { class: "num spread", title: "p50, p90 and p99, to one scale" }, format.ns(one.p99_ns), el("i", { class: "p99", style: { width: share(one.p99_ns) } }), el("i", { class: "p90", style: { width: share(one.p90_ns) } }), el("i", { class: "p50", style: { width: share(one.p50_ns) } })),
      el("td", {}, one.what), el("td", { class: "mono" }, el("span", { class: "twist", "aria-hidden": "true" }, open ? "▾ " : "▸ "), one.path),
      el("td", { class: one.outcome.startsWith("dropped") ? "bad" : "" }, one.outcome), el("td", { class: "mono" }, one.example ? frameLink(one.example) : ""));
    if (!open) return [line];
    return [line, ...Object.entries(one.parts).map(([name, times]) => el("tr", { class: "part" }, el("td"), ["p50_ns", "p90_ns", "p99_ns"].map((column) => el("td", { class: "num" }, format.ns(times[column]))),
      el("td"), el("td", { class: "mono", colspan: "3" }, name.includes("-") ? (name.includes(" and ") ? `${name} (from seam to seam)` : `in the pipe ${name}`) : `in ${name}`)))];
  }

  toggle(key) {
    const { open } = this.kept;
    if (!open.delete(key)) open.add(key);
    this.draw();
  }

  move(by) {
    const last = (this.rows?.length ?? 0) - 1;
    if (last < 0) return;
    const at = this.selected ?? -1;
    this.selected = Math.max(0, Math.min(last, { up: at - 1, down: at + 1, pageup: at - 10, pagedown: at + 10, first: 0, last }[by]));
    this.draw();
    this.body.querySelector("tr.selected")?.scrollIntoView({ block: "nearest" });
  }

  openSelected() {
    const row = this.body.querySelector("tr.selected");
    if (row) this.toggle(row.dataset.key);
  }

  why() {
    const one = this.rows?.[this.selected];
    if (!one?.example) return false;
    this.app.to("why", one.example);
    return true;
  }

  search() { this.input.focus(); this.input.select(); }
  end() { this.ended = true; }
}
