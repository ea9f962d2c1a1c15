/* Times that people read: <time data-age> ticks, <time data-clock> is put into their zone.
   <body data-now="unix seconds"> tells the server's clock; data-stale="90" turns an age to warning. */
const skew = Number(document.body.dataset.now || 0) * 1000 - Date.now();
const offset = document.body.dataset.now && Math.abs(skew) > 2000 ? skew : 0;

function spanOf(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) {
    const minutes = Math.floor((whole % 3600) / 60);
    return minutes ? `${Math.floor(whole / 3600)} h ${minutes} min` : `${Math.floor(whole / 3600)} h`;
  }
  const days = Math.floor(whole / 86400);
  const hours = Math.floor((whole % 86400) / 3600);
  if (days < 3 && hours) return `${days} d ${hours} h`;
  return days === 1 ? "1 day" : `${days} days`;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tick() {
  if (document.hidden) return;
  const now = Date.now() + offset;
  for (const element of document.querySelectorAll("time[data-age]")) {
    const seconds = (now - Date.parse(element.dateTime)) / 1000;
    put(element, spanOf(seconds));
    if (element.dataset.stale) element.classList.toggle("stale", seconds > Number(element.dataset.stale));
  }
}

function localise(within) {
  const today = new Date(Date.now() + offset).toDateString();
  for (const element of within.querySelectorAll("time[data-clock]")) {
    const at = new Date(element.dateTime);
    const hour = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    const day = at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    const other = at.toDateString() === today ? "" : `${day} `;
    put(element, other + (element.dataset.clock === "exact" ? exact(at) : hour));
    element.title = `${at.toLocaleString("sv-SE")} (${zone()})`;
  }
  for (const element of within.querySelectorAll("[data-zone]")) put(element, zone());
}

function exact(at) {
  const clock = at.toLocaleTimeString("en-GB");
  return `${clock}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

function zone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

localise(document);
tick();
setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
document.addEventListener("htmx:afterSwap", () => {
  localise(document);
  tick();
});
