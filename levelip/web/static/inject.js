// Packets that nobody sent, put into the running stack: written here, or those of a capture file.

import { el, say, toast } from "./dom.js";
import { post } from "./net.js";

const WHERE = ["ip-tcp:up", "ip-tcp:down", "link-ip:up", "link-ip:down", "link:up", "link:down", "ip-udp:up", "ip-udp:down"];
const LINE = ". 1:1001(1000) ack 1 win 500", FIELDS = "tcp.flags.reset=1 tcp.seq=7";
const MOST = 32 << 20;

export class Inject {
  constructor(app) {
    this.app = app;
    this.where = el("select", { id: "inject-where", "aria-label": "Where", title: "Where, and which way: up is toward the applications" }, WHERE.map((name) => el("option", { value: name }, name)));
    this.kind = el("select", { id: "inject-kind", "aria-label": "How the packet is written", title: "How the packet is written", onchange: () => this.draw() }, [["line", "a line"], ["fields", "fields"], ["file", "a capture file"]].map(([value, text]) => el("option", { value }, text)));
    this.text = el("input", { type: "text", id: "inject-text", class: "filter", spellcheck: "false", autocomplete: "off", "aria-label": "The packet" });
    this.names = el("datalist", { id: "inject-names" });
    this.conn = el("input", { type: "text", id: "inject-conn", class: "filter", list: "inject-names", placeholder: "of the connection LOCAL:PORT>REMOTE:PORT", spellcheck: "false", autocomplete: "off", "aria-label": "Connection", onfocus: () => this.load() });
    this.file = el("input", { type: "file", id: "inject-file", accept: ".pcapng,.pcap,.gz,.cap", "aria-label": "Capture file" });
    this.numbers = el("input", { type: "text", id: "inject-numbers", class: "filter", placeholder: "all its packets, or: 3, 7-9", spellcheck: "false", autocomplete: "off", "aria-label": "Which packets, by their numbers in the file" });
    this.absolute = el("input", { type: "checkbox" });
    this.keep = el("input", { type: "checkbox" });
    this.absoluteLabel = el("label", { class: "quiet" }, this.absolute, " numbers as on the wire");
    this.keepLabel = el("label", { class: "quiet" }, this.keep, " keep checksums");
    this.error = el("pre", { class: "error", id: "inject-error", role: "alert", hidden: true });
    this.button = el("button", { type: "submit", id: "inject-put" }, "Inject");
    this.element = el("section", { class: "panel", id: "inject" }, el("h2", {}, "Inject packets"),
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); this.put(); } },
        this.where, this.kind, this.text, this.conn, this.names, this.file, this.numbers, this.absoluteLabel, this.keepLabel, this.button), this.error);
    this.draw();
  }

  draw() {
    const kind = this.kind.value, file = kind === "file";
    this.text.placeholder = kind === "line" ? LINE : FIELDS;
    this.text.hidden = this.conn.hidden = file;
    this.file.hidden = this.numbers.hidden = !file;
    this.absoluteLabel.hidden = kind !== "line";
    this.keepLabel.hidden = kind !== "fields";
    this.error.hidden = true;
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
    this.button.disabled = true;
    try {
      const done = await (this.kind.value === "file" ? this.send() : this.app.ask("inject", { where: this.where.value, conn: this.conn.value.trim(), [this.kind.value]: this.text.value, absolute: this.absolute.checked, keep: this.keep.checked }));
      toast(done.said, "good");
    } catch (error) {
      this.error.hidden = false;
      say(this.error, error.message);
    } finally {
      this.button.disabled = false;
    }
  }

  // The file goes from the browser to the server: the page can name none there.
  async send() {
    const [file] = this.file.files;
    if (!file) throw new Error("choose a capture file: pcapng or pcap");
    if (file.size > MOST) throw new Error(`${file.name}: larger than ${MOST >> 20} MiB`);
    const query = new URLSearchParams({ name: file.name, where: this.where.value, numbers: this.numbers.value });
    return post(`/inject?${query}`, file);
  }
}
