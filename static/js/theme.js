/* Light, dark or the system's. A classic script in the head, so that the first paint is right.
   Kept in this browser; told to the server where the page names an address for it:
   <html data-theme="…" data-theme-url="…">, buttons with data-set-theme="system|light|dark". */
"use strict";
(() => {
  const root = document.documentElement;
  const media = window.matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage may be forbidden; the page then follows the server
    }
  }

  function apply(theme) {
    root.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent("themechange"));
    for (const button of document.querySelectorAll("[data-set-theme]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setTheme === theme));
    }
  }

  apply(stored() || root.dataset.theme || "system");
  media.addEventListener("change", () => document.dispatchEvent(new CustomEvent("themechange")));
  document.addEventListener("DOMContentLoaded", () => apply(root.dataset.theme));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-set-theme]");
    if (!button) return;
    const theme = button.dataset.setTheme;
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // the choice then lasts for this page
    }
    apply(theme);
    if (root.dataset.themeUrl && window.htmx) {
      window.htmx.ajax("POST", root.dataset.themeUrl, { values: { theme }, swap: "none" });
    }
  });
})();
