// Charts are drawn when they come near, and the others while nothing else is to do: Plotly is
// large, and the page should answer at once.
const figures = [...document.querySelectorAll(".plot")];

async function unpacked() {
  const packed = atob(document.getElementById("plotly").textContent);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();
}

let loading;
const plotly = () => (loading ??= unpacked());

// Only what can be seen is drawn: a hidden chart has no width.
function draw(figure) {
  if (figure.dataset.drawn || !figure.offsetParent) return;
  figure.dataset.drawn = "yes";
  const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
  figure.replaceChildren();
  Plotly.newPlot(figure, data, layout, { responsive: true, displayModeBar: false });
  figure.on("plotly_afterplot", () => fit(figure));
  fit(figure);
  filterTraces(figure);
}

// With a view box a chart shrinks to the paper's width.
function fit(figure) {
  for (const svg of figure.querySelectorAll(".main-svg")) {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  }
}

function filterTraces(figure) {
  const arm = chosen("arm");
  if (!figure.data.some((trace) => trace.meta)) return;
  const visible = figure.data.map((trace) => !arm || !trace.meta || trace.meta.arm === arm);
  if (figure.data.some((trace, i) => (trace.visible ?? true) !== visible[i])) {
    Plotly.restyle(figure, { visible });
  }
}

function failed(error) {
  for (const figure of figures) {
    figure.textContent = `This browser cannot draw the charts (${error.message}); the tables hold.`;
  }
}

const idle = globalThis.requestIdleCallback ?? ((act) => setTimeout(act, 50));
const drawAll = (left) => idle(() => {
  if (!left.length) {
    document.documentElement.dataset.charts = "drawn";
    return;
  }
  draw(left[0]);
  drawAll(left.slice(1));
});

const near = new IntersectionObserver((entries) => {
  const seen = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
  if (seen.length) plotly().then(() => seen.forEach(draw)).catch(failed);
}, { rootMargin: "300px" });
figures.forEach((figure) => near.observe(figure));
addEventListener("load", () => idle(() => plotly().then(() => drawAll(figures)).catch(failed)));

addEventListener("filtered", () => {
  if (!globalThis.Plotly) return;
  for (const figure of figures) {
    if (figure.dataset.drawn) filterTraces(figure);
    else draw(figure);
  }
});

addEventListener("beforeprint", () => {
  if (globalThis.Plotly) figures.forEach(draw);
  for (const details of document.querySelectorAll("details.yaml")) details.open = true;
});
