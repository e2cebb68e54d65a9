// Numbers as people read them.

export function rate(value, unit) {
  if (!value) return "0";
  const [scaled, prefix] = scale(value, 1000, ["", "k", "M", "G", "T"]);
  return `${digits(scaled)} ${prefix}${unit}`;
}

export function bytes(value) {
  if (!value) return "0";
  const [scaled, prefix] = scale(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  return `${digits(scaled)} ${prefix}`;
}

export function count(value) {
  return Math.round(value ?? 0).toLocaleString("en-US");
}

export function several(value, what) {
  return `${count(value)} ${what}${value === 1 ? "" : "s"}`;
}

export function short(value) {
  if (!value) return "0";
  const [scaled, prefix] = scale(Math.abs(value), 1000, ["", "k", "M", "G", "T"]);
  return `${value < 0 ? "−" : ""}${digits(scaled)}${prefix}`;
}

function scale(value, base, prefixes) {
  let i = 0;
  while (value >= base * 0.9995 && i < prefixes.length - 1) { value /= base; i += 1; }
  return [value, prefixes[i]];
}

function digits(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2).replace(/\.?0+$/, "");
}

export function ms(value) {
  if (value === null || value === undefined) return "";
  if (value >= 10000) return `${digits(value / 1000)} s`;
  return value ? `${digits(value)} ms` : "";
}

export function seconds(value) {
  return value.toFixed(6);
}

// An instant's label on an axis whose ticks lie `step` apart.
export function tick(value, step) {
  const places = Math.max(0, Math.min(9, -Math.floor(Math.log10(step) + 1e-9)));
  return value.toFixed(places);
}

export function duration(value) {
  if (value === null || value === undefined) return "";
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function percent(value) {
  return value === null || value === undefined ? "" : `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`;
}

// A time of a packet's way: 730 µs, 1.62 ms.
export function ns(value) {
  if (!value) return "0";
  if (Math.abs(value) < 999_500) return `${(value / 1000).toFixed(value < 9_950 ? 1 : 0)} µs`;
  return value < 1e9 ? `${(value / 1e6).toPrecision(3)} ms` : `${(value / 1e9).toPrecision(3)} s`;
}
