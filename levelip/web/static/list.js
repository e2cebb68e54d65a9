// A list of any length that holds only the rows in sight: positions `start` to `count`, fetched a page at a time.

import { el } from "./dom.js";

const PAGE = 100;
const PAGES_KEPT = 80;
const OVERSCAN = 6;

let numbers = 0;

export class VirtualList {
  // options: rowHeight; make() → element; draw(element, row | null, position, selected); fetch(at, count) → {at, rows};
  // choose(row, position), open(row)
  constructor(options) {
    Object.assign(this, options);
    this.start = 0;
    this.count = 0;
    this.selected = -1;
    this.follow = true;
    this.pages = new Map();
    this.asked = new Set();
    this.generation = 0;
    this.pool = [];
    this.canvas = el("div", { class: "list-canvas" });
    this.element = el("div", { class: "list", tabindex: "0", role: "listbox", "aria-label": options.label }, this.canvas);
    this.waiting = false;
    this.element.addEventListener("scroll", () => { this.noteFollow(); this.schedule(); }, { passive: true });
    this.element.addEventListener("click", (event) => this.click(event, false));
    this.element.addEventListener("dblclick", (event) => this.click(event, true));
    this.observer = new ResizeObserver(() => { this.stick(); this.schedule(); });
    this.observer.observe(this.element);
  }

  // Other rows under the same positions: forget what is known.
  reset() {
    this.generation += 1;
    this.pages.clear();
    this.asked.clear();
    this.selected = -1;
    this.choosing = undefined;
    this.start = this.count = 0;
    this.schedule();
  }

  redraw() {
    this.pages.clear();
    this.asked.clear();
    this.schedule();
  }

  update(start, count) {
    if (start === this.start && count === this.count) return;
    const before = this.count;
    const moved = start - this.start;
    this.start = start;
    this.count = count;
    this.canvas.style.height = `${(count - start) * this.rowHeight}px`;
    if (moved > 0 && !this.follow) this.element.scrollTop -= moved * this.rowHeight;
    const page = Math.floor(before / PAGE); // the last page was not full
    if (this.pages.has(page) && this.pages.get(page).length < PAGE) this.pages.delete(page);
    this.stick();
    this.schedule();
  }

  stick() {
    if (this.follow) this.element.scrollTop = this.element.scrollHeight;
  }

  noteFollow() {
    const left = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight;
    const follow = left < this.rowHeight * 1.5;
    if (follow !== this.follow) {
      this.follow = follow;
      this.following?.(follow);
    }
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.render(); });
  }

  row(position) {
    return this.pages.get(Math.floor(position / PAGE))?.[position % PAGE] ?? null;
  }

  render() {
    const height = this.element.clientHeight;
    if (!height) return;
    const top = Math.floor(this.element.scrollTop / this.rowHeight);
    const first = Math.max(this.start, this.start + top - OVERSCAN);
    const last = Math.min(this.count, this.start + top + Math.ceil(height / this.rowHeight) + OVERSCAN);
    while (this.pool.length < last - first) {
      const element = this.make();
      element.classList.add("list-row");
      element.setAttribute("role", "option");
      element.id = `row-${numbers += 1}`;
      this.canvas.append(element);
      this.pool.push(element);
    }
    for (let i = 0; i < this.pool.length; i += 1) {
      const element = this.pool[i], position = first + i;
      if (position >= last) { element.hidden = true; continue; }
      element.hidden = false;
      const y = (position - this.start) * this.rowHeight;
      if (element.y !== y) { element.style.transform = `translateY(${y}px)`; element.y = y; }
      element.position = position;
      const selected = position === this.selected;
      element.classList.toggle("selected", selected);
      if (element.chosen !== selected) {
        element.chosen = selected;
        element.setAttribute("aria-selected", String(selected));
        if (selected) this.element.setAttribute("aria-activedescendant", element.id);
      }
      const row = this.row(position);
      if (element.row !== row || element.drawn !== this.generation || row === null) {
        element.row = row;
        element.drawn = this.generation;
        this.draw(element, row, position);
      }
    }
    this.need(first, last);
  }

  need(first, last) {
    for (let page = Math.floor(first / PAGE); page * PAGE < last; page += 1) {
      const known = this.pages.get(page);
      const full = Math.min(PAGE, this.count - page * PAGE);
      if ((known && known.length >= full) || this.asked.has(page) || this.asked.size >= 3) continue;
      this.load(page);
    }
  }

  async load(page) {
    const generation = this.generation;
    this.asked.add(page);
    try {
      const { at, rows } = await this.fetch(page * PAGE, PAGE);
      if (generation !== this.generation) return;
      const whole = this.pages.get(page) ?? [];
      rows.forEach((row, i) => { whole[at + i - page * PAGE] = row; });
      this.pages.set(page, whole);
      while (this.pages.size > PAGES_KEPT) {
        const oldest = this.pages.keys().next().value;
        if (oldest === page) break;
        this.pages.delete(oldest);
      }
    } catch {
      return; // the view was closed, or the connection lost: both draw anew
    } finally {
      if (generation === this.generation) this.asked.delete(page);
    }
    const row = this.choosing === undefined ? null : this.row(this.choosing);
    if (row) {
      this.choose?.(row, this.choosing);
      this.choosing = undefined;
    }
    this.schedule();
  }

  click(event, twice) {
    const element = event.target.closest(".list-row");
    if (!element || element.row === null) return;
    this.select(element.position);
    if (twice) this.open?.(element.row);
  }

  select(position) {
    position = Math.max(this.start, Math.min(this.count - 1, position));
    if (position < this.start) return;
    this.selected = position;
    this.reveal(position);
    this.schedule();
    const row = this.row(position);
    this.choosing = row ? undefined : position;
    if (row) this.choose?.(row, position);
  }

  reveal(position) {
    const y = (position - this.start) * this.rowHeight, height = this.element.clientHeight;
    if (y < this.element.scrollTop) this.element.scrollTop = y;
    else if (y + this.rowHeight > this.element.scrollTop + height) this.element.scrollTop = y + this.rowHeight - height;
  }

  sees(position) {
    const y = (position - this.start) * this.rowHeight - this.element.scrollTop;
    return y >= 0 && y + this.rowHeight <= this.element.clientHeight;
  }

  centre(position) {
    this.follow = false;
    this.following?.(false);
    this.element.scrollTop = (position - this.start) * this.rowHeight - this.element.clientHeight / 2;
  }

  move(by) {
    const height = Math.floor(this.element.clientHeight / this.rowHeight) - 1;
    const step = { up: -1, down: 1, pageup: -height, pagedown: height, first: -Infinity, last: Infinity }[by];
    const from = this.selected < this.start ? this.start + Math.floor(this.element.scrollTop / this.rowHeight) - 1 : this.selected;
    this.select(step === -Infinity ? this.start : step === Infinity ? this.count - 1 : from + step);
  }

  openSelected() {
    const row = this.row(this.selected);
    if (row) this.open?.(row);
  }

  end() { this.observer.disconnect(); }
}
