/* Dialogs. What htmx puts into <dialog id="dialog"> is shown; [data-close] closes.
   hx-confirm="…" on an htmx element, data-confirm="…" on a plain form: asked in our own dialog,
   whose button says data-confirm-word. */
const holder = document.getElementById("dialog");
const confirmer = document.getElementById("confirm");

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target === holder && !holder.open) holder.showModal();
});

document.addEventListener("click", (event) => {
  const dialog = event.target.closest("dialog");
  if (!dialog) return;
  const outside = event.target === dialog && !within(dialog.getBoundingClientRect(), event);
  if (outside || event.target.closest("[data-close]")) dialog.close();
});

holder?.addEventListener("close", () => holder.replaceChildren()); // what is closed asks for nothing more

function within(box, point) {
  const { clientX: x, clientY: y } = point;
  return x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
}

function ask(question, word) {
  confirmer.querySelector("[data-question]").textContent = question;
  confirmer.querySelector("[value=yes]").textContent = word || "Go on";
  confirmer.returnValue = "";
  confirmer.showModal();
  return new Promise((resolve) => {
    confirmer.addEventListener("close", () => resolve(confirmer.returnValue === "yes"), { once: true });
  });
}

document.addEventListener("htmx:confirm", async (event) => {
  if (!event.detail.question || !confirmer) return;
  event.preventDefault();
  if (await ask(event.detail.question, event.detail.elt.dataset.confirmWord)) event.detail.issueRequest(true);
});

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-confirm]");
  if (!form || !confirmer || form.dataset.confirmed) return;
  event.preventDefault();
  if (await ask(form.dataset.confirm, form.dataset.confirmWord)) {
    form.dataset.confirmed = "yes";
    form.requestSubmit(event.submitter);
  }
});
