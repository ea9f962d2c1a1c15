/* Charts, drawn by uPlot from JSON.

   <div class="chart" id="cpu" data-chart data-src="<url>" data-unit="percent" data-label="CPU"
        data-live="points" data-live-every="10">
   data-chart="bars"         severities stacked, worst at the base (series critical, error, warning)
   data-unit                 percent | bytes | bytes_per_second | seconds | count
   data-axis                 draws the time axis
   data-sync="server"        one cursor and one zoom with the others of that name
   data-figure="#id"         shows the value there: under the cursor, else data-rest="average|last|sum|max|kept" (what the page wrote there)
   data-threshold="90"       a dashed line
   data-json="{…}"           the JSON itself instead of data-src; with it may come
                             "limits": [{"severity", "value"}] and "spans": [{"start", "end", "severity"}]
   data-click="<url>?start={start}&end={end}&level={level}"    where a click on a bar leads
   <details data-table-for="cpu memory">    the same numbers as a table

   The JSON: {"start", "end", "step", "series": [{"name", "label", "unit", "tags", "times", "values"}]},
   times in Unix seconds, null where nothing is known. */
const SEVERITIES = ["critical", "error", "warning", "info"];
const MOST = 5;
const LEFT = 56;
const charts = new Map();
const { uPlot } = window;

/* -- words -- */

function digits(amount) {
  const shown = Math.abs(amount) >= 100 ? amount.toFixed(0) : Math.abs(amount) >= 10 ? amount.toFixed(1) : amount.toFixed(amount < 1 ? 2 : 1);
  return shown.includes(".") ? shown.replace(/\.?0+$/, "") : shown;
}

function scaled(amount, base, units) {
  let rest = amount;
  let step = 0;
  while (Math.abs(rest) >= base && step < units.length - 1) {
    rest /= base;
    step += 1;
  }
  return [digits(rest), units[step]];
}

function measured(value, unit) {
  if (value === null || value === undefined) return ["–", ""];
  if (unit === "percent") return [value > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0), "%"];
  if (unit === "bytes") return scaled(value, 1024, ["B", "KB", "MB", "GB", "TB", "PB"]);
  if (unit === "bytes_per_second") return scaled(value, 1000, ["B/s", "KB/s", "MB/s", "GB/s", "TB/s"]);
  if (unit === "seconds") return [digits(value), "s"];
  if (Math.abs(value) < 10000) return [Number(value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 1 : 2)).toLocaleString("en-US"), ""];
  return scaled(value, 1000, ["", "k", "M", "G"]);
}

function words(value, unit) {
  return measured(value, unit).join(" ").trim();
}

function clock(seconds, spanned) {
  const at = new Date(seconds * 1000);
  if (spanned > 3 * 86400) return at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

/* -- colours: tokens, as the browser resolves them for this theme -- */

function inks(element) {
  const probe = document.createElement("span");
  probe.hidden = true;
  element.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const all = Object.fromEntries(
    ["ink", "muted", "axis", "grid", "line-strong", "surface", "fill", "faint", "series-1", "series-2", "series-3", "series-4", ...SEVERITIES].map((name) => [name, colour(name)]),
  );
  probe.remove();
  all.lines = [all["series-1"], all["series-2"], all["series-3"], all["series-4"], all.muted];
  return all;
}

function faded(colour, alpha) {
  return colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}

/* -- data -- */

/* A hole in the times is a hole in the line: nothing is interpolated. */
function gapped(series, step) {
  const times = [];
  const values = [];
  series.times.forEach((time, index) => {
    const before = times[times.length - 1];
    if (before !== undefined && time - before > 2.5 * step) {
      times.push(before + step);
      values.push(null);
    }
    times.push(time);
    values.push(series.values[index]);
  });
  return [times, values];
}

function mean(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

function named(series) {
  return [series.label || series.name, tagged(series)].filter(Boolean).join(", ");
}

function tagged(series) {
  return Object.values(series.tags || {}).filter(Boolean).join(" ");
}

class Chart {
  constructor(element) {
    this.element = element;
    this.options = element.dataset;
    this.bars = this.options.chart === "bars";
    this.plot = null;
    this.loading = null;
    element.dataset.state = "loading";
    element.tabIndex = 0;
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", this.options.label || "Chart");
    element.addEventListener("refresh", () => this.load());
    element.addEventListener("keydown", (event) => this.step(event));
    element.addEventListener("blur", () => {
      this.plot?.setCursor({ left: -10, top: -10 }); // or the next values would put it back
      this.rest();
    });
    new ResizeObserver(() => this.resize()).observe(element);
    this.load();
  }

  /* Asked for anew each time: what surrounds a chart may be swapped while the chart stays. */
  get figure() {
    return this.options.figure ? document.querySelector(this.options.figure) : null;
  }

  async load() {
    if (this.options.json) {
      this.take(JSON.parse(this.options.json));
      return;
    }
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = fetch(this.options.src, { headers: { Accept: "application/json" } });
    try {
      const answer = await this.loading;
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.take(await answer.json());
    } catch {
      if (!this.plot) this.nothing("The values could not be loaded; this is tried again.");
      setTimeout(() => this.element.isConnected && !this.plot && this.load(), 10000);
    } finally {
      this.loading = null;
      if (this.again) {
        this.again = false;
        this.load();
      }
    }
  }

  take(json) {
    this.json = json;
    const known = json.series.filter((series) => series.values.some((value) => value !== null));
    this.series = this.bars
      ? SEVERITIES.map((name) => known.find((series) => series.name === name)).filter(Boolean)
      : known.map((series) => ({ series, mean: mean(series.values) })).sort((a, b) => b.mean - a.mean).slice(0, MOST).map((entry) => entry.series);
    if (known.length <= MOST && !this.bars) this.series = known;
    this.more = this.bars ? 0 : known.length - this.series.length;
    this.unit = this.options.unit || this.series[0]?.unit || "count";
    if (!this.series.length) {
      this.nothing(this.bars ? "No log event in this time." : "No value in this time.");
      this.rest();
      return;
    }
    const tables = this.series.map((series) => (this.bars ? [series.times, series.values] : gapped(series, json.step)));
    this.data = uPlot.join(tables);
    this.element.querySelector(".nothing")?.remove();
    this.element.dataset.state = "ready";
    if (this.plot && this.drawn === this.shape()) this.plot.setData(this.data, !this.zoomed());
    else this.draw();
    if (!this.zoomed()) this.whole();
    this.rest();
    this.key();
    this.summary();
    document.dispatchEvent(new CustomEvent("chart:data", { detail: this.element.id }));
  }

  shape() {
    return this.series.map(named).join("\n");
  }

  zoomed() {
    return this.zoom === true;
  }

  whole() {
    this.setting = true;
    const alone = this.bars && !this.options.sync;
    const times = this.data[0];
    this.plot.setScale("x", {
      min: alone ? times[0] : this.json.start,
      max: alone ? Math.max(this.json.end, times.at(-1) + this.json.step) : this.json.end,
    });
    this.setting = false;
  }

  nothing(text) {
    this.plot?.destroy();
    this.plot = null;
    this.element.dataset.state = "empty";
    let note = this.element.querySelector(".nothing");
    if (!note) {
      note = document.createElement("p");
      note.className = "nothing";
      this.element.append(note);
    }
    note.textContent = text;
  }

  /* -- drawing -- */

  draw() {
    this.plot?.destroy();
    this.ink = inks(this.element);
    this.drawn = this.shape();
    const { width, height } = this.size();
    const axis = this.options.axis !== undefined;
    const low = this.options.bare !== undefined;
    const font = `11px ${getComputedStyle(this.element).fontFamily}`;
    this.font = font;
    this.plot = new uPlot({
      width,
      height,
      padding: [low ? 2 : 8, 5, low ? 2 : axis ? 0 : 4, 0],
      legend: { show: false },
      cursor: {
        y: false,
        points: { show: !this.bars, size: 6 },
        drag: { x: true, y: false },
        sync: this.options.sync ? { key: this.options.sync } : undefined,
      },
      scales: { x: { time: true }, y: { range: (plot, low, high) => this.range(low, high) } },
      axes: [
        {
          show: axis, size: 26, font, stroke: this.ink.axis, grid: { show: false }, ticks: { show: false }, gap: 6, space: 64,
          values: (plot, splits) => splits.map((at) => (at > plot.scales.x.max - (plot.scales.x.max - plot.scales.x.min) * 44 / width ? "" : clock(at, plot.scales.x.max - plot.scales.x.min))),
        },
        {
          show: !low, size: LEFT, font, stroke: this.ink.axis, gap: 6, ticks: { show: false },
          grid: { stroke: this.ink.grid, width: 1 }, splits: (plot, index, bottom, high) => this.splits(bottom, high),
          values: (plot, splits) => splits.map((value) => (this.unit === "percent" ? `${value}` : words(value, this.unit))),
        },
      ],
      series: [
        {},
        ...this.series.map((series, index) => (this.bars
          ? { paths: () => null, points: { show: false } }
          : {
            stroke: this.ink.lines[index],
            width: 1.5,
            dash: index % 2 ? [5, 2] : undefined,
            fill: this.series.length === 1 ? faded(this.ink.lines[0], 0.08) : undefined,
            points: { show: this.data[0].length < 3, size: 5 },
            spanGaps: false,
          })),
      ],
      hooks: {
        drawAxes: [(plot) => this.under(plot)],
        draw: [(plot) => this.over(plot)],
        setCursor: [(plot) => this.point(plot)],
        setScale: [(plot, name) => {
          if (name === "x" && !this.setting && this.json) this.zoom = plot.scales.x.min > this.json.start + 1 || plot.scales.x.max < this.json.end - 1;
        }],
      },
    }, this.data, this.element);
    this.plot.over.addEventListener("dblclick", () => this.whole());
    this.clicks();
  }

  size() {
    const style = getComputedStyle(this.element);
    const width = this.element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return { width: Math.max(120, width), height: this.element.clientHeight };
  }

  resize() {
    if (this.plot) this.plot.setSize(this.size());
  }

  totals() {
    return this.data[0].map((time, at) => this.data.slice(1).reduce((sum, values) => sum + (values[at] || 0), 0));
  }

  /* From 0, percent to 100; beyond only where a script or several processors are. */
  range(low, high) {
    if (this.unit === "percent" && !(high > 100)) return [0, 100];
    const top = this.bars ? Math.max(...this.totals()) : Math.max(high || 0, Number(this.options.threshold) || 0, ...(this.json.limits || []).map((limit) => limit.value));
    const bottom = this.bars ? 0 : Math.min(low || 0, 0) * 1.1;
    return [bottom, top > 0 ? top * 1.1 : bottom < 0 ? 0 : 1];
  }

  splits(low, high) {
    if (this.unit === "percent" && high <= 100) return [0, 50, 100];
    const base = this.unit === "bytes" ? 1024 ** Math.floor(Math.log(Math.max(high, -low, 1)) / Math.log(1024)) : 1;
    const rough = (high - low) / base / 3;
    const power = 10 ** Math.floor(Math.log10(rough));
    const whole = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((nice) => nice >= rough) || rough;
    const step = (this.bars ? Math.max(1, Math.ceil(whole)) : whole) * base;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
    return found;
  }

  /* Beneath the lines: where nothing was reported. */
  under(plot) {
    if (this.bars || this.options.bare !== undefined) return;
    const { ctx, bbox } = plot;
    const step = this.json.step;
    const times = this.data[0];
    const known = times.filter((time, at) => this.data.slice(1).some((values) => values[at] !== null && values[at] !== undefined));
    const holes = [];
    let before = this.json.start;
    for (const time of [...known, this.json.end]) {
      if (time - before > Math.max(4 * step, 90)) holes.push([before, time]);
      before = time;
    }
    ctx.save();
    for (const [from, to] of holes) {
      const left = Math.max(bbox.left, plot.valToPos(from, "x", true));
      const right = Math.min(bbox.left + bbox.width, plot.valToPos(to, "x", true));
      if (right - left < 2) continue;
      ctx.fillStyle = this.ink.fill;
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      const span = this.json.end - this.json.start;
      const when = from === this.json.start ? `until ${clock(to, span)}` : to === this.json.end ? `since ${clock(from, span)}` : `${clock(from, span)} to ${clock(to, span)}`;
      const middle = bbox.top + bbox.height / 2;
      for (const [text, y] of [["no report", -2], [when, 11]]) {
        this.text(ctx, text, this.ink.faint, "center", (left + right) / 2, middle + y * devicePixelRatio, right - left);
      }
    }
    ctx.restore();
  }

  /* When alerts were open: a band, and a bar at its foot in the severity's colour. */
  open(plot) {
    const { ctx, bbox } = plot;
    const tall = 4 * devicePixelRatio;
    for (const span of this.json.spans || []) {
      const left = Math.max(bbox.left, plot.valToPos(span.start, "x", true));
      const right = Math.min(bbox.left + bbox.width, plot.valToPos(span.end, "x", true));
      if (right <= bbox.left || left >= bbox.left + bbox.width) continue;
      const wide = Math.max(2 * devicePixelRatio, right - left);
      ctx.fillStyle = faded(this.ink[span.severity], 0.1);
      ctx.fillRect(left, bbox.top, wide, bbox.height);
      ctx.fillStyle = this.ink[span.severity];
      ctx.fillRect(left, bbox.top + bbox.height - tall, wide, tall);
    }
  }

  line(plot, value, colour) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    const y = Math.round(plot.valToPos(value, "y", true)) + 0.5;
    ctx.strokeStyle = colour;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  over(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    if (this.bars) this.stack(plot);
    this.open(plot);
    ctx.strokeStyle = this.ink["line-strong"];
    ctx.lineWidth = ratio;
    const zero = Math.round(plot.valToPos(0, "y", true)) + 0.5;
    ctx.beginPath();
    ctx.moveTo(bbox.left, zero);
    ctx.lineTo(bbox.left + bbox.width, zero);
    ctx.stroke();
    if (this.options.threshold) this.line(plot, Number(this.options.threshold), this.ink.muted);
    for (const limit of this.json.limits || []) this.line(plot, limit.value, this.ink[limit.severity]);
    if (!this.bars) this.ring(plot);
    if (this.options.axis !== undefined && !this.zoomed()) {
      this.text(ctx, "now", this.ink.ink, "right", bbox.left + bbox.width, bbox.top + bbox.height + 15.5 * ratio);
    }
    ctx.restore();
  }

  text(ctx, text, colour, align, x, y, room = Infinity) {
    ctx.font = this.font.replace("11px", `${11 * devicePixelRatio}px`);
    if (ctx.measureText(text).width + 4 > room) return;
    ctx.fillStyle = colour;
    ctx.textAlign = align;
    ctx.textBaseline = "alphabetic";
    ctx.fillText(text, x, y);
  }

  ring(plot) {
    if (this.series.length > 1 || this.zoomed()) return;
    const values = this.data[1];
    let at = values.length - 1;
    while (at >= 0 && (values[at] === null || values[at] === undefined)) at -= 1;
    if (at < 0 || this.json.end - this.data[0][at] > 4 * this.json.step) return;
    const { ctx } = plot;
    ctx.beginPath();
    ctx.arc(plot.valToPos(this.data[0][at], "x", true), plot.valToPos(values[at], "y", true), 3 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.fillStyle = this.ink.surface;
    ctx.strokeStyle = this.ink["series-1"];
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.fill();
    ctx.stroke();
  }

  stack(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    const base = plot.valToPos(0, "y", true);
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.save();
    ctx.clip();
    this.data[0].forEach((time, at) => {
      const left = plot.valToPos(time, "x", true) + ratio;
      const right = plot.valToPos(time + this.json.step, "x", true) - ratio;
      let foot = base;
      this.series.forEach((series, index) => {
        const value = this.data[index + 1][at];
        if (!value) return;
        const tall = Math.max(1.5 * ratio, base - plot.valToPos(value, "y", true));
        ctx.fillStyle = this.ink[series.name];
        ctx.fillRect(left, foot - tall, Math.max(ratio, right - left), tall);
        foot -= tall + ratio;
      });
    });
    ctx.restore();
  }

  /* -- reading values -- */

  point(plot) {
    const at = plot.cursor.idx;
    if (at === null || at === undefined || plot.cursor.left < 0) {
      this.rest();
      return;
    }
    if (!this.figure) return;
    const time = this.data[0][at];
    const values = this.data.slice(1).map((series) => series[at]);
    const value = this.bars ? values.reduce((sum, number) => sum + (number || 0), 0) : values[this.series.indexOf(this.told())];
    this.write(value, clock(time, 1));
  }

  /* The series whose figure is shown: of several of one kind, as disks are, the one that ends highest. */
  told() {
    if (!this.ofOneKind()) return this.series[0];
    const last = (series) => series.values.findLast((value) => value !== null) ?? -Infinity;
    return this.series.reduce((highest, series) => (last(series) > last(highest) ? series : highest));
  }

  /* What tells a series from the others: the tags alone where all are of one field. */
  called(series) {
    return (this.ofOneKind() && tagged(series)) || named(series);
  }

  ofOneKind() {
    return this.series.length > 1 && this.series.every((series) => series.name === this.series[0].name);
  }

  rest() {
    if (!this.figure || !this.json) return;
    if (this.options.rest === "kept") {
      this.restore();
      return;
    }
    const how = this.options.rest || (this.bars ? "sum" : "average");
    const all = this.bars ? (this.data ? this.totals() : []) : this.told()?.values || [];
    const known = all.filter((value) => value !== null && value !== undefined);
    const most = known.length ? Math.max(...known) : null;
    if (how === "sum") this.write(known.reduce((sum, value) => sum + value, 0), "");
    else if (how === "last") this.write(known.at(-1) ?? null, this.options.peak === undefined || most === null ? "" : `peak ${this.unit === "percent" ? measured(most, this.unit)[0] : words(most, this.unit)}`);
    else if (how === "max") this.write(most, "");
    else this.write(mean(known), this.options.peak === undefined || most === null ? "" : `peak ${measured(most, this.unit)[0]}`);
  }

  /* The figure that came with the page: the newest value, however long ago that was. */
  restore() {
    const { kept } = this.figure.dataset;
    if (kept === undefined) return;
    this.figure.firstChild.textContent = kept;
    this.figure.querySelector("small").textContent = "";
    const line = this.figure.querySelector(".note");
    if (line) line.textContent = "";
  }

  write(value, note) {
    if (this.options.rest === "kept") this.figure.dataset.kept ??= this.figure.firstChild.textContent;
    const [amount, unit] = measured(value, this.unit);
    this.figure.firstChild.textContent = `${amount} `;
    const short = this.unit === "percent" || !note;
    this.figure.querySelector("small").textContent = short ? [unit, note].filter(Boolean).join(", ") : unit;
    let line = this.figure.querySelector(".note");
    if (!line && !short) {
      line = document.createElement("span");
      line.className = "note";
      this.figure.append(line);
    }
    if (line) line.textContent = short ? "" : note;
  }

  summary() {
    const parts = this.series.map((series) => {
      const known = series.values.filter((value) => value !== null);
      return this.bars
        ? `${words(known.reduce((sum, value) => sum + value, 0), "count")} ${named(series)}`
        : `${this.called(series)}: average ${words(mean(known), this.unit)}, highest ${words(Math.max(...known), this.unit)}`;
    });
    this.element.setAttribute("aria-label", `${this.options.label || "Chart"}. ${parts.join(". ")}.`);
  }

  key() {
    const before = this.element.nextElementSibling;
    if (before?.matches(".chart-key[data-made]")) before.remove();
    if (this.bars || this.series.length < 2) return;
    const key = document.createElement("div");
    key.className = "chart-key";
    key.dataset.made = "";
    this.series.forEach((series, index) => {
      const entry = document.createElement("span");
      entry.className = `k${index + 1}`;
      entry.append(document.createElement("i"), this.called(series));
      key.append(entry);
    });
    if (this.more) key.append(`and ${this.more} more`);
    this.element.after(key);
  }

  /* -- acting -- */

  step(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || !this.plot) return;
    event.preventDefault();
    const now = this.plot.cursor.idx ?? this.data[0].length - 1;
    const next = Math.min(this.data[0].length - 1, Math.max(0, now + way));
    this.plot.setCursor({ left: this.plot.valToPos(this.data[0][next], "x"), top: 1 });
    this.figure?.setAttribute("aria-live", "polite");
  }

  clicks() {
    if (!this.options.click) return;
    let from = null;
    this.plot.over.addEventListener("mousedown", (event) => {
      from = event.clientX;
    });
    this.plot.over.addEventListener("click", (event) => {
      if (from === null || Math.abs(event.clientX - from) > 3) return;
      const box = this.plot.over.getBoundingClientRect();
      const time = this.plot.posToVal(event.clientX - box.left, "x");
      const at = this.data[0].findLastIndex((start) => start <= time);
      if (at < 0) return;
      const start = this.data[0][at];
      const target = this.options.click
        .replace("{start}", encodeURIComponent(new Date(start * 1000).toISOString()))
        .replace("{end}", encodeURIComponent(new Date((start + this.json.step) * 1000).toISOString()))
        .replace("{level}", this.level(event.clientY - box.top, at));
      location.assign(target);
    });
  }

  /* The severity of the piece that was hit; none when the click was above the pile. */
  level(y, at) {
    const aim = this.plot.posToVal(y, "y");
    let sum = 0;
    for (let index = 0; index < this.series.length; index += 1) {
      sum += this.data[index + 1][at] || 0;
      if (aim <= sum) return this.series[index].name;
    }
    return "";
  }
}

/* -- as a table -- */

function table(details) {
  details.querySelector("div")?.remove();
  const holder = document.createElement("div");
  holder.className = "astable";
  holder.tabIndex = 0;
  const ids = details.dataset.tableFor.split(" ");
  const columns = ids.flatMap((id) => {
    const chart = charts.get(document.getElementById(id));
    return (chart?.series || []).map((series) => ({
      head: [chart.options.label, chart.series.length > 1 ? chart.called(series) : ""].filter(Boolean).join(", "),
      unit: chart.unit,
      values: new Map(series.times.map((time, at) => [time, series.values[at]])),
    }));
  });
  const times = [...new Set(columns.flatMap((column) => [...column.values.keys()]))].sort((a, b) => b - a);
  const grid = document.createElement("table");
  const head = grid.createTHead().insertRow();
  for (const text of ["Time", ...columns.map((column) => column.head)]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  const body = grid.createTBody();
  for (const time of times.slice(0, 500)) {
    const row = body.insertRow();
    row.insertCell().textContent = new Date(time * 1000).toLocaleString("sv-SE").slice(0, 16);
    for (const column of columns) row.insertCell().textContent = words(column.values.get(time), column.unit);
  }
  holder.append(grid);
  details.append(holder);
}

function start(within) {
  for (const [element, chart] of charts) {
    if (element.isConnected) continue;
    chart.plot?.destroy();
    charts.delete(element);
  }
  for (const element of within.querySelectorAll("[data-chart]")) {
    if (!charts.has(element)) charts.set(element, new Chart(element));
  }
}

document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("details[data-table-for]") && event.target.open) table(event.target);
}, true);
document.addEventListener("themechange", () => {
  for (const chart of charts.values()) {
    if (!chart.plot) continue;
    chart.draw();
    chart.whole();
  }
});
document.addEventListener("htmx:afterSwap", () => start(document));
document.fonts.ready.then(() => start(document));
