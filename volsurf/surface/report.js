// Draws the figures that the page carries as JSON, in the colours of the reader's theme, and again when that changes.
(() => {
  // The same colours as the live panels, so that a bid is the same blue everywhere.
  const THEMES = {
    dark: { bid: "#56b4e9", ask: "#e69f00", curve: "#a497ff", band: "#9aa3ad", unused: "#9aa3ad", dot: "#ffb454", text: "#9aa3ad",
      grid: "#262d36", grid3d: "#3a434f", raised: "#1a1f26", strong: "#e8eaed" },
    light: { bid: "#0072b2", ask: "#c26a00", curve: "#6a56e0", band: "#8a93a0", unused: "#5f6873", dot: "#d9541e", text: "#5f6873",
      grid: "#e6e9ed", grid3d: "#c9ced6", raised: "#ffffff", strong: "#1c2024" },
  };
  const CONFIG = { responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetCameraLastSave3d", "sendDataToCloud"] };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function coloured(trace, theme) {
    const role = trace.meta, colour = theme[role];
    if (!colour) return trace;
    const copy = { ...trace };
    if (copy.line) copy.line = { ...copy.line, color: colour };
    if (copy.marker) copy.marker = { ...copy.marker, color: colour, line: { ...(copy.marker.line || {}), color: colour } };
    if (copy.error_y) copy.error_y = { ...copy.error_y, color: theme.band };
    if (copy.mode === "lines+markers") copy.marker = { ...(copy.marker || {}), color: colour };
    return copy;
  }

  function themed(layout, theme) {
    const copy = structuredClone(layout);
    copy.font = { ...copy.font, color: theme.text };
    copy.hoverlabel = { bgcolor: theme.raised, bordercolor: theme.grid3d, font: { ...copy.font, color: theme.strong } };
    copy.modebar = { bgcolor: "rgba(0,0,0,0)", color: theme.text, activecolor: theme.strong };
    for (const key of Object.keys(copy)) {
      if (/^[xy]axis/.test(key)) Object.assign(copy[key], { gridcolor: theme.grid, linecolor: theme.grid });
    }
    for (const note of copy.annotations || []) note.font = { ...(note.font || {}), color: theme.strong };
    for (const axis of ["xaxis", "yaxis", "zaxis"]) {
      if (copy.scene) Object.assign(copy.scene[axis], { gridcolor: theme.grid3d, zerolinecolor: theme.grid3d, color: theme.text });
    }
    return copy;
  }

  const figures = [...document.querySelectorAll("script[data-plot]")].map((element) => ({
    target: document.getElementById(element.dataset.plot), figure: JSON.parse(element.textContent),
  }));

  function draw() {
    const theme = dark.matches ? THEMES.dark : THEMES.light;
    for (const { target, figure } of figures) {
      const layout = themed(figure.layout, theme);
      // A turned surface stays as the reader turned it.
      if (layout.scene && target.layout?.scene?.camera) layout.scene.camera = target.layout.scene.camera;
      Plotly.react(target, figure.data.map((trace) => coloured(trace, theme)), layout, CONFIG);
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();
