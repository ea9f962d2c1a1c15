/* <time data-until datetime="…"> counts down; at its end, the element around it that refetches itself
   is told "due". <body data-now="unix seconds"> tells the server's clock. */
const skew = Number(document.body.dataset.now || 0) * 1000 - Date.now();
const offset = Math.abs(skew) > 2000 ? skew : 0;

function words(seconds) {
  const minutes = Math.floor(seconds / 60);
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

function tick() {
  for (const element of document.querySelectorAll("time[data-until]")) {
    const left = Math.ceil((Date.parse(element.dateTime) - Date.now() - offset) / 1000);
    element.textContent = words(Math.max(0, left));
    if (left < 0 && !element.dataset.over) {
      element.dataset.over = "yes";
      const holder = element.closest("[hx-get]");
      if (holder) holder.dispatchEvent(new CustomEvent("due"));
    }
  }
}

tick();
setInterval(tick, 1000);
