/* Time zones in forms. [data-zone-field="browser"] is set to the reader's own and stays to be changed;
   <datalist id="zones"> is filled with all that the browser knows. */
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const known = document.getElementById("zones");

for (const field of document.querySelectorAll("[data-zone-field=browser] input")) field.value = zone;

if (known) known.append(...(Intl.supportedValuesOf?.("timeZone") ?? []).map((name) => new Option(name, name)));

/* What is changed is changed in the reader's clocks. */
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-in-zone]");
  if (link && !link.search) link.search = `?zone=${encodeURIComponent(zone)}`;
});
