// Comfort only: the page is complete without this file. Text reaches the page as text, never as markup of a stranger's:
// what is swapped in was written and escaped by standin itself.
"use strict";

const every = (selector, act, root = document) => root.querySelectorAll(selector).forEach(act);

// "12 min ago" stays true.
function span(seconds) {
  const s = Math.floor(seconds);
  const h = Math.floor(s / 3600), m = Math.floor(s / 60);
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${m} min`;
  if (s < 36000 && m % 60) return `${h} h ${m % 60} min`;
  return s < 172800 ? `${h} h` : `${Math.floor(h / 24)} d`;
}
function ages() {
  every("time[data-ago]", (time) => {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    time.textContent = seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
  });
}
setInterval(ages, 10000);

// "/" goes to the search, wherever nothing is being written.
document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("find").focus();
  }
});

// Parts marked data-live are fetched anew every few seconds while somebody looks, unless somebody is using them.
async function renew() {
  const live = [...document.querySelectorAll("[data-live]")];
  if (document.hidden || live.length === 0) return;
  try {
    const answer = await fetch(location.pathname + location.search, { credentials: "same-origin" });
    if (!answer.ok) return stale(true);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of live) {
      const next = fresh.getElementById(part.id);
      const used = part.contains(document.activeElement) || part.querySelector("details[open]");
      if (next && !used && next.outerHTML !== part.outerHTML) part.replaceWith(document.adoptNode(next));
    }
    document.title = fresh.title;
    stale(false);
  } catch {
    stale(true);
  }
}
function stale(is) {
  document.body.classList.toggle("stale", is);
}
setInterval(renew, 5000);

// Replay runs: live progress by server-sent events.
const runs = document.querySelector("[data-runs]");
const group = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
function progress(list) {
  const shown = new Map([...runs.querySelectorAll("[data-run]")].map((run) => [run.dataset.run, run]));
  const goingOn = list.filter((run) => run.state === "running" || run.state === "waiting");
  if (goingOn.some((run) => !shown.has(run.id)) || goingOn.length !== shown.size) {
    location.replace("/replay"); // a run came or ended: the server writes the page
    return;
  }
  for (const run of goingOn) {
    const finished = run.completed + run.already_applied + run.declined + run.held;
    every("[data-f]", (field) => {
      const name = field.dataset.f;
      if (name === "progress") field.value = run.total ? (100 * finished) / run.total : 100;
      else if (name === "state") {
        field.textContent = run.state;
        field.className = `badge ${run.state === "running" ? "good" : "warn"}`;
      } else if (name === "state_why") field.textContent = run.state_why ?? "";
      else if (name === "finished") field.textContent = group(finished);
      else field.textContent = group(run[name]);
    }, shown.get(run.id));
  }
}
let events = null;
function follow() {
  if (!runs) return;
  if (document.hidden) {
    events?.close();
    events = null;
  } else if (!events) {
    events = new EventSource("/api/v1/replay/events");
    events.addEventListener("runs", (event) => progress(JSON.parse(event.data).runs));
    events.onerror = () => stale(true);
    events.onopen = () => stale(false);
  }
}
document.addEventListener("visibilitychange", follow);
follow();
