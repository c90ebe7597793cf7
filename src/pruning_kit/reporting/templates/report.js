"use strict";
// The table and the chart of all plans. Everything is written as text nodes, never as HTML.
(() => {
  const PAGE_ROWS = 200;
  const NEAR_PX = 22;
  const NAME_OVERHANG_PX = 60;
  const PRINT_PX = 620;
  const data = JSON.parse(document.getElementById("data").textContent);
  const blocks = (part) => {  // the blocks of "4" or "4-7"
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  };
  const plans = data.plans.name.map((_, order) => {  // a column for each field, to an object each
    const plan = { order };
    for (const [field, column] of Object.entries(data.plans)) plan[field] = column[order];
    plan.removed = new Set(plan.name === "none" ? [] : plan.name.split("+").flatMap(blocks));
    return plan;
  });
  const byId = (id) => document.getElementById(id);
  const title = (plan) => plan.name === "none" ? "whole model" : plan.name;
  let selected = null;

  function make(parent, tag, attributes = {}, text = null) {
    const svg = parent instanceof SVGElement || tag === "svg";
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== null) node.textContent = text;
    parent.append(node);
    return node;
  }

  // A name; a long one may be broken behind plus signs.
  function breakable(parent, name) {
    const parts = name.length > data.longName ? name.split(/(?<=\+)/) : [name];
    for (const part of parts) parent.append(part, document.createElement("wbr"));
  }

  // --- table ---------------------------------------------------------------------------------

  const columns = [
    ["Removed", "order", (plan) => title(plan)],
    ["Front", "front", (plan) => plan.front ? "●" : ""],
    ["Count", "size", (plan) => String(plan.size)],
    ...(data.bridged ? [["As cut", "asCut", (plan) => plan.asCutText],
      ["Bridged [95 %]", "bridged", (plan) => plan.bridgedText]]
      : [["Perplexity [95 %]", "ppl", (plan) => plan.pplText]]),
    ["Change [95 %]", "ratio", (plan) => plan.changeText],
    ...(data.compared ? [["KL nats", "kl", (plan) => plan.klText],
      ["Agreement", "agreement", (plan) => plan.agreementText]] : []),
    ["Params M", "parameters", (plan) => plan.paramsText],
    ...(data.timed ? [["Latency ms", "latency", (plan) => plan.latencyText]] : []),
  ];
  const table = { key: data.bridged ? "ratio" : "ppl", down: false, shown: PAGE_ROWS, rows: [] };

  function wanted(text) {
    const remove = [], keep = [];
    for (const word of text.split(/[\s,+]+/).filter(Boolean)) {
      const match = /^(!?)(\d+)(?:-(\d+))?$/.exec(word);
      if (!match) return null;
      const last = Math.min(Number(match[3] ?? match[2]), 9999);
      for (let block = Number(match[2]); block <= last; block++) {
        (match[1] ? keep : remove).push(block);
      }
    }
    return (plan) => remove.every((b) => plan.removed.has(b)) && !keep.some((b) => plan.removed.has(b));
  }

  function filter() {
    const text = byId("filter-text").value.trim().toLowerCase();
    const fits = wanted(text) ?? ((plan) => title(plan).includes(text));
    const size = byId("filter-size").value;
    const front = byId("filter-front").checked;
    const sign = table.down ? -1 : 1;
    table.rows = plans.filter((plan) => fits(plan) && (size === "" || plan.size === Number(size))
      && (!front || plan.front));
    table.rows.sort((a, b) => {
      const x = a[table.key], y = b[table.key];
      if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order;
      return sign * (x - y) || a.order - b.order;
    });
    table.shown = PAGE_ROWS;
    drawTable();
  }

  function drawTable() {
    const body = byId("table").tBodies[0];
    const rows = document.createDocumentFragment();
    for (const plan of table.rows.slice(0, table.shown)) {
      const row = make(rows, "tr", { "data-plan": plan.name });
      if (plan === selected) row.className = "selected";
      columns.forEach(([heading, , write], i) => {
        if (i === 0) {
          const button = make(make(row, "th", { scope: "row" }), "button", { type: "button" });
          breakable(button, write(plan));
        } else {
          const mark = heading === "Front" ? { class: "front" } : {};
          if (mark.class && plan.front) mark["aria-label"] = "on the Pareto front";
          make(row, "td", mark, write(plan));
        }
      });
    }
    body.replaceChildren(rows);
    const shown = Math.min(table.shown, table.rows.length);
    byId("table-count").textContent = table.rows.length === 0
      ? "No plan fits. Change the filters, or show all again."
      : `${table.rows.length.toLocaleString("en")} of ${plans.length.toLocaleString("en")} plans`
        + (shown < table.rows.length ? `, the first ${shown.toLocaleString("en")} shown` : "");
    byId("table-more").hidden = shown >= table.rows.length;
  }

  function drawHead() {
    const head = byId("table").tHead.rows[0];
    head.replaceChildren();
    for (const [heading, key] of columns) {
      const active = key === table.key;
      const cell = make(head, "th", { scope: "col" });
      if (active) cell.setAttribute("aria-sort", table.down ? "descending" : "ascending");
      const arrow = active ? (table.down ? " ▼" : " ▲") : "";
      const button = make(cell, "button", { type: "button", "data-key": key }, heading + arrow);
      button.addEventListener("click", () => {
        const firstDown = key === "front";
        table.down = active ? !table.down : firstDown;
        table.key = key;
        drawHead();
        filter();
        head.querySelector(`[data-key="${key}"]`).focus();
      });
    }
  }

  function setUpTable() {
    byId("table-controls").hidden = false;
    for (const size of [...new Set(plans.map((plan) => plan.size))].sort((a, b) => a - b)) {
      make(byId("filter-size"), "option", { value: size }, String(size));
    }
    byId("filter-text").addEventListener("input", filter);
    byId("filter-size").addEventListener("change", filter);
    byId("filter-front").addEventListener("change", filter);
    byId("filter-clear").addEventListener("click", () => { clearFilters(); filter(); });
    byId("more").addEventListener("click", () => { table.shown += PAGE_ROWS; drawTable(); });
    byId("all").addEventListener("click", () => { table.shown = Infinity; drawTable(); });
    byId("table").tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) select(plans.find((plan) => plan.name === row.dataset.plan), false);
    });
    drawHead();
    filter();
  }

  function clearFilters() {
    byId("filter-text").value = "";
    byId("filter-size").value = "";
    byId("filter-front").checked = false;
  }

  // --- selection -----------------------------------------------------------------------------

  function select(plan, goToRow) {
    selected = plan;
    if (goToRow && !table.rows.includes(plan)) { clearFilters(); filter(); }
    const place = table.rows.indexOf(plan);
    if (goToRow && place >= table.shown) table.shown = place + PAGE_ROWS;
    drawTable();
    const row = byId("table").querySelector(`tr[data-plan="${plan.name}"]`);
    if (goToRow) {
      row.scrollIntoView({ block: "center" });
      row.querySelector("button").focus({ preventScroll: true });
    }
    drawDetail(plan);
    if (data.across.length > 0) drawChart();
    if (!goToRow) byId("table").querySelector(`tr[data-plan="${plan.name}"] button`)?.focus({ preventScroll: true });
  }

  function drawDetail(plan) {
    const box = byId("detail");
    box.replaceChildren();
    box.hidden = false;
    const count = `removes ${plan.size} of ${data.nBlocks} blocks`;
    make(make(box, "p"), "strong", {}, plan.size === 0 ? "The whole model" : `${title(plan)}: ${count}`);
    make(box, "p", {}, facts(plan).join("; "));
    if (plan.size > 0) {
      const line = make(box, "p", {}, "To make it: ");
      make(line, "code", {}, data.commands[plan.isBridged ? 1 : 0].replaceAll(data.planMark, plan.name));
    }
  }

  function facts(plan) {
    return [
      `perplexity ${plan.pplText}${plan.isBridged ? ` bridged, ${plan.asCutText} as cut` : ""}`,
      ...(plan.changeText ? [plan.changeText] : []),
      ...(plan.klText ? [`KL ${plan.klText} nats, ${plan.agreementText} the same most likely token`] : []),
      ...(plan.paramsText ? [`${plan.paramsText} M parameters`] : []),
      ...(plan.latencyText ? [`${plan.latencyText} ms`] : []),
      ...(plan.name === data.recommended ? ["recommended without a budget"] : []),
    ];
  }

  // --- chart ---------------------------------------------------------------------------------

  let view = null;

  function ticks(low, high, logarithmic) {
    const span = high - low;
    if (logarithmic) {
      const wide = Math.log10(high / low) > 3.2;
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
        for (const step of wide ? [1] : [1, 2, 5]) found.push(step * 10 ** power);
      }
      return found.filter((tick) => tick >= low && tick <= high);
    }
    const raw = span / 5;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) found.push(tick);
    return found;
  }

  function short(value) {
    if (value >= 1e6) return value.toExponential(0).replace("e+", "e");
    return value.toLocaleString("en", { maximumSignificantDigits: 4 });
  }

  function scale(values, from, to, logarithmic, padding) {
    const move = logarithmic ? Math.log : (value) => value;
    let low = move(Math.min(...values)), high = move(Math.max(...values));
    const pad = (high - low) * padding || Math.abs(high) * 0.05 || 1;
    low -= pad; high += pad;
    const back = logarithmic ? Math.exp : (value) => value;
    const place = (value) => from + (move(value) - low) / (high - low) * (to - from);
    place.ticks = ticks(back(low), back(high), logarithmic);
    return place;
  }

  // By the perplexity that plans are chosen by, which may be that of another text than is drawn.
  function paretoFront(points) {
    const front = [];
    const known = points.filter((point) => point.plan.chosenBy !== null);
    let best = Infinity;
    for (const point of known.sort((a, b) => a.across - b.across || a.plan.chosenBy - b.plan.chosenBy)) {
      const value = point.plan.chosenBy;
      if (value < best || (value === best && point.across === front.at(-1).across)) {
        best = value;
        front.push(point);
      }
    }
    return front;
  }

  function drawChart(wide = null) {
    const box = byId("chart");
    const key = byId("chart-x").value;
    const unit = key === "parameters" ? 1e6 : 1;
    const points = plans.filter((plan) => plan.ppl !== null && plan[key] !== null)
      .map((plan) => ({ plan, across: plan[key] / unit }));
    box.replaceChildren();
    const width = wide ?? Math.max(300, box.clientWidth), height = Math.round(Math.min(430, Math.max(280, width * 0.58)));
    const left = 62, right = 12, top = 18, bottom = 46;
    const ppl = points.map((point) => point.plan.ppl);
    const logarithmic = Math.max(...ppl) / Math.min(...ppl) > 8;
    const x = scale(points.map((point) => point.across), left, width - right, false, 0.1);
    const y = scale(ppl, height - bottom, top, logarithmic, 0.07);
    const svg = make(box, "svg", {
      viewBox: `0 0 ${width} ${height}`, tabindex: "0", role: "application",
      "aria-label": `Chart of ${points.length} plans: perplexity against ${byId("chart-x").selectedOptions[0].text}. Arrow keys move along the front, Enter shows the row.`,
    });
    for (const tick of x.ticks) {
      make(svg, "line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom });
      make(svg, "text", { x: x(tick), y: height - bottom + 17, "text-anchor": "middle" }, short(tick));
    }
    for (const tick of y.ticks) {
      make(svg, "line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) });
      make(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick));
    }
    make(svg, "text", { x: (left + width) / 2, y: height - 8, "text-anchor": "middle" }, byId("chart-x").selectedOptions[0].text);
    make(svg, "text", { x: 2, y: 11 }, `Perplexity${logarithmic ? " (logarithmic)" : ""}, lower is better`);
    for (const point of points) { point.x = x(point.across); point.y = y(point.plan.ppl); }
    const front = paretoFront(key === "size" ? points.map((p) => Object.assign(p, { across: -p.across })) : points);
    const onFront = new Set(front);
    const radius = points.length > 500 ? 2 : 3.5;
    make(svg, "path", { class: "others", d: points.filter((point) => !onFront.has(point)).map((point) => circle(point, radius)).join("") });
    make(svg, "path", { class: "step", d: front.map((point, i) => i === 0 ? `M${place(point.x)} ${place(point.y)}` : `H${place(point.x)}V${place(point.y)}`).join("") });
    const named = [];
    for (const point of [...front].reverse()) {
      make(svg, "circle", { class: "front", cx: point.x, cy: point.y, r: 5 });
      if (named.some((y) => Math.abs(point.y - y) <= 15)) continue;
      const name = make(svg, "text", { class: "front-name", y: point.y + 16, "text-anchor": key === "size" ? "start" : "end" }, title(point.plan));
      const room = (key === "size" ? width - right - point.x : point.x - left) - name.getComputedTextLength() - 10;
      if (room < -NAME_OVERHANG_PX) { name.remove(); continue; }
      const aside = 8 + Math.min(0, room);
      name.setAttribute("x", point.x + (key === "size" ? aside : -aside));
      named.push(point.y);
    }
    const mine = points.find((point) => point.plan === selected);
    if (mine) make(svg, "circle", { class: "picked", cx: mine.x, cy: mine.y, r: 9 });
    const here = make(svg, "circle", { class: "here", r: 7, visibility: "hidden" });
    const tip = make(box, "div", { class: "tip", role: "status" });
    tip.hidden = true;
    view = { box, svg, points, front, onFront, here, tip, width, at: null };
    svg.addEventListener("pointermove", (event) => pointAt(nearest(event)));
    svg.addEventListener("pointerleave", () => pointAt(null));
    svg.addEventListener("click", (event) => {
      const point = nearest(event);
      if (point) select(point.plan, true);
    });
    svg.addEventListener("keydown", moveByKey);
    svg.addEventListener("blur", () => pointAt(null));
  }

  function place(value) { return value.toFixed(1); }

  function circle(point, radius) {
    return `M${place(point.x - radius)} ${place(point.y)}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`;
  }

  function nearest(event) {
    const frame = view.svg.getBoundingClientRect();
    const zoom = view.width / frame.width;
    const x = (event.clientX - frame.left) * zoom, y = (event.clientY - frame.top) * zoom;
    let best = null, least = NEAR_PX * NEAR_PX;
    for (const point of view.points) {
      // points overlap; those of the front are drawn larger and on top, so they are reached first
      const nearer = view.onFront.has(point) ? 0.25 : 1;
      const distance = nearer * ((point.x - x) ** 2 + (point.y - y) ** 2);
      if (distance < least) { least = distance; best = point; }
    }
    return best;
  }

  function pointAt(point) {
    if (view.at === point) return;
    view.at = point;
    view.tip.hidden = point === null;
    view.here.setAttribute("visibility", point === null ? "hidden" : "visible");
    if (point === null) return;
    view.here.setAttribute("cx", point.x);
    view.here.setAttribute("cy", point.y);
    view.tip.textContent = [title(point.plan), ...facts(point.plan)].join("\n");
    const zoom = view.svg.getBoundingClientRect().width / view.width;
    const x = point.x * zoom, y = point.y * zoom;
    const flip = x > view.box.clientWidth / 2;
    view.tip.style.left = flip ? "" : `${x + 12}px`;
    view.tip.style.right = flip ? `${view.box.clientWidth - x + 12}px` : "";
    view.tip.style.top = `${Math.max(0, y - 10)}px`;
  }

  function moveByKey(event) {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (step) {
      const order = [...view.front].sort((a, b) => a.x - b.x);
      const now = order.indexOf(view.at);
      pointAt(order[now < 0 ? 0 : Math.min(order.length - 1, Math.max(0, now + step))] ?? null);
      event.preventDefault();
    } else if (event.key === "Enter" && view.at) {
      select(view.at.plan, true);
      event.preventDefault();
    } else if (event.key === "Escape") {
      pointAt(null);
    }
  }

  function setUpChart() {
    for (const [key, name] of data.across) make(byId("chart-x"), "option", { value: key }, name);
    byId("chart-controls").hidden = false;
    byId("chart-legend").hidden = false;
    byId("chart-help").hidden = false;
    byId("chart-x").addEventListener("change", () => drawChart());
    window.addEventListener("beforeprint", () => drawChart(PRINT_PX));
    window.addEventListener("afterprint", () => drawChart());
    let drawn = 0;
    new ResizeObserver(() => {
      const width = byId("chart").clientWidth;
      if (width !== drawn) { drawn = width; drawChart(); }
    }).observe(byId("chart"));
  }

  if (data.across.length > 0) setUpChart();
  setUpTable();
})();
