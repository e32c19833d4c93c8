// The page's own script. Text from data becomes text nodes alone, never markup.
"use strict";
(() => {
  const ROWS = 50; // rows of the table of trials at a time
  const POLL = 3000; // milliseconds between two questions whether a watched run has changed
  const read = (name) => JSON.parse(document.getElementById(name).textContent);
  const find = (selector, within = document) => within.querySelector(selector);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const data = read("trials-data");
  const figures = read("figures-data");
  const columns = new Map(data.columns.map((column, index) => [column.name, { ...column, values: data.values[index] }]));
  const ids = columns.get("trial_id").values;
  const numbers = new Map(ids.map((id, index) => [id, index]));
  let curves = null; // large, read when first needed

  /** Make an element from its tag, attributes and children; a child that is text becomes a text node. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /** Show a value: percent and seconds with one decimal, other measures with four, settings as short as they are. */
  function shown(value, column = {}) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
    if (column.name?.endsWith("steps")) return value.toLocaleString("en");
    if (column.measure) return value.toFixed(column.label.endsWith("%") || column.name.endsWith("seconds") ? 1 : 4);
    if (Number.isInteger(value)) return String(value);
    return Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 ? String(+value.toPrecision(4)) : value.toExponential(2);
  }

  // ---- figures ----

  function theme() {
    const axis = { gridcolor: colour("--line"), linecolor: colour("--soft"), zerolinecolor: colour("--line"), automargin: true };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", size: 13, color: colour("--ink") },
        xaxis: axis, yaxis: axis, hovermode: "closest",
        hoverlabel: { bgcolor: colour("--raised"), font: { color: colour("--ink") }, bordercolor: colour("--line") },
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") },
      },
    };
  }

  const HEIGHT = 420;
  const drawn = new Set();

  function loadPlotly() {
    if (window.Plotly) return;
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }

  function draw(place, view, clicks = true) {
    loadPlotly();
    const layout = { margin: { t: 40, r: 20, b: 50, l: 60 }, height: HEIGHT, ...view.layout, template: theme() };
    const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
    return Plotly.newPlot(place, view.data, layout, config).then(() => {
      if (clicks && !drawn.has(place)) {
        place.on("plotly_click", (event) => {
          const trial = event.points[0].customdata;
          if (numbers.has(trial)) location.hash = `trial/${trial}`;
        });
      }
      drawn.add(place);
    });
  }

  function prepareFigures() {
    const views = new Map(figures.map((figure) => [figure.name, figure.views]));
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((entry) => entry.isIntersecting)) {
        watcher.unobserve(entry.target);
        const figure = entry.target;
        const select = find("select", figure);
        draw(find(".plot", figure), views.get(figure.dataset.plot)[select ? select.selectedIndex : 0]);
      }
    }, { rootMargin: "300px" });
    for (const figure of document.querySelectorAll("figure[data-plot]")) {
      const choices = views.get(figure.dataset.plot);
      if (choices.length > 1) {
        const select = make("select", { name: figure.dataset.plot }, ...choices.map((view) => make("option", {}, view.label)));
        select.addEventListener("change", () => draw(find(".plot", figure), choices[select.selectedIndex]));
        find("figcaption", figure).append(make("label", {}, "Show", select));
      }
      // Drawn later, a figure must not move what is below it.
      find(".plot", figure).style.minHeight = `${Math.max(HEIGHT, choices[0].layout?.height ?? 0)}px`;
      watcher.observe(figure);
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const place of drawn) if (place.isConnected) Plotly.relayout(place, { template: theme() });
    });
  }

  // ---- the table of trials ----

  const filters = document.getElementById("filters");
  const CHOICES = ["config_proxy", "config_method", "state", "phase"];
  const view = { sort: "trial_id", down: false, page: 0 };
  const order = new Intl.Collator("en", { numeric: true });
  let searched = null;

  function matching() {
    const wanted = CHOICES.map((name) => [columns.get(name).values, filters.elements[name].value]).filter((pair) => pair[1]);
    const words = filters.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      searched ??= ids.map((id, row) =>
        [id, data.cell[row], data.reason[row], columns.get("state").values[row], columns.get("phase").values[row]].join(" ").toLowerCase());
    }
    const rows = [];
    for (let row = 0; row < ids.length; row++) {
      if (wanted.every(([values, value]) => values[row] === value) && words.every((word) => searched[row].includes(word))) rows.push(row);
    }
    const { values, kind } = columns.get(view.sort);
    const way = view.down ? -1 : 1;
    const compare = kind === "number" ? (a, b) => a - b : (a, b) => order.compare(a, b);
    // What is missing comes last, whichever way.
    return rows.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return way * compare(x, y) || a - b;
    });
  }

  function cell(column, row) {
    const value = column.values[row];
    if (column.name === "trial_id") return make("td", {}, make("a", { href: `#trial/${value}` }, value));
    if (column.name === "state") return make("td", value ? { class: value } : {}, value ?? "");
    return make("td", column.kind === "number" ? { class: "number" } : {}, shown(value, column));
  }

  function showTable() {
    const visible = [...columns.values()].filter((column) => column.first || filters.elements.all.checked);
    if (!visible.some((column) => column.name === view.sort)) view.sort = "trial_id";
    const rows = matching();
    const pages = Math.max(1, Math.ceil(rows.length / ROWS));
    view.page = Math.min(view.page, pages - 1);
    const focused = document.activeElement?.closest?.("#table th")?.dataset.name;
    const heads = visible.map((column) => {
      const button = make("button", { type: "button" }, column.label);
      button.addEventListener("click", () => {
        // Numbers are looked at from the highest first.
        const down = view.sort === column.name ? !view.down : column.kind === "number";
        Object.assign(view, { sort: column.name, down, page: 0 });
        showTable();
      });
      const head = make("th", { scope: "col", "data-name": column.name, class: column.kind === "number" ? "number" : "" }, button);
      head.setAttribute("aria-sort", view.sort === column.name ? (view.down ? "descending" : "ascending") : "none");
      return head;
    });
    find("#table thead").replaceChildren(make("tr", {}, ...heads));
    const page = rows.slice(view.page * ROWS, (view.page + 1) * ROWS);
    find("#table tbody").replaceChildren(...page.map((row) => make("tr", {}, ...visible.map((column) => cell(column, row)))));
    const from = view.page * ROWS;
    const total = `${ids.length.toLocaleString("en")} ${ids.length === 1 ? "trial" : "trials"}`;
    const count = rows.length === ids.length ? total : `${rows.length.toLocaleString("en")} of ${total}`;
    document.getElementById("count").textContent = rows.length > ROWS ? `${from + 1} to ${from + page.length} of ${count}` : count;
    document.getElementById("previous").disabled = view.page === 0;
    document.getElementById("next").disabled = view.page >= pages - 1;
    if (focused) heads.find((head) => head.dataset.name === focused)?.firstChild.focus();
  }

  function prepareTable() {
    for (const name of CHOICES) {
      const values = [...new Set(columns.get(name).values)].filter((value) => value !== null).sort(order.compare);
      filters.elements[name].append(make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value)));
    }
    const restart = () => { view.page = 0; showTable(); };
    filters.addEventListener("input", restart);
    filters.addEventListener("reset", () => setTimeout(restart));
    filters.addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("previous").addEventListener("click", () => { view.page--; showTable(); });
    document.getElementById("next").addEventListener("click", () => { view.page++; showTable(); });
  }

  // ---- a trial's page ----

  function pairs(title, rows) {
    const body = rows.map(([name, text]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "number" }, text)));
    return make("div", {}, make("h2", {}, title), make("div", { class: "scroll" }, make("table", {}, make("tbody", {}, ...body))));
  }

  function samples(id) {
    const known = data.samples[id];
    if (!known) return [make("p", {}, "No grid of samples was kept: the trial has no generator, or did not finish.")];
    const picture = make("img", { alt: `Generated images of ${id}` });
    if (known.held) {
      picture.src = document.getElementById(`samples-${id}`).src;
      return [picture];
    }
    const note = make("p", { class: "note" }, "This picture lies beside the page, not in it: ", make("a", { href: known.link }, known.link));
    picture.addEventListener("error", () => picture.replaceWith(make("p", {}, "It is not there: was this page moved away from its run?")));
    picture.src = known.link;
    return [note, picture];
  }

  /** Return [title, names, axis label] of each plot of a trial's curves, and the traces that it has. */
  function curvePlots(id) {
    curves ??= read("curves-data");
    const curve = curves.trials[id];
    if (!curve || curve.budget.length < 2) return [];
    const kinds = [
      ["Score", ["score"], "rung score, then score"],
      ["Losses", ["d_loss", "g_loss", "adversarial"], "nats"],
      ["Entropy and diversity", ["entropy", "diversity"], "nats"],
      ["Effective classes", ["effective_classes"], "classes"],
    ];
    const colours = ["#0072b2", "#e69f00", "#009e73"];
    return kinds.map(([title, names, label]) => {
      const traces = names.filter((name) => curve[name]).map((name, index) => {
        const points = curve.budget.map((step, place) => [step, curve[name][place]]).filter((point) => point[1] !== null);
        return {
          type: "scatter", mode: points.length < 15 ? "lines+markers" : "lines", name: name.replace("_", " "),
          x: points.map((point) => point[0]), y: points.map((point) => point[1]),
          line: { color: colours[index], width: 1.6, dash: ["solid", "dash", "dot"][index] }, marker: { size: 6 },
        };
      });
      const layout = { height: 260, margin: { t: 30, r: 10, b: 45, l: 55 }, showlegend: traces.length > 1, xaxis: { title: { text: "GAN steps" }, rangemode: "tozero" }, yaxis: { title: { text: label } } };
      return { title, data: traces, layout };
    }).filter((plot) => plot.data.length);
  }

  function showTrial(id) {
    const main = document.getElementById("trial");
    const row = numbers.get(id);
    const back = make("a", { href: "#trials" }, "All trials");
    if (row === undefined) {
      main.replaceChildren(make("h1", {}, "No such trial"), make("p", {}, `This run has no trial ${id}. `, back));
      return;
    }
    const value = (name) => columns.get(name)?.values[row] ?? null;
    const link = (place, words) => (ids[place] === undefined ? "" : make("a", { href: `#trial/${ids[place]}` }, `${words} ${ids[place]}`));
    const about = make("p", {}, `${value("config_method") ?? ""} on ${value("config_proxy") ?? ""}, ${value("phase")}, `, make("strong", { class: value("state") }, value("state")));
    const parts = [make("p", { class: "trial-nav" }, back, link(row - 1, "Previous:"), link(row + 1, "Next:")), make("h1", {}, id), about];
    if (data.reason[row]) parts.push(make("p", { class: "notice reason" }, data.reason[row]));
    if (data.cell[row]) parts.push(make("p", { class: "note" }, `Cell: ${data.cell[row]}`));
    const measures = [...columns.values()].filter((column) => column.values[row] !== null && (column.measure || column.kind === "time"));
    const settings = (values) => Object.entries(values).map(([name, setting]) => [name, setting === null ? "none" : shown(setting)]);
    const plots = curvePlots(id);
    parts.push(make("div", { class: "columns" },
      pairs("Measures", measures.map((column) => [column.label, shown(column.values[row], column)])),
      make("div", {}, pairs("Settings that differ between trials", settings(data.varied[row])),
        make("details", {}, make("summary", {}, "Settings that all trials share"), pairs("Shared settings", settings(data.same))))));
    const places = plots.map((plot) => make("div", {}, make("h3", {}, plot.title), make("div", { class: "plot small", role: "img", "aria-label": plot.title })));
    const thinned = plots.length && curves.every > 1 ? [make("p", { class: "note" }, `Thinned to every ${curves.every}th report.`)] : [];
    parts.push(make("section", {}, make("h2", {}, "Curves"), ...thinned, plots.length ? make("div", { class: "plots" }, ...places) : make("p", {}, "No curves: the trial trained no GAN, or ended before its first report.")));
    parts.push(make("section", {}, make("h2", {}, "Samples"), ...samples(id)));
    main.replaceChildren(...parts);
    main.hidden = false; // a plot needs its width
    plots.forEach((plot, index) => draw(find(".plot", places[index]), plot, false));
  }

  // ---- where we are ----

  const overview = document.getElementById("overview");
  let left = 0; // where the overview was scrolled to

  function route() {
    let hash = location.hash.slice(1);
    try { hash = decodeURIComponent(hash); } catch { /* shown as it is */ }
    const trial = hash.startsWith("trial/") ? hash.slice(6) : null;
    const main = document.getElementById("trial");
    const title = document.title.split(" | ").pop();
    for (const place of [...drawn]) if (main.contains(place)) { Plotly.purge(place); drawn.delete(place); }
    if (trial !== null) {
      if (!overview.hidden) left = scrollY;
      overview.hidden = true;
      showTrial(trial);
      main.hidden = false;
      document.title = `${trial} | ${title}`;
      scrollTo(0, 0);
      main.focus({ preventScroll: true });
    } else if (overview.hidden) {
      main.hidden = true;
      main.replaceChildren();
      overview.hidden = false;
      document.title = title;
      if (hash && hash !== "trials") document.getElementById(hash)?.scrollIntoView();
      else scrollTo(0, left);
    }
  }

  // ---- a run that is still going on ----

  const KEPT = "degan-search report";

  function keep() {
    const fields = Object.fromEntries([...document.querySelectorAll("#filters [name], figure select")].map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value]));
    sessionStorage.setItem(KEPT, JSON.stringify({ fields, view, left: overview.hidden ? left : scrollY, top: scrollY }));
  }

  /** Take up filters, sorting and place from before the page refreshed itself. */
  function restore() {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    sessionStorage.removeItem(KEPT);
    if (!kept) return null;
    for (const field of document.querySelectorAll("#filters [name], figure select")) {
      const value = kept.fields[field.name];
      if (field.type === "checkbox") field.checked = value;
      else if (field.tagName === "INPUT" || [...field.options].some((option) => option.value === value)) field.value = value ?? "";
    }
    Object.assign(view, kept.view);
    return kept;
  }

  function watch() {
    const live = document.getElementById("live");
    setInterval(async () => {
      try {
        const answer = await fetch("/version", { cache: "no-store" });
        if (!answer.ok) return;
        live.textContent = "refreshes as trials finish";
        if ((await answer.text()) === document.body.dataset.version) return;
        keep();
        location.reload();
      } catch {
        live.textContent = "no longer served: start `degan-search report --watch` again";
      }
    }, POLL);
  }

  function prepareCopying() {
    for (const button of document.querySelectorAll(".copy")) {
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(button.previousElementSibling.textContent);
          button.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(button.previousElementSibling);
          button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
    }
  }

  const watched = Boolean(document.body.dataset.version);
  prepareTable();
  prepareFigures();
  const kept = watched ? restore() : null;
  showTable();
  prepareCopying();
  addEventListener("hashchange", route);
  route();
  if (kept) {
    history.scrollRestoration = "manual";
    left = kept.left;
    scrollTo(0, kept.top);
  }
  if (watched) watch();
  document.documentElement.dataset.ready = Math.round(performance.now());
})();
