// Charts as SVG elements. All text goes through textContent: nothing that a store holds becomes markup.

const NS = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const child of children) element.append(child);
  return element;
}

function roundTicks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted);
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * size).find((one) => one >= raw) || raw;
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) ticks.push(+tick.toPrecision(12));
  return ticks;
}

function logTicks(low, high) {
  for (const parts of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) {
    const ticks = [];
    for (let d = Math.floor(Math.log10(low)) - 1; d <= Math.ceil(Math.log10(high)); d++)
      for (const part of parts) { const tick = +(part * 10 ** d).toPrecision(6); if (tick >= low && tick <= high) ticks.push(tick); }
    if (ticks.length >= 3) return ticks.length > 8 ? ticks.filter((_, at) => at % Math.ceil(ticks.length / 7) === 0) : ticks;
  }
  return roundTicks(low, high, 4);
}

const DAY = 86400;
const STEPS = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 91 * DAY, 365 * DAY];

function timeTicks(low, high, wanted) {
  const step = STEPS.find((one) => (high - low) / one <= wanted) || 365 * DAY;
  const zone = new Date(low * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let tick = Math.ceil((low - zone) / step) * step + zone; tick <= high; tick += step) ticks.push(tick);
  return [ticks, step];
}

function timeText(seconds, step) {
  const time = new Date(seconds * 1000);
  if (step >= DAY) return time.toLocaleDateString([], { day: "numeric", month: "short" });
  return time.toLocaleTimeString([], step < 60 ? { hour: "2-digit", minute: "2-digit", second: "2-digit" } : { hour: "2-digit", minute: "2-digit" });
}

export const plainNumber = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

// A scale from values to pixels. kind: "linear", "log" or "time".
function scale(kind, values, from, to, room = 0.05) {
  const known = values.filter(Number.isFinite);
  let low = Math.min(...known), high = Math.max(...known);
  if (kind === "log" && !(low > 0 && high / low > 3)) kind = "linear";
  if (kind === "log") {
    const span = Math.log(high / low) * room || 0.1;
    low = Math.exp(Math.log(low) - span); high = Math.exp(Math.log(high) + span);
    const place = (value) => from + ((Math.log(value) - Math.log(low)) / Math.log(high / low)) * (to - from);
    return { place, ticks: logTicks(low, high), text: plainNumber };
  }
  const margin = (high - low) * room || Math.abs(high) * 0.05 || 1;
  low = low >= 0 && kind !== "time" ? Math.max(0, low - margin) : low - margin; high += margin;
  const place = (value) => from + ((value - low) / (high - low)) * (to - from);
  const wanted = Math.max(2, Math.floor(Math.abs(to - from) / (kind === "time" ? 90 : 55)));
  if (kind !== "time") return { place, ticks: roundTicks(low, high, wanted), text: plainNumber };
  const [ticks, step] = timeTicks(low, high, wanted);
  return { place, ticks, text: (tick) => timeText(tick, step) };
}

// Draw a chart. options: { label, x, y, yText, xText, width, height, hline: [value, text] }; series: a list of
// { points: [[x, y, title, low, high]], kind: "mark" | "hollow" | "line" | "step", colour, old, flags }.
export function chart(options, series) {
  const width = options.width, height = options.height || Math.round(Math.min(300, Math.max(200, width * 0.48)));
  const left = 52, right = 10, top = 12, bottom = 36;
  const points = series.flatMap((one) => one.points);
  const element = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.label });
  if (!points.length) return element;
  const xs = scale(options.x || "linear", [...points.map((one) => one[0]), ...(options.xAlso || [])], left + 4, width - right);
  const ends = points.flatMap((one) => [one[1], one[3], one[4]]).filter((one) => one !== undefined && one !== null);
  if (options.hline) ends.push(options.hline[0]);
  const ys = scale(options.y || "linear", ends, height - bottom, top);
  for (const tick of ys.ticks) {
    const y = ys.place(tick);
    element.append(svg("line", { x1: left, x2: width - right, y1: y, y2: y, class: "grid" }));
    element.append(svg("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, ys.text(tick)));
  }
  for (const tick of xs.ticks) {
    const x = xs.place(tick);
    if (x > width - right + 1 || x < left) continue;
    element.append(svg("line", { x1: x, x2: x, y1: height - bottom, y2: height - bottom + 4, class: "axis" }));
    element.append(svg("text", { x, y: height - bottom + 16, "text-anchor": x > width - 30 ? "end" : "middle" }, xs.text(tick)));
  }
  element.append(svg("line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis" }));
  if (options.xText) element.append(svg("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, options.xText));
  for (const one of series) {
    const group = svg("g", { class: one.colour + (one.old ? " old" : "") });
    const places = one.points.map((point) => [xs.place(point[0]), ys.place(point[1])]);
    if (one.kind === "line" || one.kind === "step") {
      let path = "";
      places.forEach(([x, y], at) => { path += at === 0 ? `M${x.toFixed(1)} ${y.toFixed(1)}` : one.kind === "step" ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `L${x.toFixed(1)} ${y.toFixed(1)}`; });
      group.append(svg("path", { d: path, class: `line ${one.kind}` }));
    }
    if (one.kind !== "step") one.points.forEach(([, , title, low, high], at) => {
      const [x, y] = places[at];
      if (low !== undefined && low !== null && high !== null) group.append(svg("line", { x1: x, x2: x, y1: ys.place(low), y2: ys.place(high), class: "whisker" }));
      const mark = svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: one.radius || (one.points.length > 400 ? 2 : 3.2), class: one.kind === "hollow" ? "hollow" : "mark" });
      if (title) mark.append(svg("title", {}, title));
      group.append(mark);
      if (one.flags && one.flags[at]) group.append(svg("text", { x, y: y - 12, "text-anchor": x > width - 70 ? "end" : "middle", class: "flag" }, one.flags[at]));
    });
    element.append(group);
  }
  if (options.hline) {
    const y = ys.place(options.hline[0]);
    element.append(svg("line", { x1: left, x2: width - right, y1: y, y2: y, class: "limit" }), svg("text", { x: left + 6, y: y - 5, class: "label" }, options.hline[1]));
  }
  if (options.vline) {
    const x = xs.place(options.vline[0]);
    element.append(svg("line", { x1: x, x2: x, y1: top, y2: height - bottom, class: "limit" }), svg("text", { x: x + 5, y: top + 10, class: "label" }, options.vline[1]));
  }
  return element;
}
