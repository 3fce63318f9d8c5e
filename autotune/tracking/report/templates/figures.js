"use strict";
// Figures are drawn as they come into view: a night has dozens of them.
(() => {
  const PRINTED_WIDTH = 680; // what A4 leaves between its margins, in CSS pixels
  const places = [...document.querySelectorAll("[data-figure]")];
  const drawn = new Set();

  const draw = (place) => {
    if (drawn.has(place)) return;
    drawn.add(place);
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    const layout = {
      ...figure.layout,
      title: undefined, // the page has it as a heading, which wraps
      margin: { ...figure.layout.margin, t: 40 },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    };
    Plotly.newPlot(place, figure.data, layout, { responsive: true, displayModeBar: false });
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "400px" });
  for (const place of places) watcher.observe(place);

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const list of closed) list.open = true;
    for (const place of places) {
      draw(place);
      Plotly.relayout(place, { width: PRINTED_WIDTH });
    }
  });
  addEventListener("afterprint", () => {
    for (const list of closed) list.open = false;
    for (const place of places) Plotly.relayout(place, { width: null, autosize: true });
  });
})();
