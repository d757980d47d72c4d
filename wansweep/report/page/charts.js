// Draws the page's charts in the colours of its theme, and those of the chosen case again when another is chosen.
"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const palettes = read("palettes"), configs = read("configs");
  const root = document.documentElement, prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => root.dataset.theme || (prefersDark.matches ? "dark" : "light");
  const ofCase = ["timeline", "memory", "steps"];
  const views = new Map();
  const narrow = () => innerWidth < 620;

  // "colour:ink" in a chart stands for the theme's ink. Data is kept apart, so no text of a user's is ever taken for one.
  const painted = (chart) => JSON.parse(JSON.stringify(chart), (_, value) =>
    typeof value === "string" && value.startsWith("colour:") ? palettes[theme()][value.slice(7)] : value);

  // A legend names only what the data has, and a time line has a row for each rank.
  const fitted = (chart, data) => {
    const groups = new Set(Object.values(data).flat().map((row) => row.group));
    for (const layer of chart.layer) {
      const scale = layer.encoding?.color?.scale;
      if (!scale?.domain) continue;
      const kept = scale.domain.map((name, place) => [name, scale.range[place]]).filter(([name]) => groups.has(name));
      [scale.domain, scale.range] = [kept.map((pair) => pair[0]), kept.map((pair) => pair[1])];
    }
    if (data.stages) chart.height *= new Set(data.stages.map((row) => row.rank)).size;
    return chart;
  };

  const draw = async (key, chart, data) => {
    const figure = document.getElementById(key), place = figure.querySelector(".chart");
    views.get(key)?.finalize();
    const config = structuredClone(configs[theme()]);
    config.legend.columns = Math.max(2, Math.floor(place.clientWidth / 135));
    // A layer without rows is left out: its scale would have no extent.
    const filled = { ...painted(chart), layer: chart.layer.filter((layer) => data[(layer.data ?? chart.data).name]?.length).map(painted) };
    const spec = { ...filled, datasets: data, config };
    const shown = await vegaEmbed(place, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" }, logLevel: 1 });
    views.set(key, shown);
    shown.view.addEventListener("click", (_, item) => pick(figure, item?.datum));
  };

  const pick = (figure, row) => {
    if (!row?.case_id) return;
    const link = Object.assign(document.createElement("a"), { href: `#case-${row.case_id}`, textContent: "open its breakdown" });
    figure.querySelector(".picked").replaceChildren(`${row.label} · `, link);
    choose(row.case_id);
  };

  const chosen = document.getElementById("chosen");
  const drawCase = () => {
    if (!chosen.value) return;
    const one = read(`data-${chosen.value}`);
    document.getElementById("to-breakdown").href = `#case-${chosen.value}`;
    return Promise.all(ofCase.map((key) => {
      const data = one.pictures[key] ?? {}, figure = document.getElementById(key);
      const main = data[{ timeline: "stages", memory: "lines", steps: "steps" }[key]] ?? [];
      figure.querySelector(".picked").textContent = main.length ? "" : one.why[key];
      figure.querySelector(".chart").hidden = !main.length;
      return main.length ? draw(key, fitted(read(`chart-${key}`).chart, data), data) : null;
    }));
  };
  const choose = (id) => { if (chosen.value !== id) { chosen.value = id; drawCase(); } };

  const drawAll = async () => {
    button.textContent = theme() === "dark" ? "Light" : "Dark";
    const keys = [...document.querySelectorAll("script[id^=chart-]")].map((block) => block.id.slice(6)).filter((key) => !ofCase.includes(key));
    await Promise.all([...keys.map((key) => { const { chart, data } = read(`chart-${key}`); return draw(key, chart, data); }), drawCase()]);
    root.dataset.drawn = theme();
  };

  const button = document.getElementById("theme");
  const remembered = (value) => { try { return value ? localStorage.setItem("wansweep-theme", value) : localStorage.getItem("wansweep-theme"); } catch { return null; } };
  if (remembered()) root.dataset.theme = remembered();
  button.addEventListener("click", () => { root.dataset.theme = theme() === "dark" ? "light" : "dark"; remembered(root.dataset.theme); drawAll(); });
  prefersDark.addEventListener("change", drawAll);
  chosen.addEventListener("change", drawCase);
  let wasNarrow = narrow();
  addEventListener("resize", () => { if (narrow() !== wasNarrow) { wasNarrow = narrow(); drawAll(); } });
  drawAll();
})();
