/* <button data-copy="#id">: copies that element's text and says so on the button. */
async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // plain http off this machine has no clipboard API
  area.value = text;
  area.setAttribute("readonly", "");
  area.className = "sr";
  (document.querySelector("dialog[open]") || document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("copying was refused");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  const word = button.querySelector("[data-word]") || button;
  button.dataset.rest ??= word.textContent;
  try {
    await copy((source.value ?? source.textContent).trim());
    word.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    word.textContent = "Press Ctrl C";
  }
  setTimeout(() => {
    word.textContent = button.dataset.rest;
  }, 2500);
});
