/* What every page does: menus, notices, keys, and what htmx answers.
   An answer that is a problem (data-problem) becomes a notice and replaces nothing;
   `HX-Trigger: {"toast": "…"}` says what happened. */
const toasts = document.getElementById("toasts");
const busy = document.querySelector(".busy");
let running = 0;

function say(text, state = "ok") {
  const model = document.getElementById(`toast-${state}`) || document.getElementById("toast-ok");
  if (!model || !toasts) return;
  const toast = model.content.firstElementChild.cloneNode(true);
  toast.querySelector("[data-text]").textContent = text;
  toasts.append(toast);
  fade(toast);
}

function fade(toast) {
  setTimeout(() => toast.remove(), toast.dataset.keep ? 30000 : 8000);
}

toasts?.querySelectorAll(".toast").forEach(fade);
document.addEventListener("toast", (event) => say(event.detail.value, event.detail.state));
document.addEventListener("click", (event) => {
  event.target.closest("[data-dismiss]")?.closest(".toast")?.remove();
});

/* -- what htmx answers -- */

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  const asked = new URL(event.detail.pathInfo.finalRequestPath, location.href);
  const answered = new URL(xhr.responseURL || asked.href, location.href);
  if (answered.pathname !== asked.pathname && answered.pathname === document.body.dataset.login) {
    event.detail.shouldSwap = false; // signed out meanwhile: go through the door, and come back
    location.reload();
    return;
  }
  if (/^\s*<div[^>]*\sdata-problem=/.test(xhr.responseText)) {
    event.detail.target = toasts;
    event.detail.swapOverride = "beforeend";
    event.detail.shouldSwap = true;
    setTimeout(() => toasts.querySelectorAll(".toast:not([data-fading])").forEach((toast) => {
      toast.dataset.fading = "yes";
      fade(toast);
    }));
  }
});
document.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig.verb !== "get") say("The server can't be reached. Nothing was changed.", "warning");
});
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.requestConfig.verb !== "get") say(`The server answered ${event.detail.xhr.status}. Try again in a moment.`, "warning");
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.elt.matches("[data-live]")) return;
  running += 1;
  busy?.classList.add("on");
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.elt.matches("[data-live]")) return;
  running = Math.max(0, running - 1);
  if (!running) busy?.classList.remove("on");
});

/* -- menus -- */

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

/* -- fields that send their form when they change: select[data-submit] -- */

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});

/* -- form[data-keeps-address]: what was asked is in the address, to be shared and gone back to -- */

document.addEventListener("htmx:beforeRequest", (event) => {
  const form = event.detail.elt;
  if (!form.matches("form[data-keeps-address]")) return;
  const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  history.replaceState(history.state, "", `${location.pathname}?${asked}`);
});

/* -- keys: g then a letter goes to a[data-key], / to the search, ? lists them -- */

let going = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (document.querySelector("dialog[open]")) return;
  if (going && Date.now() - going < 1500) {
    going = 0;
    const link = document.querySelector(`a[data-key="${CSS.escape(event.key)}"]`);
    if (link) location.assign(link.href);
    return;
  }
  if (event.key === "g") going = Date.now();
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
    } else document.querySelector("[data-open-palette]")?.click();
  }
  if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  if (event.key === "a") {
    const row = document.activeElement?.closest(".inc");
    const button = row?.querySelector("[hx-post$='/acknowledge/']") ?? document.querySelector("[data-key-acknowledge]");
    if (button?.checkVisibility()) button.click(); // who may not acknowledge is not shown it
  }
  if (event.key === "b") {
    event.preventDefault();
    ring();
  }
  if (event.key === "?") document.getElementById("keys")?.showModal();
});

/* j and k go through the rows of a list of incidents; Enter follows the link that has the focus.
   On the page of one they lead to the next and the previous one. */
function step(by) {
  const links = [...document.querySelectorAll(".inc h2 a")];
  if (!links.length) {
    const link = document.querySelector(by > 0 ? "a[data-key-next]" : "a[data-key-previous]");
    if (link) location.assign(link.href);
    return;
  }
  const now = links.indexOf(document.activeElement?.closest(".inc")?.querySelector("h2 a"));
  links[Math.min(Math.max(now + by, 0), links.length - 1)]?.focus();
}

function typing(element) {
  return element instanceof Element && element.closest("input, textarea, select, [contenteditable]") !== null;
}

/* -- tabs that don't fit: the one that is open is in view -- */

for (const tab of document.querySelectorAll(".tabs [aria-current]")) {
  const tabs = tab.parentElement;
  tabs.scrollLeft = tab.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - tab.offsetWidth) / 2;
}

/* -- the bell: what was shown when it closes, or the page is left, has been read -- */

const bell = document.querySelector("details[data-bell]");
let shownTo = 0;

function ring() {
  if (!bell) return;
  bell.open = !bell.open;
  (bell.open ? bell.querySelector("#bell a") : null)?.focus();
  if (!bell.open) bell.querySelector("summary").focus();
}

function read() {
  const upto = Number(bell.querySelector("[data-newest]")?.dataset.newest || 0);
  if (upto <= shownTo) return;
  shownTo = upto;
  fetch(bell.dataset.bell, {
    method: "POST",
    body: new URLSearchParams({ upto }),
    headers: JSON.parse(document.body.getAttribute("hx-headers")),
    keepalive: true, // goes out also when the page is left
  }).catch(() => { shownTo = 0; }); // not said; the next closing says it
  const count = document.getElementById("count-bell");
  if (count) count.hidden = true;
  for (const notice of bell.querySelectorAll(".unread")) notice.classList.remove("unread");
}

bell?.addEventListener("toggle", () => {
  if (!bell.open) read();
});
window.addEventListener("pagehide", () => {
  if (bell?.open) read();
});

/* -- an open critical incident that nobody has: "(1)" before the title, the light of the mark turns -- */

const mark = document.querySelector("link[rel=icon]");
const calm = { title: document.title, icon: mark?.href };
function alarm() {
  const critical = Number(document.getElementById("count-bell")?.dataset.critical || 0);
  document.title = critical ? `(${critical}) ${calm.title}` : calm.title;
  if (mark && mark.href !== (critical ? mark.dataset.critical : calm.icon)) mark.href = critical ? mark.dataset.critical : calm.icon;
}
alarm();
document.addEventListener("htmx:oobAfterSwap", alarm);

/* -- the cloud group that the page is about stays marked when the groups are drawn anew -- */

document.addEventListener("htmx:oobAfterSwap", () => {
  for (const link of document.querySelectorAll("#nav-groups a")) {
    if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
  }
});
