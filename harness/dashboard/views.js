// The views. Each is a function of its place and parameters that returns { draw(data), update?(params), tab? }.

import { chart, plainNumber } from "./charts.js";

// Elements. Text is set as text, so that no name in a store can become markup.

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((one) => one !== null && one !== undefined && one !== ""));
  return element;
}

// Keep a place's children in step with new ones: what has not changed stays, so that a selection or a tooltip stays.
function replace(place, ...wanted) {
  const nodes = wanted.flat().filter((one) => one !== null && one !== undefined && one !== "");
  nodes.forEach((node, at) => {
    const there = place.childNodes[at];
    if (!there) place.append(node);
    else if (!there.isEqualNode(node)) there.replaceWith(node);
  });
  while (place.childNodes.length > nodes.length) place.lastChild.remove();
}

function fitRows(body, rows) {
  rows.forEach((row, at) => {
    const there = body.children[at];
    if (!there) return body.append(row);
    if (there.isEqualNode(row)) return;
    if (there.dataset.key !== row.dataset.key || there.children.length !== row.children.length) return there.replaceWith(row);
    [...row.children].forEach((cell, place) => {
      if (!there.children[place].isEqualNode(cell)) there.children[place].replaceWith(cell);
    });
  });
  while (body.children.length > rows.length) body.lastChild.remove();
}

// Time and numbers

let ahead = 0;
export const clock = {
  set(now) { ahead = now - Date.now() / 1000; },
  now: () => Date.now() / 1000 + ahead,
  refresh() { for (const node of document.querySelectorAll("time[data-at]")) { const text = ago(+node.dataset.at); if (node.textContent !== text) node.textContent = text; } },
};

function ago(at) {
  const seconds = clock.now() - at;
  if (!at) return "never";
  if (seconds < 10) return "now";
  if (seconds < 60) return `${Math.floor(seconds / 10) * 10} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 36 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

const when = (at) => new Date(at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
const age = (at) => (at ? h("time", { "data-at": at, title: when(at) }, ago(at)) : "–");
const count = (value) => value.toLocaleString("en");
const share = (value, digits = 1) => (value === null || value === undefined ? "–" : `${value.toFixed(digits)} %`);

function three(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 99.95) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return (+value.toPrecision(3)).toFixed(Math.abs(value) >= 9.995 ? 1 : Math.abs(value) >= 0.9995 ? 2 : Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
}
function latency(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0.1) return `${three(ms * 1000)} µs`;
  return ms >= 10000 ? `${three(ms / 1000)} s` : `${three(ms)} ms`;
}
const signed = (value) => `${value >= 0 ? "+" : "−"}${three(Math.abs(value))} %`;
const rate = (value) => (value === null || value === undefined ? "" : value >= 10 ? Math.round(value).toString() : value.toFixed(1));
const widthOf = (place) => Math.max(280, Math.min(1200, place.clientWidth || 600));
const simulated = (mark) => (mark ? h("span", { class: "tag" }, "simulated") : "");
const td = (name, kind, ...children) => h("td", { "data-name": name || null, class: kind || null }, ...children);
const key = (...entries) => h("ul", { class: "key" }, ...entries.map(([colour, kind, text]) => h("li", { class: colour }, h("i", { class: kind }), text)));

function tiles(...entries) {
  return h("dl", { class: "tiles" }, ...entries.filter(Boolean).map(([name, value, unit, alarm]) =>
    h("div", { class: alarm ? "alarm" : null }, h("dt", {}, name), h("dd", {}, value, unit ? h("small", {}, ` ${unit}`) : ""))));
}

function table(kind, names, rows) {
  return h("table", { class: kind }, h("thead", {}, h("tr", {}, ...names.map(([name, cls]) => h("th", { class: cls || null }, name)))), h("tbody", {}, ...rows));
}

function bar(line) {
  const all = Math.max(line.planned || 0, line.ok + line.failed + line.open);
  if (!all) return "";
  const element = h("span", { class: "bar", role: "img", "aria-label": progressText(line) });
  for (const [number, kind] of [[line.ok, ""], [line.so_far, "partly"], [line.failed, "failed"]]) {
    const part = h("i", { class: kind });
    part.style.width = `${(100 * number) / all}%`;
    element.append(part);
  }
  return element;
}

function progressText(line) {
  const done = line.ok + line.so_far;
  const of = line.planned ? ` of ${count(line.planned)}` : "";
  return `${count(done)}${of}${line.failed ? `, ${count(line.failed)} failed` : ""}`;
}

const DOTS = { measuring: "good", lost: "bad", "given up": "bad", silent: "warn", idle: "empty", unfinished: "warn", done: "empty" };
const state = (word, hint) => h("span", { class: "nowrap", title: hint || null }, h("i", { class: `dot ${DOTS[word]}` }), word);
const HINTS = {
  silent: "There are unfinished rows, and nothing has come for a minute: the command has ended early, or waits.",
  lost: "The link is lost; latlab tries again.",
  "given up": "latlab has given this device up in its last run.",
};
const sessionLink = (campaign, session) => `#session?campaign=${encodeURIComponent(campaign)}&session=${session}`;

// Fleet

function fleet(place) {
  const head = h("div"), filter = h("input", { type: "search", placeholder: "device, space or state", "aria-label": "Filter devices", on: { input: () => draw(last) } });
  const controls = h("div", { class: "controls" }, h("label", {}, "Filter", filter));
  const names = [["device"], ["state"], ["doing"], ["progress"], ["labels/min", "number"], ["°C", "number"], ["labels", "number"], ["failed", "number"], ["last labels"]];
  const grid = table("cards", names, []), body = grid.tBodies[0], below = h("div");
  place.append(head, h("h2", {}, "Devices"), controls, grid, below);
  let last = null;
  function draw(data) {
    last = data;
    const s = data.states;
    replace(head, tiles(
      ["measuring", count(s.measuring), `of ${count(data.devices.length + data.left_out)}`],
      ["labels", data.per_minute ? count(Math.round(data.per_minute)) : "–", "a minute"],
      ["lost or given up", count(s.lost + s["given up"]), "", s.lost + s["given up"] > 0],
      s.silent ? ["silent", count(s.silent), ""] : null,
      ["hottest at work", data.hottest_c === null ? "–" : Math.round(data.hottest_c), data.hottest_c === null ? "" : "°C"],
      ["in the store", count(data.ok), data.failed ? `labels, ${count(data.failed)} failed` : "labels"],
    ));
    controls.hidden = data.devices.length < 8;
    const word = filter.value.trim().toLowerCase();
    const shown = data.devices.filter((one) => !word || `${one.name} ${one.state} ${one.space} ${one.target}`.toLowerCase().includes(word));
    fitRows(body, shown.map(deviceRow));
    replace(below,
      data.devices.length ? null : h("p", { class: "hint" }, "No device has measured into this store yet. This page fills by itself."),
      data.left_out ? h("p", { class: "faint" }, `${count(data.left_out)} more devices are not shown.`) : null,
      data.incidents.length ? h("h2", {}, "What happened") : null,
      data.incidents.length ? h("ul", { class: "incidents" }, ...data.incidents.map((one) =>
        h("li", {}, age(one.at), h("b", { class: one.kind === "back" ? "good" : "alarm" }, one.kind), ` ${one.device}: ${one.message}`))) : null);
  }
  return { draw };
}

function deviceRow(one) {
  const line = one.progress;
  const active = one.state === "measuring" || one.state === "silent";
  const trouble = one.incident && (one.state === "lost" || one.state === "given up") ? one.incident.message : "";
  return h("tr", { "data-key": one.name },
    td("", "name wide", one.campaign ? h("a", { href: sessionLink(one.campaign, one.session) }, one.name) : one.name, simulated(one.simulated)),
    td("", "", state(one.state, HINTS[one.state]), one.state === "measuring" || !one.last ? "" : h("span", { class: "sub" }, age(one.last))),
    td("", "wide", trouble ? h("span", { class: "sub alarm" }, trouble) : "", active ? one.space : one.space ? h("span", { class: "faint" }, `last: ${one.space}`) : "", active && one.doing ? h("span", { class: "arch cut", title: one.doing }, one.doing) : ""),
    td("", "", line ? progressText(line) : "", line ? bar(line) : "", line && line.left ? h("span", { class: "sub" }, `${line.left} left`) : ""),
    td("labels/min", "number", rate(one.per_minute)),
    td("°C", "number", one.temperature_c === null || !active ? "" : Math.round(one.temperature_c).toString()),
    td("labels", "number", count(one.ok)),
    td("failed", one.failed ? "number alarm" : "number", one.failed ? h("span", { title: one.last_error }, count(one.failed)) : "0"),
    td("", "wide nowrap", ...one.labels.slice(0, 3).flatMap((row, at) => [at ? " · " : "", lastLabel(row)])));
}

function lastLabel(row) {
  const failed = row.ms === null;
  const hint = `${row.arch}\n${failed ? row.status : row.status === "ok" ? row.verdict || "good" : "more passes to come"}`;
  return h("span", { class: failed ? "alarm" : null, title: hint }, failed ? row.status : latency(row.ms));
}

// Campaigns

function campaigns(place) {
  const names = [["target"], ["space"], ["what"], ["state"], ["progress"], ["labels/min", "number"], ["began"], ["last"]];
  const grid = table("cards", names, []), below = h("div");
  place.append(grid, below);
  return {
    draw(data) {
      fitRows(grid.tBodies[0], data.sessions.map((one) => h("tr", { "data-key": `${one.campaign}/${one.session}`, class: "link", on: { click: () => { location.hash = sessionLink(one.campaign, one.session); } } },
        td("", "name wide", h("a", { href: sessionLink(one.campaign, one.session) }, one.target), simulated(one.simulated)),
        td("", "", one.space),
        td("", "", one.kind, h("span", { class: "sub" }, `session ${one.session}, ${one.policy}`)),
        td("", "", state(one.state), one.lost ? h("span", { class: "sub alarm" }, `${count(one.lost)} lost with the device`) : ""),
        td("", "", progressText(one), bar(one), one.left ? h("span", { class: "sub" }, `${one.left} left`) : ""),
        td("labels/min", "number", rate(one.per_minute)),
        td("began", "nowrap", age(one.first)),
        td("last", "nowrap", age(one.last)))));
      replace(below,
        data.sessions.length ? null : h("p", { class: "hint" }, "Nothing was measured into this store yet. This page fills by itself."),
        data.left_out ? h("p", { class: "faint" }, `${count(data.left_out)} older sessions are not shown.`) : null);
    },
  };
}

function session(place) {
  const head = h("div"), charts = h("div", { class: "pair" }), failures = h("div");
  place.append(head, charts, failures);
  let drawn = "";
  return {
    tab: "campaigns",
    draw(data) {
      if (data.error) return replace(head, h("p", { class: "notice" }, data.error));
      const one = data.line;
      const verdicts = Object.entries(data.verdicts).map(([kind, number]) => `${count(number)} ${kind}`).join(", ");
      replace(head,
        h("h2", {}, one.target, " ", h("span", { class: "faint" }, `${one.space}, ${one.kind}, session ${one.session}`), simulated(one.simulated)),
        tiles(
          ["state", one.state, ""],
          one.left ? ["left", one.left.replaceAll(" min to ", " to "), ""] : null,
          ["networks", count(one.ok + one.so_far), one.planned ? `of ${count(one.planned)}` : ""],
          ["failed", count(one.failed), "", one.failed > 0],
          ["labels", one.per_minute ? rate(one.per_minute) : "–", "a minute"],
          data.drift_percent === null ? null : ["drift removed", three(data.drift_percent), "%"]),
        h("p", { class: "hint" }, verdicts ? `Labels: ${verdicts}. ` : "", `Began ${when(one.first)}; last sign ${when(one.last)}.`));
      const picture = JSON.stringify([data.labels, data.curve, charts.clientWidth]);
      if (picture === drawn) return;
      drawn = picture;
      charts.replaceChildren();
      if (data.curve.length) charts.append(learning(data.curve, charts));
      if (data.labels.length) charts.append(labelChart(data, charts));
      replace(failures, data.failures.length ? [h("h3", {}, "Failures"), table("cards", [["network"], ["kind"], ["message"], [""]], data.failures.map((row) =>
        h("tr", {}, td("", "arch wide", row.arch), td("", "alarm nowrap", row.kind), td("", "wide", row.error), td("", "nowrap faint", age(row.at)))))] : null);
    },
  };
}

const half = (place) => (place.clientWidth > 700 ? Math.floor((place.clientWidth - 32) / 2) : widthOf(place));

function learning(curve, place) {
  const of = (name) => curve.filter((one) => one[name] !== null).map((one) => [one.n, one[name], `${one.n} labels: ${one[name].toFixed(3)}`]);
  const loo = of("loo_spearman"), holdout = of("holdout_spearman"), error = curve.filter((one) => one.loo_mape_percent !== null);
  const last = error.length ? error[error.length - 1] : null;
  return h("figure", {}, h("h3", {}, "Learning curve"),
    key(["first", "", "leave-one-out"], ...(holdout.length ? [["second", "hollow", "hold-out"]] : [])),
    chart({ label: "Rank correlation against the number of labels", width: half(place), xText: "labels" }, [
      { points: loo, kind: "line", colour: "first" }, { points: holdout, kind: "line", colour: "second" }]),
    h("figcaption", {}, "Rank correlation of the predictor with the measured latencies.", last ? ` Its mean error after ${last.n} labels is ${three(last.loo_mape_percent)} %.` : ""));
}

function labelChart(data, place) {
  const title = (one) => `${one.arch}\n${latency(one.ms)}${one.verdict ? `, ${one.verdict}` : ""}\n${when(one.at)}`;
  const point = (one, at) => [at + 1, one.ms, title(one)];
  const all = data.labels.map((one, at) => ({ one, point: point(one, at) }));
  const pick = (test) => all.filter(({ one }) => test(one)).map((entry) => entry.point);
  const good = pick((one) => one.status === "ok" && !one.verdict), doubtful = pick((one) => one.status === "ok" && one.verdict), open = pick((one) => one.status !== "ok");
  return h("figure", {}, h("h3", {}, "Latencies in the order of measuring"),
    key(["second", "", "good"], ...(doubtful.length ? [["alarm", "", "doubtful"]] : []), ...(open.length ? [["cloud", "hollow", "more passes to come"]] : [])),
    chart({ label: "Latency of each network in the order of measuring", width: half(place), y: "log", xText: "order of measuring" }, [
      { points: good, kind: "mark", colour: "second" }, { points: doubtful, kind: "mark", colour: "alarm" }, { points: open, kind: "hollow", colour: "cloud" }]),
    h("figcaption", {}, "Milliseconds.", data.left_out ? ` The newest ${count(data.labels.length)} are drawn.` : ""));
}

// A choice of target and space, and perhaps of a network

function chooser(name, withNetwork) {
  const pairs = h("select", { "aria-label": "Target and space" }), network = h("select", { "aria-label": "Network" });
  const go = () => {
    const [target, space] = JSON.parse(pairs.value);
    const asked = new URLSearchParams({ target, space });
    if (withNetwork && network.value && chosen && chosen.target === target && chosen.space === space) asked.set("arch", network.value);
    location.hash = `#${name}?${asked}`;
  };
  let chosen = null;
  pairs.addEventListener("change", go); network.addEventListener("change", go);
  const element = h("div", { class: "controls" }, h("label", {}, "Target and space", pairs), withNetwork ? h("label", {}, "Network", network) : "");
  return {
    element,
    draw(data) {
      chosen = data.chosen;
      element.hidden = !chosen;
      if (!chosen) return;
      const now = JSON.stringify([chosen.target, chosen.space]);
      if (document.activeElement !== pairs) replace(pairs, data.pairs.map((one) => { const value = JSON.stringify([one.target, one.space]); return h("option", { value, selected: value === now }, `${one.target} · ${one.space} (${count(one.labels)} labels, ${count(one.sessions)} session${one.sessions === 1 ? "" : "s"})`); }));
      if (pairs.value !== now) pairs.value = now;
      if (!withNetwork) return;
      if (document.activeElement !== network) replace(network, data.networks.map((one) => h("option", { value: one.arch, selected: one.arch === chosen.arch }, `${one.slower ? "▲ " : ""}${one.arch} (${count(one.sessions)} session${one.sessions === 1 ? "" : "s"}${one.slower ? `, ${count(one.slower)} regression${one.slower === 1 ? "" : "s"}` : ""})`)));
      if (network.value !== chosen.arch) network.value = chosen.arch;
    },
  };
}

// A view of what is chosen, which is drawn anew only when something of `parts(data)` or the width has changed.
function chosenView(place, name, whole, parts, draw) {
  const choice = chooser(name, whole), body = h("div");
  place.append(choice.element, body);
  let drawn = "";
  return {
    update: () => true,
    draw(data) {
      choice.draw(data);
      const text = JSON.stringify([...parts(data), body.clientWidth]);
      if (text === drawn) return;
      drawn = text;
      draw(data, body);
    },
  };
}

// Quality

function quality(place) {
  return chosenView(place, "quality", false, (data) => [data.quality, data.error, data.assessed], (data, body) => {
    if (!data.chosen) return replace(body, h("p", { class: "hint" }, "There are no labels to assess yet."));
    if (data.error) return replace(body, h("p", { class: "notice" }, data.error));
    if (!data.quality) return replace(body, h("p", { class: "hint" }, "The labels are being assessed …"));
    body.replaceChildren(...qualityParts(data.quality, body, data));
  });
}

const GRADES = { fit: "good", usable: "warn", unfit: "alarm", unknown: "faint" };

function qualityParts(q, place, data) {
  const verdicts = Object.entries(q.labels.verdicts).map(([kind, number]) => `${count(number)} ${kind}`).join(", ");
  const facts = [
    ["labels", `${count(q.labels.labels)} of ${count(q.labels.networks)} networks${q.labels.failed ? `, ${count(q.labels.failed)} failed` : ""}${q.labels.copied ? `, ${count(q.labels.copied)} copied` : ""}`],
    ["verdicts", verdicts || "not judged"],
    ["error within a session", share(q.labels.stderr_percent, 2)],
    ["between sessions", q.between ? `${share(q.between.common_percent, 2)} of all labels together, ${share(q.between.specific_percent, 2)} of each` : "nothing was measured twice"],
    ["ceiling of rank correlation", q.ceiling.spearman === null ? "not known" : q.ceiling.spearman.toFixed(4)],
    ["two sessions agree to", q.again ? `${q.again.retest.spearman.toFixed(4)} (rank correlation of ${count(q.again.retest.networks || q.labels.networks)} networks)` : "no two have enough networks in common"],
    ["time spent timing", q.timing_share === null ? "–" : `${Math.round(100 * q.timing_share)} %`],
    ["policies", q.policies.join(", ")],
  ];
  const points = q.sessions.map((one) => [Date.parse(one.started) / 1000, one]);
  const series = (name) => points.filter(([, one]) => one[name] !== null).map(([at, one]) => [at, one[name], `${when(at)}, ${one.selection}, session ${one.number}: ${share(one[name], 2)}`]);
  const parts = [
    h("p", { class: "verdict" }, h("b", { class: `grade ${GRADES[q.fitness.grade]}` }, q.fitness.grade), `. ${q.fitness.why} `, h("span", { class: "faint" }, q.fitness.advice), simulated(q.simulated)),
    h("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))];
  const drifts = q.sessions.some((one) => one.drift_percent || one.slow_percent);
  if (points.length > 1 && !drifts) parts.push(h("p", { class: "hint" }, `No drift was found in ${count(points.length)} sessions.`));
  if (points.length > 1 && drifts) parts.push(h("figure", {}, h("h3", {}, "Sessions"), key(["first", "", "drift within the session"], ["second", "hollow", "what labels near each other in time still have in common"]),
    chart({ label: "Drift of each session", width: widthOf(place), height: 220, x: "time" }, [
      { points: series("drift_percent"), kind: "mark", colour: "first" }, { points: series("slow_percent"), kind: "hollow", colour: "second" }]),
    h("figcaption", {}, "Per cent of the latency.")));
  parts.push(h("p", { class: "hint" }, `Assessed with ${count(data.assessed)} labels; more of them are assessed after half a minute or longer.`));
  return parts;
}

// Search

function search(place) {
  const body = h("div");
  place.append(body);
  let drawn = "";
  return {
    draw(data) {
      const text = JSON.stringify([data, body.clientWidth]);
      if (text === drawn) return;
      drawn = text;
      if (!data.searches.length) return replace(body, h("p", { class: "hint" }, "No search has noted its rounds in this store yet. latlab search does, as soon as it measures."));
      body.replaceChildren(...data.searches.flatMap((one) => oneSearch(one, body)));
    },
  };
}

const ENDS = { stands: "the answer stands", "budget spent": "the budget is spent", "nothing found": "no network keeps the limits" };

function oneSearch(one, place) {
  const rounds = one.rounds, last = rounds[rounds.length - 1];
  const title = ([ratio, accuracy], what) => `${what}\n${Math.round(100 * ratio)} % of the limit\naccuracy ${plainNumber(accuracy)}`;
  const series = rounds.slice(-6).map((each, at, all) => ({ points: each.front.map((p) => [p[0] * 100, p[1], title(p, "predicted")]), kind: "step", colour: at === all.length - 1 ? "second" : "cloud", old: at < all.length - 1 }));
  if (last) {
    series.push({ points: last.measured.map((p) => [p[0] * 100, p[1], title(p, "measured")]), kind: "mark", colour: "second" });
    const best = rounds.filter((each) => each.best).map((each) => [each.best.ratio * 100, each.best.accuracy, `best after round ${each.round}\n${each.best.arch}`]);
    if (best.length) series.push({ points: best.slice(-1), kind: "mark", colour: "first", radius: 5.5 });
  }
  // A front may reach far beyond the limit, and networks that were measured to know the device far below it.
  const all = series.flatMap((each) => (each.kind === "step" ? each.points : [])).filter((p) => p[0] <= 160).map((p) => p[1]);
  const least = Math.min(...all) - 0.5 * (Math.max(...all) - Math.min(...all));
  const near = (p) => p[0] <= 160 && !(p[1] < least);
  const before = last ? last.measured.length : 0;
  if (all.length > 1) for (const each of series) each.points = each.points.filter(near);
  const away = last ? before - series.find((each) => each.kind === "mark").points.length : 0;
  return [
    h("h2", {}, one.space, " ", h("span", { class: "faint" }, `at most ${one.limits.join(", ")}`), simulated(one.simulated)),
    h("p", { class: "hint" }, one.state === "running" ? "Running" : `Ended: ${ENDS[one.found] || one.found || "interrupted"}`, `; ${count(one.spent || 0)} of ${count(one.budget || 0)} networks measured; accuracy: ${one.accuracy}; last sign `, age(one.at), "."),
    h("figure", {}, key(["second", "bar-key", "predicted front"], ["second", "", "measured"], ["first", "", "best that keeps the limit"], ...(rounds.length > 1 ? [["cloud", "bar-key", "fronts of earlier rounds"]] : [])),
      chart({ label: "Pareto front of accuracy and latency", width: widthOf(place), height: 320, xText: "latency, % of the limit", vline: [100, "limit"], xAlso: [100, 104] }, series),
      away ? h("figcaption", {}, `${count(away)} measured networks lie outside of this picture.`) : ""),
    last && last.best ? h("p", { class: "faint" }, "Best so far: ", h("span", { class: "arch" }, last.best.arch), ` (accuracy ${plainNumber(last.best.accuracy)}, ${Math.round(100 * last.best.ratio)} % of the limit)`) : null,
  ].filter(Boolean);
}

// Compare

function compare(place) {
  const body = h("div");
  place.append(body);
  return {
    draw(data) {
      if (!data.comparisons.length) return replace(body, h("p", { class: "hint" }, "There are no comparisons in this store yet (latlab compare)."));
      replace(body, data.comparisons.flatMap((one) => [
        h("h2", {}, one.target, " ", h("span", { class: "faint" }, age(one.at), one.status ? `, ${one.status}` : "", one.blocks ? ` after ${count(one.blocks)} blocks` : ""), simulated(one.simulated)),
        one.pairs.length ? table("cards", [["faster"], ["slower"], ["by", "number"], [one.confidence ? `${Math.round(100 * one.confidence)} % interval` : "interval", "number"], ["verdict"]], one.pairs.map(pairRow)) : table("cards", [["network"], ["shortest run", "number"], ["status"]], one.models.map((model) =>
          h("tr", {}, td("", "wide", model.name), td("shortest run", "number", latency(model.ms)), td("", model.status === "ok" ? "" : "alarm", model.status, model.error ? h("span", { class: "sub" }, model.error) : "")))),
      ]));
    },
  };
}

function pairRow(one) {
  const turned = one.second_longer < 0;
  const [fast, slow] = turned ? [one.second, one.first] : [one.first, one.second];
  // Seen from the faster one: if b is p % longer than a, a is -p / (1 + p) longer than b.
  const turn = (p) => (p === null ? null : turned ? 100 * (1 / (1 + p / 100) - 1) : p);
  const ends = [turn(one.low), turn(one.high)].sort((a, b) => a - b);
  const interval = one.low === null || one.high === null ? "not known yet" : `${signed(ends[0]).slice(0, -2)} to ${signed(ends[1])}`;
  const settled = one.verdict === "faster" || one.verdict === "slower";
  return h("tr", {}, td("faster", settled ? "good wide" : "wide", fast), td("slower", "wide", slow), td("slower by", "number", one.second_longer === null ? "–" : signed(turn(one.second_longer))), td("interval", "number", interval),
    td("", settled ? "nowrap" : "nowrap faint", settled ? "certain" : one.verdict));
}

// History

function history(place) {
  return chosenView(place, "history", true, (data) => [data.points, data.chosen, data.error], (data, body) => {
    if (data.error) return replace(body, h("p", { class: "notice" }, data.error));
    if (!data.points.length) return replace(body, h("p", { class: "hint" }, "There is no label to show yet."));
    body.replaceChildren(...historyParts(data, body));
  });
}

function historyParts(data, place) {
  const title = (one) => `${when(one.at)}\n${latency(one.ms)}${one.verdict ? `, ${one.verdict}` : ""}${one.change ? `\n${signed(one.change.percent)} against the level before (${signed(one.change.low_percent)} to ${signed(one.change.high_percent)})` : ""}`;
  const point = (one) => [one.at, one.ms, title(one), one.low, one.high];
  const kind = (one) => (one.change ? one.change.kind : "");
  const of = (word) => data.points.filter((one) => kind(one) === word);
  const slower = of("slower"), faster = of("faster"), marked = data.points.filter(kind).reverse();
  const flags = (rows) => rows.map((one) => signed(one.change.percent));
  return [
    h("p", { class: "verdict" }, slower.length ? h("b", { class: "alarm" }, `${count(slower.length)} regression${slower.length === 1 ? "" : "s"}`) : h("span", { class: "good" }, "No regression"), ` in ${count(data.points.length)} session${data.points.length === 1 ? "" : "s"}.`),
    h("figure", {}, key(["second", "", "label, with its 95 % interval"], ["alarm", "", "slower"], ["good", "", "faster"]),
      chart({ label: "Latency of one network over time", width: widthOf(place), height: 320, x: "time" }, [
        { points: data.points.map(point), kind: "line", colour: "second", radius: 2.6 },
        { points: slower.map(point), kind: "mark", colour: "alarm", radius: 5.5, flags: flags(slower) },
        { points: faster.map(point), kind: "mark", colour: "good", radius: 5.5, flags: flags(faster) }]),
      h("figcaption", {}, data.points.some((one) => one.change && one.change.anchors > 1) ? "" : data.points.length > 1 ? "The sessions have no anchors in common, so that only large changes can be told from the scatter between sessions. " : "", `Milliseconds. A session is marked if the network is more than ${data.limit_percent} % slower or faster than at the level before, beyond chance, and the anchors say that it is not the device as a whole.`)),
    marked.length ? table("cards", [["when"], ["change", "number"], ["99.9 % bounds", "number"], ["label", "number"], ["anchors", "number"]], marked.map((one) =>
      h("tr", {}, td("", "wide", when(one.at)), td("", kind(one) === "slower" ? "number alarm" : "number good", signed(one.change.percent)), td("", "number", `${signed(one.change.low_percent).slice(0, -2)} to ${signed(one.change.high_percent)}`), td("label", "number", latency(one.ms)), td("anchors", "number", count(one.change.anchors))))) : null,
  ].filter(Boolean);
}

export const views = { fleet, campaigns, session, quality, search, compare, history };
