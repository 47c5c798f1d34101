// What every panel shares: bytes to numbers, one slice's maths, text, colours, and the life of a live view.
// live.py is the other end. Python puts this file in front of a panel's own text (see _esm.py), so it imports nothing.

// --- bytes ------------------------------------------------------------------------------------------------------
const ARRAYS = { f8: Float64Array, f4: Float32Array, i4: Int32Array, i1: Int8Array };

/** Decode a payload of `_payload.py`: a DataView to `{header, …columns}`. Throws RangeError on anything malformed. */
export function decode(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  if (bytes.length < 8 || String.fromCharCode(...bytes.subarray(0, 4)) !== "VSP1") throw new RangeError("not a volsurf payload");
  const length = view.getUint32(4, true);
  if (length % 8 || 8 + length > bytes.length) throw new RangeError("payload header is longer than the payload");
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const out = { header };
  let at = 8 + length;
  for (const [name, type, count] of header.columns) {
    const Column = ARRAYS[type];
    if (!Column || !Number.isInteger(count) || count < 0) throw new RangeError(`payload column ${name} has no type`);
    const size = count * Column.BYTES_PER_ELEMENT;
    if (at + size > bytes.length) throw new RangeError(`payload ends inside column ${name}`);
    // A copy: a message's buffer may start at an address a Float64Array refuses.
    out[name] = new Column(bytes.slice(at, at + size).buffer);
    at += size + ((8 - (size % 8)) % 8);
  }
  return out;
}

// --- one slice --------------------------------------------------------------------------------------------------
/** Total variance of slice `i` of the decoded columns at log-moneyness k: raw SVI. */
export function totalVariance(d, i, k) {
  const x = k - d.m[i];
  return d.a[i] + d.b[i] * (d.rho[i] * x + Math.sqrt(x * x + d.sigma[i] * d.sigma[i]));
}

/** Vol of slice `i` at log-moneyness k, a decimal; NaN where total variance is not positive. */
export function vol(d, i, k) {
  const w = totalVariance(d, i, k);
  return w > 0 ? Math.sqrt(w / d.years[i]) : NaN;
}

/** Standard error of the vol of slice `i` at log-moneyness k, from the covariance of (α, U, L, μ, ς); NaN where there is none. */
export function volError(d, i, k) {
  const root = Math.sqrt(d.theta[i]);
  const half = d.sigma[i] / root / 2;
  const z = (k - d.m[i]) / d.sigma[i];
  const r = Math.hypot(1, z);
  const [up, low] = [r + z, r - z];
  const slope = d.b[i] / root;
  const g = [1, half * up, half * low, -slope / 2 * ((1 + d.rho[i]) * up - (1 - d.rho[i]) * low) / r, 2 * half * slope / r];
  let sum = 0;
  for (let p = 0, at = 15 * i; p < 5; p++) for (let q = p; q < 5; q++) sum += (p < q ? 2 : 1) * g[p] * g[q] * d.covariance[at++];
  return d.theta[i] * Math.sqrt(sum) / (2 * d.years[i] * vol(d, i, k));
}

// In the order of `Trouble` in diagnostics/trouble.py.
const TROUBLES = ["", "arbitrage", "undecided", "guarded", "off its quotes"];

/** What keeps a desk from quoting on the curve of slice `i`, in a word or three; "" where nothing does. */
export const trouble = (d, i) => (d.fitted[i] ? TROUBLES[d.trouble[i]] : "no fit");

/** Abramowitz and Stegun 26.2.17; 7.5e-8 is far below a pixel and a displayed delta. */
export function normalCdf(x) {
  const t = 1 / (1 + 0.2316419 * Math.abs(x));
  const tail = Math.exp(-x * x / 2) * 0.3989422804014327 * t
    * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return x >= 0 ? 1 - tail : tail;
}

/** Undiscounted forward delta of the out-of-the-money option at k: negative left of the forward (put), positive right (call). */
export function otmDelta(k, sigma, years) {
  const d1 = -k / (sigma * Math.sqrt(years)) + sigma * Math.sqrt(years) / 2;
  return k < 0 ? normalCdf(d1) - 1 : normalCdf(d1);
}

// --- text -------------------------------------------------------------------------------------------------------
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export function dateText(ms) {
  const d = new Date(ms);
  return `${d.getUTCDate()} ${MONTHS[d.getUTCMonth()]} ${String(d.getUTCFullYear() % 100).padStart(2, "0")}`;
}

export function daysText(years) {
  const days = years * 365;
  if (!(days > 0)) return "expired";
  if (days < 1) return `${(days * 24).toFixed(1)} h`;
  return days < 10 ? `${days.toFixed(1)} d` : `${Math.round(days)} d`;
}

/** Price with its thousands grouped and no more digits than `digits` significant ones below a thousand. */
export function priceText(x, digits = 5) {
  if (!Number.isFinite(x)) return "–";
  const places = Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(Math.abs(x) || 1))));
  return x.toLocaleString("en-US", { minimumFractionDigits: 0, maximumFractionDigits: places });
}

export function volText(v, places = 1) {
  return Number.isFinite(v) ? `${(100 * v).toFixed(places)}%` : "–";
}

/** A vol and its standard error, in vol points: 45.2% ±0.14. */
export function errorText(v, error, places = 1) {
  return volText(v, places) + (error > 0 ? ` ±${(100 * error).toFixed(error < 0.1 ? 2 : 0)}` : "");
}

export function ageText(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export function clockText(ms) {
  return Number.isFinite(ms) ? new Date(ms).toISOString().slice(11, 19) : "--:--:--";
}

// --- axes -------------------------------------------------------------------------------------------------------
/** At most `most` round numbers in [low, high], 1–2–2.5–5 steps. */
export function ticks(low, high, most) {
  if (!(high > low) || most < 1) return [];
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((s) => s * power).find((s) => s >= rough * (1 - 1e-9));
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** An axis range that holds [low, high] and does not twitch: it grows at once and shrinks only when the data use little of it. */
export function steadyRange(previous, low, high, pad = 0.08) {
  if (!(high >= low)) return previous;
  const span = Math.max(high - low, 1e-9);
  const fresh = [low - pad * span, high + pad * span];
  if (!previous) return fresh;
  const [from, to] = previous;
  if (low < from || high > to) return [Math.min(low < from ? fresh[0] : from, fresh[0]), Math.max(high > to ? fresh[1] : to, fresh[1])];
  return span < 0.6 * (to - from) ? fresh : previous;
}

// --- colours ----------------------------------------------------------------------------------------------------
// Perceptually even and readable with any colour vision. Stops are spaced evenly; between them the colours are linear in sRGB.
const STOPS = {
  viridis: "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725",
  cividis: "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838",
  ember: "1b1044 3b0f70 641a80 8c2981 b5367a de4968 f66e5c fe9f6d fecf92 fcfdbf",
};

/** Colour at t in [0, 1] of a map as [r, g, b] in 0…255. */
export function colour(map, t) {
  const stops = (STOPS[map] || STOPS.viridis).split(" ");
  const x = Math.min(Math.max(t || 0, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(x), stops.length - 2);
  return [0, 2, 4].map((c) => {
    const [p, q] = [stops[i], stops[i + 1]].map((s) => parseInt(s.slice(c, c + 2), 16));
    return Math.round(p + (q - p) * (x - i));
  });
}

const INKS = {
  // bid and ask, good and bad: Okabe–Ito pairs, which stay apart with any colour vision; shape says the same everywhere.
  dark: { bid: "#56b4e9", ask: "#e69f00", good: "#2fc6a0", bad: "#ff7a45", unsure: "#c9b458", curve: "#f4f6f8", band: "#8a7bf0",
    background: "#111418", raised: "#1a1f26", text: "#e8eaed", muted: "#9aa3ad", grid: "#2c333c" },
  light: { bid: "#0072b2", ask: "#c26a00", good: "#00795a", bad: "#c4420a", unsure: "#7a6400", curve: "#16191d", band: "#6f5bd6",
    background: "#ffffff", raised: "#f3f4f6", text: "#1c2024", muted: "#5f6873", grid: "#dde1e6" },
};

const MEDIA = () => matchMedia("(prefers-color-scheme: dark)");

function luminance(css) {
  const context = document.createElement("canvas").getContext("2d");
  // Any CSS colour comes back as #rrggbb.
  context.fillStyle = css;
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(context.fillStyle.slice(i, i + 2), 16) / 255);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Colours and font for an element: the notebook's own (--jp-*) when `mode` is "follow" and it has any. */
export function palette(el, mode) {
  const style = getComputedStyle(el);
  const own = (name) => style.getPropertyValue(name).trim();
  const ground = own("--jp-layout-color1");
  const bright = ground ? luminance(ground) : NaN;
  const dark = mode === "follow"
    ? (Number.isNaN(bright) ? MEDIA().matches : bright < 0.5)
    : mode === "dark";
  const p = { ...INKS[dark ? "dark" : "light"], dark, font: own("--jp-ui-font-family") || "system-ui, sans-serif" };
  if (mode === "follow" && ground) {
    p.background = ground;
    p.raised = own("--jp-layout-color2") || p.raised;
    p.text = own("--jp-ui-font-color0") || p.text;
  }
  return p;
}

// --- the life of a view -----------------------------------------------------------------------------------------
const VIEW_STYLE = `
.vs-panel{position:relative;width:100%;height:100%;min-height:120px;overflow:hidden;box-sizing:border-box;outline:none;
  font-family:var(--vs-font);color:var(--vs-text);background:var(--vs-background)}
.vs-panel:focus-visible::after{content:"";position:absolute;inset:0;border:2px solid var(--vs-bid);pointer-events:none}
.vs-panel>canvas{position:absolute;inset:0;width:100%;height:100%;display:block;transition:filter .3s,opacity .3s}
.vs-panel.vs-old>canvas{filter:grayscale(1);opacity:.6}
.vs-notice{position:absolute;left:50%;top:46%;transform:translate(-50%,-50%);max-width:80%;padding:10px 16px;border-radius:6px;
  text-align:center;font-size:13px;line-height:1.45;background:var(--vs-raised);border:1px solid var(--vs-grid);
  color:var(--vs-text);pointer-events:none;white-space:pre-line}
.vs-notice:empty{display:none}
.vs-tools{position:absolute;right:10px;top:7px;display:flex;gap:5px}.vs-tools button{font:11px var(--vs-font);color:var(--vs-text);
background:var(--vs-raised);border:1px solid var(--vs-grid);border-radius:4px;padding:3px 8px;cursor:pointer}`;

const STALE_AFTER = 3;

/**
 * Run a view. `panel` has name, nodes, draw(palette) and may have label (what it is and which keys it takes: then it can have
 * the focus), style, frame(decoded), changes (trait: function), resize(width, height), idle() and dispose().
 * Returns {host, invalidate, age, fps, dispose}; `notice(text)` of the panel, when it returns one, replaces the usual empty state.
 */
export function live({ model, el, panel, stale = true }) {
  const host = document.createElement("div");
  host.className = `vs-panel vs-${panel.name}`;
  if (panel.label) {
    host.tabIndex = 0;
    host.setAttribute("role", "application");
    host.setAttribute("aria-label", panel.label);
  }
  const style = document.createElement("style");
  style.textContent = VIEW_STYLE + (panel.style || "");
  const notice = document.createElement("div");
  notice.className = "vs-notice";
  notice.setAttribute("role", "status");
  host.append(style, ...panel.nodes, notice);
  el.append(host);

  const state = { colours: null, next: null, raf: 0, timer: 0, drawn: 0, drawMs: 0, busyUntil: 0, heard: 0, framed: 0, answered: 0,
    says: ["connecting", "connecting…"], seen: true, times: [], disposed: false, cut: false, feedAge: -Infinity, feedAt: 0, beats: 0 };
  const now = () => performance.now() / 1000;
  const opened = now();

  function restyle() {
    state.colours = palette(el, model.get("theme") || "follow");
    for (const [key, value] of Object.entries(state.colours)) host.style.setProperty(`--vs-${key}`, String(value));
    view.invalidate();
  }

  // Draw from one animation frame, newest data only, and leave the page as much time as the last draw took.
  function paint() {
    state.raf = 0;
    if (state.disposed || !state.seen || document.hidden) return;
    const rest = state.busyUntil - performance.now();
    if (rest > 4) {
      state.timer ||= setTimeout(() => { state.timer = 0; view.invalidate(); }, rest);
      return;
    }
    const start = performance.now();
    try {
      if (state.next) {
        const data = decode(state.next);
        state.next = null;
        panel.frame?.(data);
        count(data.header.number, data.header.time_ms);
      }
      panel.draw(state.colours);
      state.drawn++;
    } catch (error) {
      state.next = null;
      state.says = ["failed", `this panel could not draw: ${error.message}`];
      console.error("volsurf panel", error);
    }
    const took = performance.now() - start;
    state.drawMs = state.drawMs ? 0.8 * state.drawMs + 0.2 * took : took;
    state.busyUntil = performance.now() + Math.min(took, 1000);
    host.dataset.drawn = state.drawn;
    host.dataset.drawMs = state.drawMs.toFixed(1);
    look();
  }

  function count(number, ms) {
    host.dataset.frame = number;
    state.times.push([number, ms]);
    while (state.times.length > 2 && ms - state.times[0][1] > 3000) state.times.shift();
  }

  function hear(message, buffers) {
    if (!message || typeof message !== "object") return;
    state.answered = now();
    if (message.k === "frame" && buffers?.length) {
      state.next = buffers[0] instanceof DataView ? buffers[0] : new DataView(buffers[0].buffer ?? buffers[0]);
      state.heard = state.framed = state.answered;
      state.says = ["live", ""];
      view.invalidate();
    } else if (message.k === "tick") {
      state.heard = state.answered;
      state.says = ["live", ""];
      count(message.number, message.time_ms);
    } else if (message.k === "state") {
      state.says = [String(message.state), String(message.text)];
    }
    if (typeof message.feed_age === "number") [state.feedAge, state.feedAt] = [message.feed_age, state.answered];
    look();
  }

  // What the panel says about itself, and whether it greys out.
  function look() {
    const t = now();
    const age = state.heard ? t - state.heard : Infinity;
    const [says, text] = state.says;
    let words = "";
    if (!state.framed) {
      words = says === "live" || says === "connecting"
        ? (t - opened > STALE_AFTER && t - state.answered > STALE_AFTER ? "no answer from the kernel yet…" : "connecting…")
        : text;
    } else if (says === "failed") words = text;
    else if (age > STALE_AFTER) {
      const silent = t - state.answered > STALE_AFTER;
      words = silent ? `no frame for ${ageText(age)}\n${state.cut ? "the kernel was restarted or ended: run the cell again" : "the kernel is busy, stopped or out of reach"}`
        : `${says === "disconnected" ? "disconnected, last frame" : "no frame for"} ${ageText(age)}${says === "disconnected" ? " ago" : ""}\n${text.replace(/^no frame for [^:]*: /, "")}`;
    }
    // The engine may be well while the venue is silent: its frames say how long.
    const feed = state.feedAge + t - state.feedAt;
    if (!words && state.framed && feed > STALE_AFTER) words = `feed stale for ${ageText(feed)}`;
    const old = Boolean(state.framed) && (age > STALE_AFTER || feed > STALE_AFTER);
    if (stale) {
      host.classList.toggle("vs-old", old);
      const shown = words || panel.notice?.() || "";
      if (notice.textContent !== shown) notice.textContent = shown;
    }
    host.dataset.state = words ? (state.framed ? "stale" : says) : "live";
    panel.idle?.({ age, says: words ? (old ? "stale" : says) : "live", words });
  }

  const view = {
    host,
    invalidate() { if (!state.raf && !state.timer && !state.disposed) state.raf = requestAnimationFrame(paint); },
    /** Frames of the engine a second over the last three seconds, from their own clock. */
    get fps() {
      const [first, last] = [state.times[0], state.times.at(-1)];
      return first && last[1] > first[1] ? 1000 * (last[0] - first[0]) / (last[1] - first[1]) : 0;
    },
    dispose() {
      state.disposed = true;
      clearInterval(beat);
      clearTimeout(state.timer);
      cancelAnimationFrame(state.raf);
      model.off("msg:custom", hear);
      for (const [name, fn] of changes) model.off(`change:${name}`, fn);
      document.removeEventListener("visibilitychange", wake);
      sizes.disconnect(); sight.disconnect(); themes.disconnect();
      media.removeEventListener("change", restyle);
      panel.dispose?.();
      host.remove();
    },
  };

  const changes = [["theme", restyle], ...Object.entries(panel.changes ?? {}).map(([name, fn]) => [name, () => { fn(); view.invalidate(); }])];
  const watching = () => !document.hidden && state.seen;
  // After a restart of the kernel the old views stay on the page, and what they send is refused.
  function say(k) {
    try { model.send({ k, ms: state.drawMs }); state.cut = false; } catch { state.cut = true; }
  }
  const ready = () => say("ready");
  function wake() {
    if (!watching()) return;
    ready();
    view.invalidate();
  }
  model.on("msg:custom", hear);
  for (const [name, fn] of changes) model.on(`change:${name}`, fn);
  document.addEventListener("visibilitychange", wake);
  const sizes = new ResizeObserver(() => {
    panel.resize?.(host.clientWidth, host.clientHeight);
    // And the first time, when the panel comes into the page and has a style to follow.
    restyle();
  });
  sizes.observe(host);
  // Scrolled out of sight is as good as hidden: no heartbeat, no frames.
  const sight = new IntersectionObserver((entries) => {
    const seen = entries.at(-1).isIntersecting;
    if (seen === state.seen) return;
    state.seen = seen;
    wake();
  });
  sight.observe(host);
  const themes = new MutationObserver(restyle);
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  const media = MEDIA();
  media.addEventListener("change", restyle);
  const beat = setInterval(() => {
    if (state.beats++ % 2 && watching()) say("hb");
    look();
  }, 500);
  restyle();
  ready();
  return view;
}

/** Match a canvas's pixels to its box; returns its 2-D context scaled to CSS pixels, or the factor for a GL canvas. */
export function fit(canvas, width, height, flat = true) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  if (!flat) return ratio;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** A read-out beside the point `at`, kept inside the view. The first line is the headline. */
export function card(ctx, p, at, width, height, lines) {
  ctx.font = `600 12px ${p.font}`;
  const [w, h] = [Math.max(...lines.map((text) => ctx.measureText(text).width)) + 22, 12 + 18 * lines.length];
  const x = at[0] + 16 + w > width ? at[0] - 16 - w : at[0] + 16;
  const y = Math.min(Math.max(at[1] - h / 2, 6), height - h - 6);
  ctx.fillStyle = p.background;
  ctx.strokeStyle = p.grid;
  ctx.lineWidth = 1;
  ctx.beginPath(); ctx.roundRect(x, y, w, h, 5); ctx.fill(); ctx.stroke();
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  lines.forEach((text, i) => {
    ctx.font = `${i ? "" : "600 "}12px ${p.font}`;
    ctx.fillStyle = i > 1 ? p.muted : p.text;
    ctx.fillText(text, x + 11, y + 15 + 18 * i);
  });
  ctx.canvas.dataset.readout = lines.join(" | ");
}

/** ln(K/F) and the delta of the out-of-the-money option there, in words. */
export function moneynessText(k, sigma, years) {
  const delta = otmDelta(k, sigma, years);
  return [`${k < 0 ? "−" : "+"}${Math.abs(k).toFixed(3)}`, `${(100 * Math.abs(delta)).toFixed(Math.abs(delta) < 0.02 ? 1 : 0)}Δ ${delta < 0 ? "put" : "call"}`];
}
