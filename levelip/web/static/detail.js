// One packet: a tree of fields, and its bytes; what is under the pointer in one is marked in the other.

import { el, say } from "./dom.js";
import { frameLink, replayLink, withLinks } from "./why.js";

const ROW = 16;

export class Detail {
  // `narrow`: called with a condition when a field is clicked twice; `edit`: with a field's name and its new value
  // `back`: what gets the focus again after the fields
  constructor(app, narrow, edit, back) {
    this.app = app;
    this.narrow = narrow;
    this.edit = edit;
    this.back = back;
    this.frame = ""; // the id of the frame that is shown, or that the event is about
    this.editable = new Set();
    this.tree = el("div", { class: "tree", tabindex: "0", role: "region", "aria-label": "Fields" });
    this.hex = el("div", { class: "hex", tabindex: "0", role: "region", "aria-label": "Bytes" });
    this.note = el("p", { class: "quiet" });
    this.element = el("aside", { class: "detail", id: "detail" }, this.tree, el("div", { class: "hex-frame" }, this.hex, this.note));
    this.tree.addEventListener("mouseover", (event) => this.light(event.target.closest("[data-from]")));
    this.tree.addEventListener("mouseleave", () => this.light(null));
    this.hex.addEventListener("mouseover", (event) => this.find(event.target.dataset?.byte));
    this.hex.addEventListener("mouseleave", () => this.light(null));
    this.tree.addEventListener("keydown", (event) => this.press(event));
    this.tree.append(el("p", { class: "quiet" }, "Choose a packet or an event."));
  }

  // by keyboard: up and down through the fields, Enter does what a click does, Esc leaves

  enter() { this.tree.focus(); this.go(this.lines().indexOf(this.current) < 0 ? 0 : this.lines().indexOf(this.current)); }
  lines() { return [...this.tree.querySelectorAll("summary, .field")].filter((one) => one.offsetParent); }

  press(event) {
    if (event.target !== this.tree && !event.target.matches("summary")) return;
    const lines = this.lines(), at = lines.indexOf(this.current);
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (step) this.go(Math.max(0, Math.min(lines.length - 1, at + step)));
    else if (event.key === "Enter" && this.current) this.act(this.current);
    else if (event.key === "Escape" && this.back) { this.go(-1); this.back.focus(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  go(at) {
    this.current?.classList.remove("current");
    this.current = this.lines()[at];
    this.current?.classList.add("current");
    this.current?.scrollIntoView({ block: "nearest" });
    this.light(this.current?.dataset.from === undefined ? null : this.current);
  }

  act(line) {
    if (line.matches("summary")) line.parentElement.open = !line.parentElement.open;
    else line.dispatchEvent(new MouseEvent(line.classList.contains("editable") ? "click" : "dblclick"));
  }

  clear(text) {
    this.tree.replaceChildren(el("p", { class: "quiet" }, text));
    this.frame = "";
    this.current = null;
    this.hex.replaceChildren();
    say(this.note, "");
  }

  show(packet) {
    const { row, layers } = packet;
    this.fields = [];
    this.bytes = [];
    this.texts = [];
    this.current = null;
    this.frame = packet.frame_id || (layers.flatMap((layer) => layer.fields).find((field) => field.name === "frame.id")?.text ?? "");
    this.editable = new Set(packet.editable ?? []);
    if (row?.[2] === "n") { this.clear(row[3]); return; }
    if (row?.[2] === "e") {
      const [, seconds, , process, kind, conn, text, , rule] = row;
      const [name, ...sentence] = rule.split(": ");
      this.tree.replaceChildren(el("h3", {}, text), el("dl", { class: "facts" },
        fact("Event", kind), fact("By", process), fact("At", `${seconds.toFixed(9)} s`), conn && fact("Connection", conn), this.frame && fact("Frame", frameLink(this.frame)),
        rule && fact("Reason", name), rule && fact("Rule", sentence.join(": "))));
      this.hex.replaceChildren();
      say(this.note, "");
      return;
    }
    const call = this.frame ? replayLink(this.app, this.frame) : null;
    this.tree.replaceChildren(...(call ? [el("p", { class: "row" }, call)] : []), ...layers.map((layer) => {
      const body = el("div", { class: "fields" }, layer.fields.map((field) => {
        const isFrame = this.frame && (field.name === "frame.id" || field.name === "frame.causes");
        const value = el("span", { class: "value" }, isFrame ? withLinks(field.text) : field.text);
        const line = el("div", { class: "field", title: `${field.name}${field.title ? `: ${field.title}` : ""}` }, el("span", { class: "label" }, field.name || field.title), value);
        if (this.edit && this.editable.has(field.name)) this.makeEditable(line, field, value);
        else if (this.narrow && field.name) {
          line.title += " (double click: filter by it)";
          line.addEventListener("dblclick", () => this.narrow(`${field.name} == ${field.value}`));
        }
        if (field.at) { line.dataset.from = field.at[0]; line.dataset.to = field.at[1]; this.fields.push(line); }
        return line;
      }));
      const head = el("summary", {}, layer.title);
      if (layer.at) { head.dataset.from = layer.at[0]; head.dataset.to = layer.at[1]; }
      return el("details", { open: true }, head, body);
    }));
    this.drawBytes(packet.bytes, layers);
    const cut = packet.length - packet.bytes.length / 2;
    say(this.note, cut > 0 ? `${cut} more bytes were not kept (Stack, Listening).` : "");
  }

  makeEditable(line, field, value) {
    line.classList.add("editable");
    line.title += " (click: change it)";
    line.addEventListener("click", () => {
      if (line.querySelector("input")) return;
      const input = el("input", { type: "text", value: field.value, spellcheck: "false", "aria-label": field.name });
      let left = false;
      const leave = () => { if (!left) { left = true; input.replaceWith(value); } };
      input.addEventListener("keydown", (event) => {
        if (event.key === "Enter") { event.stopPropagation(); this.edit(field.name, input.value); leave(); this.tree.focus(); }
        else if (event.key === "Escape") { event.stopPropagation(); leave(); this.tree.focus(); }
      });
      input.addEventListener("blur", leave);
      value.replaceWith(input);
      input.focus();
      input.select();
    });
  }

  drawBytes(hex, layers) {
    const count = Math.min(hex.length / 2, 4096);
    const part = new Uint8Array(count);
    layers.forEach((layer, i) => { if (layer.at) part.fill(i % 4 + 1, layer.at[0], Math.min(layer.at[1], count)); });
    this.bytes = [];
    this.texts = [];
    const lines = [];
    for (let at = 0; at < count; at += ROW) {
      const bytes = el("span", { class: "bytes" }), text = el("span", { class: "text" });
      for (let i = at; i < Math.min(at + ROW, count); i += 1) {
        const value = parseInt(hex.slice(2 * i, 2 * i + 2), 16);
        const byte = el("span", { class: `byte part-${part[i]}`, "data-byte": String(i) }, hex.slice(2 * i, 2 * i + 2));
        const letter = el("span", { class: `part-${part[i]}`, "data-byte": String(i) }, value >= 32 && value < 127 ? String.fromCharCode(value) : "·");
        this.bytes.push(byte);
        this.texts.push(letter);
        bytes.append(byte);
        text.append(letter);
      }
      lines.push(el("div", { class: "hex-line" }, el("span", { class: "offset" }, at.toString(16).padStart(4, "0")), bytes, text));
    }
    this.hex.replaceChildren(...lines);
  }

  light(element) {
    this.lit?.forEach((one) => one.classList.remove("lit"));
    this.lit = [];
    if (!element) return;
    this.lit.push(element, ...this.bytes.slice(+element.dataset.from, +element.dataset.to), ...this.texts.slice(+element.dataset.from, +element.dataset.to));
    this.lit.forEach((one) => one.classList.add("lit"));
  }

  find(byte) {
    if (byte === undefined) return;
    const at = +byte;
    const smallest = this.fields.filter((line) => +line.dataset.from <= at && at < +line.dataset.to)
      .sort((a, b) => (a.dataset.to - a.dataset.from) - (b.dataset.to - b.dataset.from))[0];
    this.light(smallest ?? null);
    smallest?.scrollIntoView({ block: "nearest" });
  }
}

function fact(name, value) { return el("div", {}, el("dt", {}, name), el("dd", {}, value)); }
