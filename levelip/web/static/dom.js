// Elements without markup in strings: el("td", {class: "num", title: "…"}, "text", child).

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

// A column's heading, which sorts by a click, Enter or Space; `what`: what its figures are, and their unit.
export function heading(title, kind, sort, what) {
  const keys = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); event.stopPropagation(); sort(); } };
  return el("th", { class: kind, scope: "col", tabindex: "0", title: what, onclick: sort, onkeydown: keys }, title);
}

// Set text only where it changed: most figures stand still.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// For so long; 0: until the element is removed.
export function toast(text, kind = "error", ms = kind === "error" ? 8000 : 3500) {
  const shown = el("div", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(shown);
  if (ms) setTimeout(() => shown.remove(), ms);
  return shown;
}

// Runs `draw` once before the next frame, however often it is called until then.
export function eachFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
}

// A canvas in device pixels; returns [context, width, height] in CSS pixels.
export function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

// A colour of app.css as it is now, light or dark; looked up once.
const colours = new Map();
let probe = null;

export function colour(name) {
  let found = colours.get(name);
  if (!found) {
    probe ??= document.body.appendChild(el("i", { hidden: true }));
    probe.style.color = `var(--${name})`;
    found = getComputedStyle(probe).color;
    colours.set(name, found);
  }
  return found;
}

export function forgetColours() { colours.clear(); }
