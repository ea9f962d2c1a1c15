/* Ctrl-K: go anywhere. Finds a[data-palette="group"] of the page, the servers (a fragment fetched
   once from the dialog's data-servers), and offers the log search (data-logs). */
const dialog = document.getElementById("palette");
const input = dialog?.querySelector("input");
const list = dialog?.querySelector("[role=listbox]");
let servers = null;
let chosen = 0;

async function open() {
  if (dialog.open) return;
  input.value = "";
  dialog.showModal();
  show();
  if (servers === null && dialog.dataset.servers) {
    servers = [];
    const answer = await fetch(dialog.dataset.servers, { headers: { "HX-Request": "true" } }).catch(() => null);
    if (answer?.ok) servers = links(new DOMParser().parseFromString(await answer.text(), "text/html"));
    else servers = null; // asked again the next time
    if (dialog.open) show();
  }
}

function links(within) {
  return Array.from(within.querySelectorAll("a[data-palette]"), (link) => ({
    group: link.dataset.palette,
    words: link.dataset.words || link.textContent.replace(/\s+/g, " ").trim(),
    note: link.dataset.note || "",
    href: link.getAttribute("href"),
    drawing: link.querySelector("svg")?.cloneNode(true),
    key: link.dataset.key ? `g ${link.dataset.key}` : "",
  }));
}

function found() {
  const asked = input.value.trim().toLowerCase();
  const all = [...links(document), ...(servers || [])];
  const unique = [...new Map(all.map((entry) => [entry.href, entry])).values()];
  const words = asked.split(/\s+/);
  const hits = unique.filter((entry) => words.every((word) => `${entry.words} ${entry.note}`.toLowerCase().includes(word)));
  const first = asked ? hits.sort((a, b) => rank(b, asked) - rank(a, asked)) : hits;
  const some = first.slice(0, 12);
  if (asked && dialog.dataset.logs) {
    some.push({ group: "Do", words: `Search the logs for “${input.value.trim()}”`, note: "", href: `${dialog.dataset.logs}?q=${encodeURIComponent(input.value.trim())}` });
  }
  return some;
}

function rank(entry, asked) {
  return entry.words.toLowerCase().startsWith(asked) ? 1 : 0;
}

function show() {
  chosen = 0;
  const groups = Map.groupBy ? Map.groupBy(found(), (entry) => entry.group) : group(found());
  list.replaceChildren();
  let index = 0;
  for (const [name, entries] of groups) {
    const head = document.createElement("h3");
    head.textContent = name;
    list.append(head);
    for (const entry of entries) list.append(option(entry, index++));
  }
  if (!index) {
    const none = document.createElement("p");
    none.className = "none";
    none.textContent = "Nothing of that name.";
    list.append(none);
  }
  mark();
}

function group(entries) {
  const groups = new Map();
  for (const entry of entries) groups.set(entry.group, [...(groups.get(entry.group) || []), entry]);
  return groups;
}

function option(entry, index) {
  const link = document.createElement("a");
  link.href = entry.href;
  link.id = `palette-${index}`;
  link.setAttribute("role", "option");
  link.tabIndex = -1;
  if (entry.drawing) link.append(entry.drawing);
  const words = document.createElement("span");
  words.className = "grow clip";
  words.textContent = entry.words;
  link.append(words);
  if (entry.note) {
    const note = document.createElement("span");
    note.className = "small faint";
    note.textContent = entry.note;
    link.append(note);
  }
  if (entry.key) {
    const key = document.createElement("kbd");
    key.textContent = entry.key;
    link.append(key);
  }
  link.addEventListener("pointermove", () => {
    chosen = index;
    mark();
  });
  return link;
}

function mark() {
  const options = list.querySelectorAll("[role=option]");
  options.forEach((link, index) => link.setAttribute("aria-selected", String(index === chosen)));
  input.setAttribute("aria-activedescendant", options[chosen]?.id || "");
  options[chosen]?.scrollIntoView({ block: "nearest" });
}

if (dialog) {
  input.addEventListener("input", show);
  input.addEventListener("keydown", (event) => {
    const options = list.querySelectorAll("[role=option]");
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && options.length) {
      event.preventDefault();
      chosen = (chosen + step + options.length) % options.length;
      mark();
    } else if (event.key === "Enter") {
      event.preventDefault();
      options[chosen]?.click();
    }
  });
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      open();
    }
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-open-palette]")) open();
  });
}
