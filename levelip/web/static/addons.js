// Addons: Python files with hooks, in the running stack; what they do, and what went wrong in them.

import { el, say, toast } from "./dom.js";
import * as format from "./format.js";

export class Addons {
  constructor(app) {
    this.app = app;
    this.path = el("input", { id: "addon-path", type: "text", placeholder: "/path/of/drop_acks.py", spellcheck: "false", autocomplete: "off", "aria-label": "File of the addon, where lvlip web runs" });
    this.options = el("input", { id: "addon-options", type: "text", placeholder: "every=10", spellcheck: "false", autocomplete: "off", "aria-label": "Options of the addon", class: "narrow" });
    this.button = el("button", { id: "addon-load", type: "submit" }, "Load");
    this.error = el("pre", { class: "error", id: "addon-error", hidden: true });
    this.form = el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); this.add(); } }, this.path, this.options, this.button);
    this.note = el("p", { class: "quiet", hidden: true }, "Addons are code, and others can reach this page: load them with lvlip addon load.");
    this.rows = el("div", { id: "addon-rows" });
    this.element = el("section", { class: "panel", id: "addons" }, el("h2", {}, "Addons"), this.form, this.note, this.error, this.rows);
    this.load();
  }

  async add() {
    this.error.hidden = true;
    this.button.disabled = true;
    try {
      const done = await this.app.ask("addon.load", { path: this.path.value, options: this.options.value });
      toast(done.said, "good");
    } catch (error) {
      this.error.hidden = false;
      say(this.error, error.message);
    }
    this.button.disabled = false;
    this.load();
  }

  async remove(name) {
    const done = await this.app.tell("addon.unload", { name });
    if (done) toast(done.said, "good");
    this.load();
  }

  async load() {
    let found;
    try { found = await this.app.ask("addon.list"); } catch { return; }
    this.form.hidden = !found.may_load;
    this.note.hidden = found.may_load;
    const shown = JSON.stringify(found.addons);
    if (shown === this.shown) return;
    this.shown = shown;
    const names = new Map();
    for (const one of found.addons) names.set(one.addon, [...(names.get(one.addon) ?? []), one]);
    this.rows.replaceChildren(...[...names].map(([name, places]) => el("article", { class: "addon", "data-addon": name },
      el("div", { class: "row" }, el("b", { class: places.every((one) => one.running) ? "good" : "bad" }, name), el("span", { class: "quiet" }, state(places)), el("span", { class: "space" }),
        el("button", { class: "small", onclick: () => this.remove(name) }, "Unload")),
      el("table", {}, el("tbody", {}, places.flatMap((one) => one.hooks.map((hook) => el("tr", {},
        el("td", {}, one.process), el("td", {}, el("code", {}, hook.hook)), el("td", { class: "quiet" }, `${hook.where.replace(/ both$/, "")}${hook.expression ? `: ${hook.expression}` : ""}`),
        el("td", { class: "num" }, `${format.count(hook.calls)} calls`), el("td", { class: "num quiet" }, hook.worst_ns ? `longest ${format.ms(hook.worst_ns / 1e6)}` : "")))))),
      places.flatMap((one) => one.log.slice(-5).map((line) => el("div", { class: "mono quiet" }, `${one.process}: ${line}`))),
      places.filter((one) => one.error).map((one) => el("div", {}, el("p", { class: "bad" }, `${one.process}: ${one.running ? "runs as before, its file does not load" : "was taken out"}; change ${one.path} and it is tried again`), el("pre", { class: "error" }, one.error))))));
  }
}

function state(places) {
  return places.every((one) => one.running) ? `in ${places.map((one) => one.process).join(", ")}` : `out of ${places.filter((one) => !one.running).map((one) => one.process).join(", ")}`;
}
