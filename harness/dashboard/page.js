// The frame of the page: which view is open, the events that bring it, and the state of the connection.

import { views, clock } from "./views.js";

const main = document.getElementById("main");
const pulse = document.getElementById("pulse");
const trouble = document.getElementById("trouble");
let source = null, open = null, lastPulse = 0, shown = "";

function route() {
  const [name, query] = location.hash.slice(1).split("?");
  return { name: views[name] ? name : "fleet", params: new URLSearchParams(query || "") };
}

function setPulse(kind, text) {
  pulse.firstElementChild.className = `dot ${kind}`;
  pulse.lastElementChild.textContent = text;
}

function show() {
  const { name, params } = route();
  if (open && open.name === name && open.update && open.update(params)) return connect(name, params);
  main.replaceChildren();
  shown = "";
  const view = views[name](main, params);
  open = { name, ...view };
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === `#${view.tab || name}`;
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    if (here) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  connect(name, params);
}

function connect(name, params) {
  if (source) source.close();
  const asked = new URLSearchParams(params);
  asked.set("view", name);
  source = new EventSource(`/live?${asked}`);
  const mine = source;
  source.addEventListener("view", (event) => {
    if (mine !== source) return;
    shown = event.data;
    open.draw(JSON.parse(shown));
  });
  source.addEventListener("pulse", (event) => {
    const now = JSON.parse(event.data);
    clock.set(now.now);
    lastPulse = Date.now();
    document.getElementById("store").textContent = now.store;
    document.title = `latlab · ${now.store}`;
    trouble.hidden = !now.trouble;
    trouble.textContent = now.trouble ? `The store cannot be read just now: ${now.trouble}` : "";
    setPulse(now.trouble ? "bad" : "good", "live");
  });
  source.onerror = async () => {
    setPulse("bad", "no connection, trying again …");
    if (source.readyState !== EventSource.CLOSED) return;
    const answer = await fetch("/live?view=fleet&once=1", { redirect: "manual" }).catch(() => null);
    if (answer && answer.status === 401) location.assign("/login");
    else setTimeout(() => mine === source && connect(name, params), 2000);
  };
}

addEventListener("hashchange", show);
// Charts are as wide as their place, and times such as "3 min ago" grow older.
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width && shown) { width = innerWidth; open.draw(JSON.parse(shown)); } });
setInterval(() => {
  if (Date.now() - lastPulse > 6000 && lastPulse) setPulse("bad", "no connection, trying again …");
  if (!document.hidden) clock.refresh();
}, 1000);
show();
