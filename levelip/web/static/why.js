// Why: the story of a connection or a packet, what went wrong first and by which rule, and a packet's way through the processes.

import { el, say } from "./dom.js";

const SAID = 6; // decisions of one process that are shown at once
const FRAME = /\b[a-z]+-[0-9a-f]{5}-\d+\b/g;

// A frame's id, which leads to its story.
export function frameLink(id) { return el("a", { class: "frame-id", href: `#/why/${encodeURIComponent(id)}`, title: "Why, and its way through the processes" }, id); }

// Of a recording: the call that took or gave a frame.
export function replayLink(app, id) {
  const names = (app.about()?.layers ?? []).map((one) => one.layer), by = id.split("-")[0].replace("device", "link");
  const layer = names.includes(by) ? by : names.length === 1 ? names[0] : "";
  if (!layer) return null;
  return el("a", { class: "button", href: `#/replay/${layer}/${encodeURIComponent(id)}` }, "In the replay");
}

// Text whose frame ids are links.
export function withLinks(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(FRAME)) {
    parts.push(text.slice(at, match.index), frameLink(match[0]));
    at = match.index + match[0].length;
  }
  return [...parts, text.slice(at)];
}

export class WhyPage {
  constructor(app, main, rest) {
    this.app = app;
    const subject = rest[0] ?? "";
    this.input = el("input", { type: "search", class: "filter", id: "why-subject", value: subject || app.whySubject || "", spellcheck: "false", autocomplete: "off", "aria-label": "Why what",
      placeholder: "a connection, one end of it, an address, a port, or a frame as tcp-3fa21-77" });
    this.told = el("span", { class: "quiet", id: "why-told" });
    this.body = el("div", { class: "why", id: "why" });
    main.append(el("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); this.go(); } }, this.input, el("button", { type: "submit", id: "why-ask" }, "Why?"), this.told), this.body);
    if (subject) this.ask(subject);
    else this.hint();
  }

  hint() {
    this.body.replaceChildren(el("p", { class: "quiet pad" }, this.app.live
      ? "What happened until now, as far back as the stack's flight recorders reach: name a connection, or press w on a packet, an event or a connection."
      : `Name a connection of this ${this.app.about()?.kind ?? "file"}, or press w on a packet, an event or a connection.`));
  }

  go() {
    const subject = this.input.value.trim();
    if (!subject) return;
    const place = `#/why/${encodeURIComponent(subject)}`;
    if (location.hash === place) this.ask(subject, true);
    else this.app.to("why", subject);
  }

  async ask(subject, anew = false) {
    const { app } = this;
    app.whySubject = subject;
    // From a story on, frames are asked about in what was written out for it; another question takes in what happened since.
    const kept = !anew && app.live && app.whyKept && FRAME.test(subject);
    FRAME.lastIndex = 0;
    say(this.told, app.live && !kept ? "reading the flight recorders…" : "looking…");
    const begun = performance.now();
    let answer;
    try {
      try {
        answer = await app.ask("why", { source: app.source, subject, anew: !kept });
      } catch (error) {
        if (!kept) throw error;
        answer = await app.ask("why", { source: app.source, subject, anew: true }); // it happened since
      }
    } catch (error) {
      if (this.ended) return;
      say(this.told, "");
      this.body.replaceChildren(el("pre", { class: "error pad" }, error.message));
      return;
    }
    app.whyKept = app.live;
    if (this.ended) return;
    say(this.told, `${((performance.now() - begun) / 1000).toFixed(1)} s`);
    this.body.replaceChildren(...answer.stories.map((one) => this.story(one)));
    const beware = answer.stories.some((one) => one.story.some((line) => line.startsWith("Beware")));
    if (answer.notes.length && !beware) this.body.append(el("section", { class: "panel quiet" }, answer.notes.map((text) => el("p", {}, text))));
    document.getElementById("page").focus({ preventScroll: true });
  }

  story(story) {
    const { app } = this, { journey } = story;
    const conn = journey?.conn || (story.subject.includes(">") ? story.subject.replace(/ \(\d+\)$/, "") : "");
    return el("article", { class: "story" },
      el("h1", {}, journey ? journey.frames.join(" → ") : story.subject),
      el("p", { class: "row" }, conn ? el("a", { class: "button", href: `#/connection/${encodeURIComponent(conn)}/ladder` }, "The connection") : null,
        journey ? el("a", { class: "button", href: `#/packets/${encodeURIComponent(journey.frames.map((id) => `frame.id == "${id}"`).join(" or "))}` }, "In the packet list") : null,
        journey ? replayLink(app, journey.frames.at(-1)) : null),
      journey ? this.journey(journey) : null,
      story.findings.length ? story.findings.map((one, i) => this.finding(one, i)) : el("p", { class: "good" }, "Nothing is wrong, as far as these records go."),
      story.consequences.length ? el("section", { class: "panel" }, el("h2", {}, "So followed"), el("ul", {}, story.consequences.map((one) => el("li", {}, `${one.title}: `, withLinks(one.says))))) : null,
      el("section", { class: "panel" }, el("h2", {}, "What happened"),
        (journey ? story.story.filter((line) => line.startsWith("Nothing is wrong with it")) : story.story).map((line) => el("p", {}, withLinks(line))),
        journey ? [el("p", {}, el("code", {}, journey.text)), el("p", {}, withLinks(journey.began), journey.began ? "; " : "", journey.outcome, `, ${us(journey.took_ns)} from the first seam to the last`)] : null));
  }

  finding(one, number) {
    const wrong = one.first_wrong;
    return el("section", { class: `panel finding${one.certain ? "" : " likely"}` },
      el("h2", {}, el("span", { class: "cause" }, number ? "Also" : "Cause"), one.certain ? "" : "likely: ", one.title, el("span", { class: "quiet" }, ` ${one.finding}`)),
      el("p", {}, withLinks(one.says), "."),
      wrong ? el("p", {}, "First wrong packet: ", frameLink(wrong.frame), ` at ${wrong.seam} `, el("code", {}, wrong.text)) : null,
      one.because.length ? el("ul", {}, one.because.map((text) => el("li", {}, withLinks(text)))) : null,
      el("dl", { class: "facts" }, el("div", {}, el("dt", {}, "Rule"), el("dd", {}, one.rule)), el("div", {}, el("dt", {}, "Do"), el("dd", {}, one.advice))));
  }

  // When it entered and left each process, to scale; what was decided there; how long pipes took.
  journey(one) {
    const start = one.start_ns, took = Math.max(1, one.took_ns), arrow = one.way === "up" ? "↑" : "↓";
    const share = (ns) => `${Math.max(0, Math.min(100, (100 * (ns - start)) / took)).toFixed(2)}%`;
    const rows = [];
    one.hops.forEach((hop, i) => {
      const next = one.hops[i + 1], onward = hop.left_ns === null && hop.entered_ns !== null && next?.entered_ns; // seen from one side alone
      const from = hop.entered_ns ?? hop.left_ns, to = hop.left_ns ?? (onward || hop.entered_ns);
      const bar = from === null ? null : el("i", { class: onward ? "stay onward" : "stay", style: { left: share(from), width: `${Math.max(0.4, (100 * (to - from)) / took).toFixed(2)}%` } });
      rows.push(el("div", { class: "hop" }, el("b", {}, hop.process), el("span", { class: "num" }, from === null ? "" : us(from - start)),
        el("span", { class: "track" }, bar), el("span", {}, onward ? `${us(onward - hop.entered_ns)}, then in ${next.process}` : hop.stay_ns === null ? (i ? "ends here" : "starts here") : `${us(hop.stay_ns)} in it`)));
      const said = [...hop.messages, ...hop.decisions].map((text) => el("div", {}, withLinks(text)));
      if (said.length) {
        const more = said.length > SAID + 1 ? said.splice(SAID) : [];
        rows.push(el("div", { class: "hop said" }, el("span"), el("span"), el("div", { class: "quiet" }, said, more.length ? el("details", {}, el("summary", {}, `and ${more.length} more`), more) : null)));
      }
      const pipe = one.pipes[i];
      if (pipe) rows.push(el("div", { class: "hop pipe" }, el("span", {}, `${arrow} ${pipe.seam}`), el("span"), el("span", { class: "track" }, hop.left_ns === null || pipe.ns === null ? null : el("i", { style: { left: share(hop.left_ns), width: `${Math.max(0.2, (100 * pipe.ns) / took).toFixed(2)}%` } })), el("span", {}, onward ? "the pipe is within that" : pipe.ns === null ? "in the pipe" : `${us(pipe.ns)} in the pipe`)));
    });
    const led = one.led_to.map(({ how, frame, text }) => el("p", {}, how === "answer" ? "Led to " : "Acknowledged later by ", frameLink(frame), " ", el("code", {}, text)));
    return el("section", { class: "panel journey", id: "journey" }, el("h2", {}, "Its way through the processes"), el("div", { class: "hops" }, rows), led);
  }

  search() { this.input.focus(); this.input.select(); }
  back() { history.back(); }
  end() { this.ended = true; }
}

function us(ns) {
  if (Math.abs(ns) < 1e6) return `${(ns / 1000).toFixed(1)} µs`;
  return Math.abs(ns) < 1e9 ? `${(ns / 1e6).toPrecision(3)} ms` : `${(ns / 1e9).toPrecision(4)} s`;
}
