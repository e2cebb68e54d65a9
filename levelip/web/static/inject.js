// Packets that nobody sent, put into the running stack.

import { el, say, toast } from "./dom.js";

const WHERE = ["ip-tcp:up", "ip-tcp:down", "link-ip:up", "link-ip:down", "link:up", "link:down", "ip-udp:up", "ip-udp:down"];
const LINE = ". 1:1001(1000) ack 1 win 500", FIELDS = "tcp.flags.reset=1 tcp.seq=7";

export class Inject {
  constructor(app) {
    this.app = app;
    this.where = el("select", { id: "inject-where", title: "Where, and which way: up is toward the applications" }, WHERE.map((name) => el("option", { value: name }, name)));
    this.kind = el("select", { id: "inject-kind", title: "How the packet is written", onchange: () => this.draw() }, [["line", "a line"], ["fields", "fields"]].map(([value, text]) => el("option", { value }, text)));
    this.text = el("input", { type: "text", id: "inject-text", class: "filter", spellcheck: "false", autocomplete: "off", "aria-label": "The packet" });
    this.names = el("datalist", { id: "inject-names" });
    this.conn = el("input", { type: "text", id: "inject-conn", class: "filter", list: "inject-names", placeholder: "of the connection LOCAL:PORT>REMOTE:PORT", spellcheck: "false", autocomplete: "off", "aria-label": "Connection", onfocus: () => this.load() });
    this.absolute = el("input", { type: "checkbox" });
    this.keep = el("input", { type: "checkbox" });
    this.absoluteLabel = el("label", { class: "quiet" }, this.absolute, " numbers as on the wire");
    this.keepLabel = el("label", { class: "quiet" }, this.keep, " keep checksums");
    this.error = el("pre", { class: "error", id: "inject-error", hidden: true });
    this.element = el("section", { class: "panel", id: "inject" }, el("h2", {}, "Inject a packet"),
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); this.put(); } },
        this.where, this.kind, this.text, this.conn, this.names, this.absoluteLabel, this.keepLabel, el("button", { type: "submit", id: "inject-put" }, "Inject")), this.error);
    this.draw();
  }

  draw() {
    const line = this.kind.value === "line";
    this.text.placeholder = line ? LINE : FIELDS;
    this.absoluteLabel.hidden = !line;
    this.keepLabel.hidden = line;
  }

  // What tcp has, to choose from.
  async load() {
    try {
      const found = await this.app.ask("connections", { source: "live", search: "tcp", sort: "local", descending: false });
      await this.app.ask("connections", { off: true });
      this.names.replaceChildren(...found.rows.filter((one) => !one.seen && one.state !== "LISTEN").map((one) => el("option", { value: one.name })));
    } catch { /* the connection is lost: that is told */ }
  }

  async put() {
    this.error.hidden = true;
    const request = { where: this.where.value, conn: this.conn.value.trim(), [this.kind.value]: this.text.value, absolute: this.absolute.checked, keep: this.keep.checked };
    try {
      const done = await this.app.ask("inject", request);
      toast(done.said, "good");
    } catch (error) {
      this.error.hidden = false;
      say(this.error, error.message);
    }
  }
}
