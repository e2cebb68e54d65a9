// Shortcuts: one table, which the overview shows too.

import { el } from "./dom.js";

export class Keys {
  constructor() {
    this.bindings = []; // {keys, what, run, when}
    document.addEventListener("keydown", (event) => this.press(event));
  }

  // keys: "g", "G", "/" …; a list of alternatives. Later bindings win; `when` says whether one holds now.
  bind(section, keys, what, run, when) {
    this.bindings.push({ section, keys: [keys].flat(), what, run, when });
  }

  // What a field does with a key itself: for the overview.
  field(section, keys, what) { this.bind(section, keys, what, null, () => false); }

  press(event) {
    if (document.querySelector("dialog[open]")) return; // it has its own
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const typing = event.target.matches?.("input:not([type=checkbox]), textarea, select");
    if (event.key === " " && event.target.matches?.("input[type=checkbox]")) return;
    if (typing && event.key !== "Escape") return;
    if ((event.key === "Enter" || event.key === " ") && event.target.closest?.("button, a, summary, th, tr[tabindex]")) return;
    for (let i = this.bindings.length - 1; i >= 0; i -= 1) {
      const one = this.bindings[i];
      if (!one.keys.includes(event.key) || (one.when && !one.when())) continue;
      if (typing) event.target.blur();
      event.preventDefault();
      one.run();
      return;
    }
  }

  overview() {
    const dialog = el("dialog", { class: "overview", "aria-label": "Keyboard shortcuts" });
    dialog.append(el("h2", {}, "Keyboard"));
    const sections = new Map();
    for (const { section, keys, what } of this.bindings) {
      if (!sections.has(section)) sections.set(section, []);
      sections.get(section).push([keys, what]);
    }
    const columns = el("div", { class: "overview-columns" });
    for (const [section, rows] of sections) {
      columns.append(el("section", {}, el("h3", {}, section), el("dl", {}, rows.map(([keys, what]) => [
        el("dt", {}, keys.map((key) => el("kbd", {}, NAMES[key] ?? key))), el("dd", {}, what)]))));
    }
    dialog.append(columns, el("p", { class: "quiet" }, "Esc closes"));
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    document.body.append(dialog);
    dialog.showModal();
  }
}

const NAMES = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc", " ": "Space",
  PageUp: "PgUp", PageDown: "PgDn" };
