"use strict";
(async () => {
  const element = document.getElementById("map");
  const item = JSON.parse(document.getElementById("map-data").textContent);
  const { model: plot } = (await Bokeh.embed.embed_item(item)).roots[0];
  const layers = Object.fromEntries(
    plot.renderers.filter(({ name }) => name).map((renderer) => [renderer.name, renderer]),
  );

  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    for (const [name, { glyph }] of Object.entries(layers)) {
      // No halo: in a crowd of marks it would be all that is seen.
      glyph.line_color = { value: color(`layer-${name}`) };
      if ("fill_color" in glyph) glyph.fill_color = { value: color(`layer-${name}`) };
    }
    const text = color("muted");
    const line = color("line");
    for (const axis of [...plot.below, ...plot.left]) {
      Object.assign(axis, {
        axis_label_text_color: text,
        major_label_text_color: text,
        axis_line_color: line,
        major_tick_line_color: line,
        minor_tick_line_color: null,
      });
    }
    for (const part of plot.center) {
      if ("grid_line_color" in part) part.grid_line_color = line;
      if ("bar_line_color" in part) {
        Object.assign(part, { bar_line_color: text, label_text_color: text });
      }
    }
  };
  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  // Wider tick labels, or a turned telephone, change the frame: the ranges follow it, so that a metre
  // east stays as long as a metre north.
  const keepProportions = () => {
    const { x_range: x, y_range: y, inner_width: width, inner_height: height } = plot;
    const centre = (x.start + x.end) / 2;
    const half = ((y.end - y.start) / height) * (width / 2);
    if (Number.isFinite(half)) x.setv({ start: centre - half, end: centre + half });
  };
  for (const side of ["inner_width", "inner_height"]) {
    plot.properties[side].change.connect(keepProportions);
  }

  for (const box of document.querySelectorAll("[data-layer]")) {
    const show = () => {
      if (layers[box.dataset.layer]) layers[box.dataset.layer].visible = box.checked;
    };
    box.addEventListener("change", show);
    show(); // a browser may keep a box unticked over a reload
  }
  element.dataset.ready = "true";
})();
