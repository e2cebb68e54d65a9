// The page: header, the place (in the URL's hash), shortcuts, theme, and what every part shares.

import { Net, post } from "./net.js";
import { Keys } from "./keys.js";
import { el, forgetColours, say, toast } from "./dom.js";
import * as format from "./format.js";
import { StackPage } from "./stack.js";
import { ConnectionsPage } from "./connections.js";
import { PathsPage } from "./paths.js";
import { PacketsPage } from "./packets.js";
import { ConnectionPage } from "./connection.js";
import { DebugPage } from "./debug.js";
import { ReplayPage } from "./replay.js";
import { Timeline } from "./timeline.js";
import { WhyPage } from "./why.js";

const PAGES = [["stack", "Stack", "1"], ["connections", "Connections", "2"], ["packets", "Packets", "3"], ["debug", "Stop and step", "4"],
  ["why", "Why", "5"], ["replay", "Replay", "6"], ["paths", "Paths", "7"]];
const THEMES = ["auto", "light", "dark"];
const HISTORY = 120; // as live.py has it
const LOST = { lost: "The connection to lvlip web is lost; what is shown stands still. Trying again…",
  gone: "lvlip web does not answer any more; what is shown stands still. Trying again…",
  token: "lvlip web was started anew: open the URL that it printed. What is shown stands still." };

class App extends EventTarget {
  constructor() {
    super();
    this.net = new Net();
    this.keys = new Keys();
    this.source = "live";
    this.sources = [];
    this.served = new Set(); // of the sources, those that the server has told of
    this.closing = new Set(); // files that are closed here; the server may not know yet
    this.changed = 0; // which state of the sources is known: a file that was sent is answered beside the ticks
    this.cursor = null; // seconds that everything shows, or null: the newest
    this.stack = null;
    this.history = [];
    this.settings = null;
    this.debug = null;
    this.reasons = {};
    this.theme(localStorage.getItem("theme") ?? "auto");
    this.header();
    this.bindKeys();
    this.timeline = new Timeline(this, document.getElementById("timeline"));
    this.net.addEventListener("open", () => this.connected());
    this.net.addEventListener("close", (event) => this.disconnected(event.detail));
    this.net.addEventListener("tick", (event) => this.tick(event.detail));
    window.addEventListener("hashchange", () => this.go());
    this.status();
  }

  ask(name, args) { return this.net.ask(name, args); }

  // As `ask`, but a failure is only shown.
  async tell(name, args) {
    try {
      return await this.net.ask(name, args);
    } catch (error) {
      toast(error.message);
      return null;
    }
  }

  async connected() {
    this.lost.hidden = true;
    const hello = await this.ask("hello");
    this.hello = hello;
    this.settings = hello.settings;
    this.reasons = hello.reasons;
    this.history = hello.history; // of the seams' rates: {time, seams}, the newest last
    this.source = remembered(hello.sources) ?? "live";
    this.changed = 0; // perhaps of another server, whose files have the same names
    this.closing.clear();
    this.serve(hello.sources);
    const [, file] = this.sources;
    if (file && !location.hash) { // lvlip web FILE
      this.source = file.name;
      this.remember();
      location.replace("#/connections");
    }
    document.title = `Level-IP: ${hello.stack}`;
    this.drawSources();
    this.status();
    this.go();
  }

  // At once, and whenever another attempt has failed: see net.js.
  disconnected(why) {
    this.status();
    say(this.lost, LOST[why]);
    this.lost.hidden = false;
  }

  // What can be looked at, as the server tells it; what was shown may be gone, closed by another page.
  serve(told) {
    const sources = told.filter((one) => !this.closing.has(one.name));
    const gone = this.served.has(this.source) && !sources.some((one) => one.name === this.source);
    const title = gone ? this.about()?.title : "";
    this.sources = sources;
    this.served = new Set(sources.map((one) => one.name));
    if (gone) {
      toast(`${title ?? "the file"} was closed elsewhere`);
      this.choose("live");
    }
    this.drawSources();
  }

  tick(data) {
    if (data.stack) this.takeStack(data.stack);
    if (data.settings) this.settings = data.settings;
    if (data.debug !== undefined) this.debug = data.debug;
    if (data.sources && data.changed >= this.changed) this.serve(data.sources);
    if (data.stack || data.settings) this.status();
    this.page?.tick?.(data);
    this.timeline.tick(data);
  }

  takeStack(stack) {
    this.stack = stack;
    if (stack.time !== undefined && this.history.at(-1)?.time !== stack.time) this.history.push({ time: stack.time, seams: stack.seams });
    if (this.history.length > HISTORY) this.history.shift();
  }

  about() { return this.sources.find((one) => one.name === this.source); }
  get live() { return this.source === "live"; }

  // places

  go() {
    if (!this.net.open) return;
    const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decode);
    const place = { name: name || "stack", rest };
    this.page?.end?.();
    const main = document.getElementById("page");
    main.replaceChildren();
    const kind = { stack: StackPage, connections: ConnectionsPage, packets: PacketsPage, debug: DebugPage, why: WhyPage, replay: ReplayPage, paths: PathsPage,
      connection: ConnectionPage }[place.name];
    this.page = new (kind ?? StackPage)(this, main, place.rest);
    main.className = `page-${place.name}`;
    this.status();
    for (const [one, link] of this.links) {
      const here = one === place.name || (one === "connections" && place.name === "connection");
      link.classList.toggle("here", here);
      if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    }
    main.focus({ preventScroll: true });
  }

  to(...place) {
    const hash = `#/${place.map(encodeURIComponent).join("/")}`;
    if (location.hash !== hash) history.pushState(null, "", hash);
    this.go(); // at once: the next key is for the new page
  }

  choose(source) {
    this.source = source;
    this.remember();
    this.seek(null);
    if (location.hash.startsWith("#/connection/")) this.to("connections");
    else if (source !== "live" && /^#?\/?(stack)?$/.test(location.hash.replace("#/", ""))) this.to("connections");
    else this.go();
    this.timeline.reset();
    this.drawSources();
  }

  remember() { sessionStorage.setItem("source", JSON.stringify(this.about() ?? null)); }

  // All parts show this instant; null: the newest.
  seek(seconds) {
    this.cursor = seconds;
    this.page?.seek?.(seconds);
    this.timeline.draw();
  }

  // header

  header() {
    this.links = new Map(PAGES.map(([name, title, key]) => [name, el("a", { href: `#/${name}`, title: `${title} (${key})` }, title)]));
    this.select = el("select", { id: "source", title: "What is shown", "aria-label": "What is shown", onchange: () => this.choose(this.select.value) });
    this.dot = el("span", { class: "dot" });
    this.state = el("span", { id: "state" });
    this.figures = el("span", { id: "figures", class: "quiet" });
    const picker = el("input", { type: "file", id: "file", "aria-label": "Capture or recording", hidden: true, multiple: true, accept: ".pcapng,.pcap,.gz,.cap,.rec", onchange: () => { this.open([...picker.files]); picker.value = ""; } });
    this.picker = picker;
    this.closer = el("button", { class: "icon", title: "Close this file", "aria-label": "Close this file", hidden: true, onclick: () => this.closeSource() }, "×");
    this.holdButton = el("button", { id: "hold", title: "Hold or continue (Space)", onclick: () => this.toggleHold() }, "Hold");
    this.stepButton = el("button", { id: "step", title: "One frame on (s)", hidden: true, onclick: () => this.step() }, "Step");
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => { event.preventDefault(); this.open([...event.dataTransfer.files]); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    this.themeButton = el("button", { class: "icon", title: "Light or dark (t)", "aria-label": "Light or dark", onclick: () => this.nextTheme() });
    document.getElementById("top").append(
      el("a", { class: "brand", href: "#/stack" }, el("img", { src: "/static/icon.svg", alt: "", width: 18, height: 18 }), "Level-IP"),
      this.select, this.closer, picker,
      el("button", { class: "icon", title: "Open a capture or recording (o)", onclick: () => picker.click() }, "Open…"),
      el("nav", { "aria-label": "Pages" }, [...this.links.values()]),
      el("span", { class: "controls" }, this.figures, this.holdButton, this.stepButton, el("span", { class: "chip", id: "chip" }, this.dot, this.state),
      this.themeButton,
      el("button", { class: "icon", id: "help", title: "Keyboard (?)", "aria-label": "Keyboard", onclick: () => this.keys.overview() }, "?")),
      this.lost = el("p", { id: "lost", role: "alert", hidden: true }),
    );
    this.drawTheme();
  }

  drawSources() {
    const wanted = this.sources.map((one) => `${one.name} ${one.title}`).join("\n");
    if (this.select.dataset.shown !== wanted) {
      this.select.dataset.shown = wanted;
      this.select.replaceChildren(...this.sources.map((one) => el("option", { value: one.name }, one.title)));
    }
    this.select.value = this.source;
    this.closer.hidden = this.live;
  }

  // Left before it is closed: nothing is asked of a file that is gone, and what is chosen meanwhile stays.
  async closeSource() {
    const { source } = this;
    this.closing.add(source);
    this.served.delete(source);
    this.sources = this.sources.filter((one) => one.name !== source);
    this.choose("live");
    if (!await this.tell("close_source", { source })) this.closing.delete(source); // it is there still
  }

  status() {
    const settings = this.settings;
    let kind = "off", text = "not connected";
    if (this.net.open) {
      const stack = this.stack;
      const layers = stack?.layers ?? [];
      if (!stack) [kind, text] = ["wait", "…"];
      else if (!stack.running) [kind, text] = ["off", "not running"];
      else if (stack.held) [kind, text] = ["held", "held"];
      else if (layers.every((one) => one.state === "ready")) [kind, text] = ["good", "ready"];
      else [kind, text] = ["wait", layers.filter((one) => one.state !== "ready").map((one) => `${one.name} ${one.state}`).join(", ")];
    }
    this.dot.className = `dot ${kind}`;
    const held = Boolean(this.stack?.held);
    const own = this.page instanceof DebugPage; // it has these buttons itself
    say(this.holdButton, held ? "Continue" : "Hold");
    this.holdButton.classList.toggle("on", held);
    this.holdButton.disabled = !this.stack?.running;
    this.holdButton.hidden = own;
    this.stepButton.hidden = own || !held;
    say(this.state, text);
    let figures = "";
    if (settings && this.net.open) {
      const lost = Object.values(settings.lost).reduce((a, b) => a + b, 0) + settings.passed_over;
      figures = settings.listening ? `${format.short(settings.rate)} records/s` : "not listening";
      if (lost) figures += `, ${format.count(lost)} left out`;
    }
    say(this.figures, figures);
  }

  // theme: that of the system, or the one chosen here

  theme(name) {
    this.chosen = THEMES.includes(name) ? name : "auto";
    document.documentElement.dataset.theme = this.chosen;
    localStorage.setItem("theme", this.chosen);
  }

  nextTheme() {
    this.theme(THEMES[(THEMES.indexOf(this.chosen) + 1) % THEMES.length]);
    this.repaint();
  }

  repaint() {
    forgetColours();
    this.drawTheme();
    this.page?.redraw?.();
    this.timeline.draw();
  }

  // stopping, from every page

  async hold() { await this.command("hold", {}); }
  async resume() { await this.command("continue", {}); }
  async step() { const done = await this.command("step", {}); if (done) this.stepped(done); }
  async toggleHold() { await (this.stack?.held ? this.resume() : this.hold()); }

  async command(name, args) {
    const done = await this.tell(name, args);
    if (done?.said) toast(done.said, "good");
    return done;
  }

  stepped(done) {
    this.steps = done.steps;
    this.dispatchEvent(new Event("stepped"));
    if (!(this.page instanceof DebugPage)) {
      const last = done.steps.at(-1);
      if (last) toast(last.frame ? `${last.process} took ${last.frame.name}: ${last.frame.text}` : `${last.process}: a timer ran`, "good");
    }
  }

  // files

  // One capture or recording; of several, the recordings of one stack.
  async open(files) {
    if (!files.length) return;
    const name = files.length > 1 ? files.map((one) => one.name).join(", ") : files[0].name;
    const query = new URLSearchParams([["name", name], ...(files.length > 1 ? files.map((one) => ["size", one.size]) : [])]);
    const reading = toast(`reading ${name}…`, "good", 0);
    try {
      const { source, changed } = await post(`/captures?${query}`, files.length > 1 ? new Blob(files) : files[0]);
      this.changed = Math.max(this.changed, changed);
      this.show(source);
    } catch (error) { toast(error.message); } finally { reading.remove(); }
  }

  show(source) {
    if (!this.sources.some((one) => one.name === source.name)) this.sources.push(source);
    this.drawSources();
    this.choose(source.name);
  }

  // What the flight recorders of the stack hold, as a recording.
  async openFlight() {
    const reading = toast("reading the flight recorders…", "good", 0);
    const found = await this.tell("flight.open");
    reading.remove();
    if (!found) return;
    const replays = location.hash.startsWith("#/replay");
    this.show(found.source);
    if (!replays) this.to("replay");
  }

  // The story of what is chosen here; else the page that asks for one.
  why() {
    if (!this.page?.why?.()) this.to("why");
  }

  drawTheme() { say(this.themeButton, { auto: "◐", light: "☀", dark: "☾" }[this.chosen]); }

  bindKeys() {
    const { keys } = this;
    for (const [name, title, key] of PAGES) keys.bind("Go to", key, title, () => this.to(name));
    keys.bind("Go to", ["Escape", "Backspace"], "Back", () => this.page?.back?.());
    keys.bind("Anywhere", "?", "This overview", () => keys.overview());
    keys.bind("Anywhere", "t", "Light, dark, or as the system", () => this.nextTheme());
    keys.bind("Anywhere", "/", "Search or filter", () => this.page?.search?.());
    keys.bind("Anywhere", ",", "Scrub back", () => this.timeline.step(-1));
    keys.bind("Anywhere", ".", "Scrub forward", () => this.timeline.step(1));
    keys.bind("Anywhere", "n", "The newest again", () => this.seek(null));
    keys.bind("Anywhere", "o", "Open a capture or recording", () => this.picker.click());
    keys.bind("Anywhere", "w", "Why: of the packet, call or connection that is chosen", () => this.why());
    keys.bind("Stopping", " ", "Hold, or go on", () => this.toggleHold());
    keys.bind("Stopping", "s", "One frame on", () => this.step(), () => this.stack?.held);
    keys.bind("Stopping", "b", "A breakpoint", () => { this.to("debug"); setTimeout(() => this.page.search?.(), 50); });
    keys.bind("Lists", ["ArrowDown", "j"], "Next", () => this.page?.move?.("down"));
    keys.bind("Lists", ["ArrowUp", "k"], "Previous", () => this.page?.move?.("up"));
    keys.bind("Lists", "PageDown", "A page on", () => this.page?.move?.("pagedown"));
    keys.bind("Lists", "PageUp", "A page back", () => this.page?.move?.("pageup"));
    keys.bind("Lists", ["Home", "g"], "First", () => this.page?.move?.("first"));
    keys.bind("Lists", ["End", "G"], "Last", () => this.page?.move?.("last"));
    keys.bind("Lists", "Enter", "Open", () => this.page?.openSelected?.());
    keys.bind("Lists", "e", "To the chosen packet's fields (↑ ↓ Enter)", () => this.page?.fields?.());
    keys.bind("Lists", "f", "Follow what comes", () => this.page?.toggleFollow?.());
    keys.bind("Connection", "]", "Next tab", () => this.page?.turn?.(1));
    keys.bind("Connection", "[", "Previous tab", () => this.page?.turn?.(-1));
    keys.bind("Connection", "d", "Data of the other direction", () => this.page?.otherWay?.());
    keys.bind("Replay", ["ArrowRight", "l"], "One call on", () => this.page?.pan?.(0.2));
    keys.bind("Replay", ["ArrowLeft", "h"], "One call back", () => this.page?.pan?.(-0.2));
    keys.field("Replay", "Enter", "In Go to: the next call of which it is true");
    keys.field("Replay", "Shift+Enter", "In Go to: the last one before");
    keys.bind("Replay", "m", "Count changes from here", () => this.page.mark(), () => this.page?.mark);
    keys.bind("Replay", "c", "Same again?", () => this.page.check(), () => this.page?.check);
    keys.bind("Graphs", ["+", "="], "Nearer", () => this.page?.zoom?.(0.5));
    keys.bind("Graphs", "-", "Farther", () => this.page?.zoom?.(2));
    keys.bind("Graphs", ["ArrowLeft", "h"], "Left", () => this.page?.pan?.(-0.2));
    keys.bind("Graphs", ["ArrowRight", "l"], "Right", () => this.page?.pan?.(0.2));
    keys.bind("Graphs", "0", "All of it", () => this.page?.zoomAll?.());
  }
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

// The source that this tab showed before it was loaded anew, where it is still open.
function remembered(sources) {
  const before = JSON.parse(sessionStorage.getItem("source"));
  return sources.find((one) => one.name === before?.name && one.title === before.title)?.name;
}

window.app = new App();
