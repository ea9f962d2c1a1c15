/* Keeps an open page in the server's state.

   <body data-live-socket="/o/<slug>/ws/live">          where hints come from: {"type": "alert.changed", "id": 7}
   <… data-live="alert incident" hx-get="…" hx-trigger="refresh">   refetched when one of these changed
   <… data-live="points" data-chart>                    gets the event "refresh" and helps itself
   data-live-every="10"                                 at most once in so many seconds (default 1)
   data-live-hold                                       waits while the pointer is in use on it
   [data-live-chip]                                     says whether the page is live

   A lost socket is shown at once and bridged by polling; after every reconnection all is fetched
   again, since hints may have been missed. */
const POLL = 10000;
const JITTER = 500;
const LONGEST_WAIT = 30000;
const PING = 20000;
const POINTER_IDLE = 4000;

const path = document.body.dataset.liveSocket;
const chip = document.querySelector("[data-live-chip]");
const last = new WeakMap();
const due = new WeakMap();
const shown = new WeakMap();
const missed = new Set();
let failures = 0;
let polling = null;
let opened = false;
let pointerAt = 0;

function say(state, word) {
  if (!chip || chip.dataset.state === state) return;
  chip.dataset.state = state;
  chip.querySelector("[data-word]").textContent = word;
}

/* -- refetching -- */

function every() {
  return document.querySelectorAll("[data-live]");
}

function refreshAll(within = JITTER) {
  for (const element of every()) soon(element, within);
}

function soon(element, jitter = JITTER) {
  if (due.has(element)) return;
  if (document.hidden) {
    missed.add(element);
    return;
  }
  const gap = Number(element.dataset.liveEvery || 1) * 1000;
  const wait = Math.max(0, (last.get(element) ?? -Infinity) + gap - performance.now());
  due.set(element, setTimeout(() => refresh(element), wait + Math.random() * jitter));
}

function refresh(element) {
  due.delete(element);
  if (!element.isConnected) return;
  if (held(element)) {
    pill(element);
    return;
  }
  last.set(element, performance.now());
  window.htmx.trigger(element, "refresh");
}

/* -- what the pointer is on does not move -- */

function held(element) {
  return element.hasAttribute("data-live-hold") && performance.now() - pointerAt < POINTER_IDLE && element.matches(":hover");
}

function pill(element) {
  if (element.dataset.liveWaits) return;
  element.dataset.liveWaits = "yes";
  const release = () => {
    if (!element.isConnected || (element.matches(":hover") && performance.now() - pointerAt < POINTER_IDLE)) return;
    clearInterval(timer);
    delete element.dataset.liveWaits;
    soon(element, 0);
  };
  const timer = setInterval(release, 500);
  element.addEventListener("pointerleave", release, { once: true });
}

document.addEventListener("pointermove", () => {
  pointerAt = performance.now();
}, { passive: true });

/* -- an answer that says the same changes nothing (ages tick by themselves) -- */

document.addEventListener("htmx:beforeSwap", (event) => {
  const element = event.detail.requestConfig.elt;
  if (!element.matches("[data-live]") || event.detail.requestConfig.verb !== "get" || !event.detail.shouldSwap) return;
  const text = event.detail.xhr.responseText.replace(/(<time[^>]*>)[^<]*/g, "$1");
  if (shown.get(element) === text) event.detail.shouldSwap = false;
  else shown.set(element, text);
});

/* -- what somebody has opened stays open: details are the same by their id, else by their summary
      and the row they stand in, which says by data-same what it is -- */

const named = (details) => details.id
  || `${details.closest("[data-same]")?.dataset.same ?? ""} ${details.querySelector("summary")?.textContent.trim() ?? ""}`;
const unfolded = new WeakMap();
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target } = event.detail;
  if (!target?.matches?.("[data-live]")) return;
  unfolded.set(target, [...target.querySelectorAll("details[open]")].map(named));
});
document.addEventListener("htmx:afterSwap", (event) => {
  const { target } = event.detail;
  const open = [...(unfolded.get(target) ?? [])];
  for (const details of open.length ? target.querySelectorAll("details") : []) {
    const place = open.indexOf(named(details));
    if (place >= 0) {
      details.open = true;
      open.splice(place, 1);
    }
  }
});

document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && event.detail.requestConfig.verb !== "get") refreshAll(0);
});

/* -- the socket -- */

function connect() {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  let asked = false;
  const beat = setInterval(() => { // a connection whose other end is gone closes by itself only after minutes
    if (socket.readyState !== WebSocket.OPEN) return;
    if (asked) end();
    else socket.send("{}");
    asked = true;
  }, PING);
  const end = () => {
    clearInterval(beat);
    socket.removeEventListener("close", end);
    socket.close();
    lost();
  };
  socket.addEventListener("open", () => {
    failures = 0;
    clearInterval(polling);
    polling = null;
    say("live", "Live");
    if (opened || performance.now() > 5000) refreshAll();
    else for (const element of document.querySelectorAll("[data-live]:not([data-chart])")) soon(element); // what changed before we listened
    opened = true;
  });
  socket.addEventListener("message", (event) => {
    asked = false;
    const kind = String(JSON.parse(event.data).type || "").replace(/\.changed$/, "");
    if (!/^\w+$/.test(kind)) return;
    for (const element of document.querySelectorAll(`[data-live~="${kind}"]`)) soon(element);
    document.dispatchEvent(new CustomEvent("live:hint", { detail: kind }));
  });
  socket.addEventListener("close", end);
}

function lost() {
  failures += 1;
  if (failures > 1 || opened) say("paused", `Live paused, checking every ${POLL / 1000} s`);
  polling ??= setInterval(() => refreshAll(), POLL);
  const wait = Math.min(LONGEST_WAIT, 500 * 2 ** failures);
  setTimeout(connect, wait / 2 + Math.random() * wait / 2);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const element of missed) soon(element, 0);
  missed.clear();
});

if (path) connect();
