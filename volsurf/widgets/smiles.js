// Small multiples of the smiles on one canvas: quotes as marks, the fitted curve, the verdict. smiles.py is the other end.
import { card, clockText, dateText, daysText, errorText, fit, live, moneynessText, priceText, steadyRange, ticks, totalVariance, trouble, vol, volError, volText } from "./live.js";

/** Strike as an axis tick: 95k, 102.5k, 3,400, 148. */
export function strikeText(x) {
  return x >= 10000 ? `${Number((x / 1000).toPrecision(5))}k` : priceText(x, 4);
}

// Below this the shape of a smile is mostly its neighbours'.
const ENOUGH = 7;

/** Columns, rows and cell size that make `n` cells in a box come closest to a readable shape. */
export function arrange(n, width, height) {
  let best = null;
  for (let columns = 1; columns <= n; columns++) {
    const rows = Math.ceil(n / columns);
    const [w, h] = [width / columns, height / rows];
    const cost = Math.abs(Math.log(w / h / 1.45)) + 0.35 * (rows * columns - n) / n;
    if (!best || cost < best.cost) best = { columns, rows, w, h, cost };
  }
  return best ?? { columns: 1, rows: 1, w: width, h: height };
}

const VIOLATED = 2;
const LONG = {
  undecided: "undecided, within rounding error of the boundary",
  guarded: "pulled to a curve without arbitrage, because its quotes and its neighbours' allow no other",
  "off its quotes": "proved free of arbitrage, but it does not follow its quotes",
};

/** The verdict on slice i in words: {state ("proved", "violated", "none" or the trouble), short, long, k, beyond}. */
export function verdict(d, i) {
  const state = trouble(d, i);
  if (!d.fitted[i]) return { state: "none", short: "no fit", long: "no fit: too few quotes" };
  for (const [name, short] of [["butterfly", "fly"], ["calendar", "cal"]]) {
    if (d[name][i] < VIOLATED) continue;
    const k = d[`${name}_k`][i];
    const text = Number.isFinite(k) ? `${k < 0 ? "−" : "+"}${Math.abs(k).toFixed(2)}` : "";
    const beyond = k < d.low[i] || k > d.high[i];
    return { state: "violated", short: `${short} ${text}`, k, beyond,
      long: `${name} arbitrage, worst at k* ${text}${beyond ? ", beyond the quotes" : ""}: do not quote on it` };
  }
  if (state) return { state, short: state, long: `${LONG[state]}: do not quote on it` };
  const moved = movedText(d, i);
  return { state: "proved", short: "", long: `proved free of butterfly and calendar arbitrage at every strike${moved && `; ${moved} from its quotes' own fit`}` };
}

/** How far enforcement and filter took the curve from its quotes' own fit, "" for less than half a basis point. */
export function movedText(d, i) {
  return d.move[i] > 5e-5 ? `moved ${Math.round(1e4 * d.move[i])} bp` : "";
}

/** Where the marks of each slice begin; one longer than there are slices. */
export function markStarts(d) {
  const out = [0];
  for (const n of d.marks) out.push(out.at(-1) + n);
  return out;
}

function render({ model, el }) {
  const canvas = document.createElement("canvas");
  const tools = document.createElement("div");
  tools.className = "vs-tools";
  const [back, earlier, later] = ["all expiries", "‹", "›"].map((text) => {
    const button = document.createElement("button");
    button.textContent = text;
    tools.append(button);
    return button;
  });
  earlier.setAttribute("aria-label", "nearer expiry");
  later.setAttribute("aria-label", "farther expiry");

  let data = null;
  let starts = [0];
  let size = [1, 1];
  let cells = [];
  let pointer = null;
  let ranges = new Map();
  let shown = "";

  const chosen = () => (data ? data.expiry_ms.findIndex((ms) => ms === model.get("expiry")) : -1);
  const choose = (i) => {
    model.set("expiry", i >= 0 ? data.expiry_ms[i] : 0);
    model.save_changes();
    view.invalidate();
  };

  const panel = {
    name: "smiles",
    label: "smiles by expiry: click one or use the arrow keys to enlarge it, Escape for all",
    nodes: [canvas, tools],
    style: ".vs-smiles .vs-tools{display:none}",
    frame(decoded) {
      data = decoded;
      starts = markStarts(data);
      if (data.header.underlying !== shown) { shown = data.header.underlying; ranges = new Map(); }
    },
    changes: { expiry: () => {} },
    resize(width, height) { size = [width, height]; },
    notice() {
      if (!data) return "";
      if (!data.header.underlying) return "waiting for the first quotes…";
      return data.years.length ? "" : `no quotes for ${data.header.underlying}`;
    },
    draw(p) {
      const [width, height] = size;
      if (width < 40 || height < 40) return;
      const ctx = fit(canvas, width, height);
      ctx.fillStyle = p.background;
      ctx.fillRect(0, 0, width, height);
      const n = data?.years.length ?? 0;
      const one = chosen();
      tools.style.display = one >= 0 ? "flex" : "none";
      canvas.style.cursor = one >= 0 ? "crosshair" : n ? "zoom-in" : "default";
      cells = [];
      if (!n) return;
      if (one >= 0) {
        big(ctx, p, one, width, height);
        return;
      }
      const g = arrange(n, width, height);
      for (let i = 0; i < n; i++) {
        const cell = { i, x: (i % g.columns) * g.w, y: Math.floor(i / g.columns) * g.h, w: g.w, h: g.h };
        cells.push(cell);
        small(ctx, p, cell);
      }
      const spare = g.columns * g.rows - n;
      if (spare) key(ctx, p, width - spare * g.w + 22, height - g.h + 30, g.h - 40);
    },
  };

  // What of slice i is drawn: the range of log-moneyness and of vol, and the marks that lie in it.
  function extent(i, wide) {
    const unit = data.fitted[i] ? Math.sqrt(totalVariance(data, i, 0)) : NaN;
    const marks = [];
    for (let j = starts[i]; j < starts[i + 1]; j++) marks.push({ j, k: Math.log(data.strike[j] / data.forward[i]) });
    let [k0, k1] = [data.low[i], data.high[i]];
    if (wide || !(k1 > k0)) { k0 = Math.min(...marks.map((m) => m.k), -0.02); k1 = Math.max(...marks.map((m) => m.k), 0.02); }
    if (unit > 0 && !wide) { k0 = Math.max(k0, -3.5 * unit); k1 = Math.min(k1, 3.5 * unit); }
    let [v0, v1] = [Infinity, -Infinity];
    const take = (v) => { if (v > 0) { v0 = Math.min(v0, v); v1 = Math.max(v1, v); } };
    if (data.fitted[i]) for (let q = 0; q <= 24; q++) take(vol(data, i, k0 + (k1 - k0) * q / 24));
    const top = v1;
    for (const { j, k } of marks) {
      const [bid, ask] = [data.bid_vol[j], data.ask_vol[j]];
      if (k < k0 || k > k1 || data.side[j]) continue;
      if (!(top > 0) || ask - bid < 0.35 * top) { take(bid); take(ask); }
    }
    const key = `${wide ? "w" : "s"}${data.expiry_ms[i]}`;
    const was = ranges.get(key) ?? {};
    const now = { k: steadyRange(was.k, k0, k1, 0.05), v: steadyRange(was.v, v0, v1, 0.1) ?? [0, 1] };
    ranges.set(key, now);
    return { ...now, marks };
  }

  function axes(ctx, p, box, range, i, count, font) {
    const X = (k) => box.x + (k - range.k[0]) / (range.k[1] - range.k[0]) * box.w;
    const Y = (v) => box.y + box.h - (v - range.v[0]) / (range.v[1] - range.v[0]) * box.h;
    ctx.font = `${font}px ${p.font}`;
    ctx.lineWidth = 1;
    ctx.strokeStyle = p.grid;
    ctx.fillStyle = p.muted;
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    const vols = ticks(range.v[0], range.v[1], count[1]);
    ctx.beginPath();
    for (const v of vols) {
      const y = Math.round(Y(v)) + 0.5;
      ctx.moveTo(box.x, y);
      ctx.lineTo(box.x + box.w, y);
      ctx.fillText(`${Number((100 * v).toFixed(1))}%`, box.x - 5, y);
    }
    const forward = data.forward[i];
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    let edge = -Infinity;
    for (const strike of ticks(forward * Math.exp(range.k[0]), forward * Math.exp(range.k[1]), count[0])) {
      if (strike <= 0) continue;
      const x = Math.round(X(Math.log(strike / forward))) + 0.5;
      ctx.moveTo(x, box.y);
      ctx.lineTo(x, box.y + box.h);
      const text = strikeText(strike);
      const half = ctx.measureText(text).width / 2 + 4;
      if (x - half < edge || x + half > box.x + box.w + 14) continue;
      edge = x + half;
      ctx.fillText(text, x, box.y + box.h + 4);
    }
    ctx.stroke();
    ctx.strokeStyle = p.muted;
    ctx.globalAlpha = 0.7;
    ctx.setLineDash([2, 3]);
    ctx.beginPath();
    ctx.moveTo(X(0), box.y);
    ctx.lineTo(X(0), box.y + box.h);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
    return [X, Y];
  }

  function marks(ctx, p, i, list, X, Y, box, half) {
    const each = (draw) => { for (const m of list) { const x = X(m.k); if (x >= box.x + half && x <= box.x + box.w - half) draw(m.j, x); } };
    const path = (style, width, alpha, draw) => {
      ctx.strokeStyle = style; ctx.lineWidth = width; ctx.globalAlpha = alpha;
      ctx.beginPath(); draw(); ctx.stroke();
      ctx.globalAlpha = 1;
    };
    const two = (j) => !data.side[j] && !data.excluded[j];
    path(p.muted, 1, 0.6, () => each((j, x) => { if (two(j)) { ctx.moveTo(x, Y(data.bid_vol[j])); ctx.lineTo(x, Y(data.ask_vol[j])); } }));
    for (const [name, style, up] of [["bid_vol", p.bid, -1], ["ask_vol", p.ask, 1]]) {
      path(style, 1.6, 1, () => each((j, x) => {
        const v = data[name][j];
        if (two(j) && v > 0) { ctx.moveTo(x - half, Y(v)); ctx.lineTo(x + half, Y(v)); }
      }));
      // One-sided: a hollow triangle that points where the missing side would be.
      path(style, 1, 0.75, () => each((j, x) => {
        const v = data[name][j];
        if (data.side[j] !== up || data.excluded[j] || !(v > 0)) return;
        const [y, s] = [Y(v), half + 0.6];
        ctx.moveTo(x - s, y); ctx.lineTo(x + s, y); ctx.lineTo(x, y + up * 1.7 * s); ctx.closePath();
      }));
    }
    path(p.muted, 1, 0.65, () => each((j, x) => {
      if (!data.excluded[j]) return;
      const [bid, ask] = [data.bid_vol[j], data.ask_vol[j]];
      const y = Y(bid > 0 && ask > 0 ? (bid + ask) / 2 : bid > 0 ? bid : ask);
      ctx.moveTo(x - half, y - half); ctx.lineTo(x + half, y + half); ctx.moveTo(x + half, y - half); ctx.lineTo(x - half, y + half);
    }));
  }

  // Two standard errors on either side of the curve; grey where the curve is less sure than the quotes beside it are wide.
  function band(ctx, p, i, range, X, Y, points) {
    const quoted = range.marks.filter(({ j }) => !data.side[j] && !data.excluded[j]).map(({ j, k }) => [k, (data.ask_vol[j] - data.bid_vol[j]) / 2]);
    let [n, run, sure] = [0, [], null];
    const flush = () => {
      ctx.beginPath();
      for (const [x, top] of run) ctx.lineTo(x, top);
      for (const [x, , bottom] of run.reverse()) ctx.lineTo(x, bottom);
      ctx.fillStyle = sure ? p.band : p.muted;
      ctx.globalAlpha = sure ? 0.34 : 0.18;
      ctx.fill();
      ctx.globalAlpha = 1;
      run = run.slice(0, 1);
    };
    for (let q = 0; q <= points; q++) {
      const k = range.k[0] + (range.k[1] - range.k[0]) * q / points;
      const [v, error] = [vol(data, i, k), volError(data, i, k)];
      if (!(error > 0)) return;
      while (n < quoted.length && quoted[n][0] < k) n++;
      const beside = Math.max(quoted[n - 1]?.[1], quoted[n]?.[1]);
      run.push([X(k), Y(v + 2 * error), Y(v - 2 * error)]);
      const now = error <= beside && data.two_sided[i] >= ENOUGH;
      if (sure !== null && now !== sure) flush();
      sure = now;
    }
    flush();
  }

  // The curve is market where two-sided quotes hold it; beyond them it is only the model's guess, and drawn as one.
  function curve(ctx, p, i, range, X, Y, width, points) {
    if (!data.fitted[i]) return;
    const [low, high] = [data.low[i], data.high[i]];
    const stroke = (a, b, dash, alpha) => {
      if (!(b > a)) return;
      ctx.setLineDash(dash);
      ctx.globalAlpha = alpha;
      ctx.beginPath();
      for (let q = 0; q <= points; q++) {
        const k = a + (b - a) * q / points;
        ctx.lineTo(X(k), Y(vol(data, i, k)));
      }
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.globalAlpha = 1;
    };
    ctx.strokeStyle = data.two_sided[i] < ENOUGH ? p.muted : p.curve;
    ctx.lineWidth = width;
    if (!(high > low)) { stroke(range.k[0], range.k[1], [4, 3], 0.5); return; }
    stroke(Math.max(low, range.k[0]), Math.min(high, range.k[1]), [], 1);
    stroke(range.k[0], Math.min(low, range.k[1]), [3, 3], 0.4);
    stroke(Math.max(high, range.k[0]), range.k[1], [3, 3], 0.4);
  }

  // Shape and word carry the verdict, colour only repeats it: disc and tick, square and bang, diamond and cross, ring and dash. A square
  // says that the curve is free of arbitrage and yet not to be used.
  function badge(ctx, p, v, right, y, text, font) {
    const style = { proved: p.good, violated: p.bad, none: p.muted }[v.state] ?? p.unsure;
    ctx.font = `${font}px ${p.font}`;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    ctx.fillStyle = ctx.strokeStyle = style;
    ctx.fillText(text, right, y);
    const [x, r] = [right - ctx.measureText(text).width - 11, 5.5];
    const square = v.state === "guarded" || v.state === "off its quotes";
    const filled = v.state === "proved" || square || (v.state === "violated" && !v.beyond);
    ctx.lineWidth = 1.4;
    ctx.beginPath();
    if (v.state === "violated") { ctx.moveTo(x, y - r - 1); ctx.lineTo(x + r + 1, y); ctx.lineTo(x, y + r + 1); ctx.lineTo(x - r - 1, y); ctx.closePath(); }
    else if (square) ctx.rect(x - r, y - r, 2 * r, 2 * r);
    else ctx.arc(x, y, r, 0, 7);
    if (filled) ctx.fill();
    else ctx.stroke();
    ctx.strokeStyle = filled ? p.background : style;
    ctx.beginPath();
    if (v.state === "proved") { ctx.moveTo(x - 2.6, y + 0.2); ctx.lineTo(x - 0.7, y + 2.3); ctx.lineTo(x + 2.8, y - 2.2); }
    else if (square) { ctx.moveTo(x, y - 3.4); ctx.lineTo(x, y + 1); ctx.moveTo(x, y + 2.2); ctx.lineTo(x, y + 3.6); }
    else if (v.state === "violated") { for (const s of [-1, 1]) { ctx.moveTo(x - 2, y - 2 * s); ctx.lineTo(x + 2, y + 2 * s); } }
    else { ctx.moveTo(x - 2.5, y); ctx.lineTo(x + 2.5, y); }
    ctx.stroke();
    return x - r - 6;
  }

  function witness(ctx, p, i, v, range, X, Y, box, s) {
    if (v.state !== "violated" || !Number.isFinite(v.k)) return;
    const x = Math.min(Math.max(X(v.k), box.x), box.x + box.w);
    const side = v.k < range.k[0] ? -1 : v.k > range.k[1] ? 1 : 0;
    const y = side ? box.y + box.h - 8 : Math.min(Math.max(Y(vol(data, i, v.k)), box.y + 8), box.y + box.h);
    ctx.fillStyle = p.bad;
    ctx.beginPath();
    if (side) { ctx.moveTo(x, y); ctx.lineTo(x - side * 1.6 * s, y - s); ctx.lineTo(x - side * 1.6 * s, y + s); }
    else { ctx.moveTo(x, y - 3); ctx.lineTo(x - s, y - 3 - 1.6 * s); ctx.lineTo(x + s, y - 3 - 1.6 * s); }
    ctx.fill();
  }

  function body(ctx, p, i, box, wide, half, width, points, count, font) {
    const range = extent(i, wide);
    const v = verdict(data, i);
    const [X, Y] = axes(ctx, p, box, range, i, count, font);
    ctx.save();
    ctx.beginPath(); ctx.rect(box.x, box.y, box.w, box.h); ctx.clip();
    if (data.fitted[i]) band(ctx, p, i, range, X, Y, points);
    marks(ctx, p, i, range.marks, X, Y, box, half);
    curve(ctx, p, i, range, X, Y, width, points);
    witness(ctx, p, i, v, range, X, Y, box, half + 2);
    ctx.restore();
    return { range, X, Y, v };
  }

  const facts = (i) => [`ATM ${errorText(vol(data, i, 0), volError(data, i, 0))}`, `F ${priceText(data.forward[i], 6)}`,
    Number.isFinite(data.inside[i]) ? `${Math.round(100 * data.inside[i])}% inside` : "", movedText(data, i)].filter(Boolean);

  function small(ctx, p, cell) {
    const { i, x, y, w, h } = cell;
    const over = pointer && pointer[0] >= x && pointer[0] < x + w && pointer[1] >= y && pointer[1] < y + h;
    // Certified is the rule: what is not has a frame.
    const wrong = data.fitted[i] && trouble(data, i);
    ctx.strokeStyle = wrong ? (wrong === "arbitrage" ? p.bad : p.unsure) : over ? p.muted : p.grid;
    ctx.lineWidth = wrong ? 1.8 : 1;
    ctx.strokeRect(x + 3.5, y + 3.5, w - 7, h - 7);
    const { v } = body(ctx, p, i, { x: x + 44, y: y + 46, w: w - 58, h: h - 70 }, false, w > 260 ? 2.4 : 1.8, 1.4, 56, [w / 62, h / 46], 10);
    ctx.font = `600 12px ${p.font}`;
    const name = dateText(data.expiry_ms[i]);
    const after = x + 12 + ctx.measureText(name).width + 8;
    // Too narrow for the date and the verdict's word: its shape alone says it.
    const word = after + 24 + ctx.measureText(v.short).width > x + w - 12 ? "" : v.short;
    const edge = badge(ctx, p, v, x + w - 12, y + 18, word, 11);
    ctx.textAlign = "left";
    ctx.font = `600 12px ${p.font}`;
    ctx.fillStyle = p.text;
    ctx.fillText(name, x + 12, y + 18);
    ctx.font = `11px ${p.font}`;
    ctx.fillStyle = p.muted;
    const days = daysText(data.years[i]);
    if (after + ctx.measureText(days).width < edge) ctx.fillText(days, after, y + 18);
    let at = x + 12;
    for (const text of facts(i)) {
      if (at + ctx.measureText(text).width > x + w - 10) break;
      ctx.fillText(text, at, y + 35);
      at += ctx.measureText(text).width + 11;
    }
  }

  function big(ctx, p, i, width, height) {
    const box = { x: 58, y: 76, w: width - 84, h: height - 134 };
    const { range, X, Y, v } = body(ctx, p, i, box, true, 3.4, 2, 240, [width / 80, height / 60], 11);
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.font = `600 15px ${p.font}`;
    ctx.fillStyle = p.text;
    ctx.fillText(`${data.header.underlying} ${dateText(data.expiry_ms[i])} · ${daysText(data.years[i])}`, 14, 20);
    ctx.font = `12px ${p.font}`;
    ctx.fillStyle = p.muted;
    ctx.fillText([...facts(i), `${data.two_sided[i]} two-sided of ${data.used[i]} used`, `rms ${data.rms[i].toFixed(2)} error bars`,
      `${clockText(data.header.time_ms)} UTC`].join("   "), 14, 40);
    ctx.textAlign = "left";
    const end = 32 + ctx.measureText(v.long).width;
    badge(ctx, p, v, end, 60, v.long, 12);
    ctx.fillStyle = p.muted;
    ctx.textAlign = "center";
    ctx.font = `11px ${p.font}`;
    ctx.fillText("strike", box.x + box.w / 2, height - 28);
    legend(ctx, p, box.x, height - 10, width);
    if (pointer && pointer[1] > box.y && pointer[1] < box.y + box.h) cross(ctx, p, i, range, X, box, width, height);
  }

  // What the marks mean: [colour, words, drawing about (x, y)].
  const meanings = (ctx, p) => {
    const dash = (x, y) => { ctx.moveTo(x - 6, y); ctx.lineTo(x + 6, y); };
    const triangle = (s) => (x, y) => { ctx.moveTo(x - 4, y); ctx.lineTo(x + 4, y); ctx.lineTo(x, y + 6 * s); ctx.closePath(); };
    return [[p.bid, "bid", dash], [p.ask, "ask", dash], [p.bid, "bid only", triangle(-1)], [p.ask, "ask only", triangle(1)],
      [p.muted, "left out", (x, y) => { for (const s of [-1, 1]) { ctx.moveTo(x - 3, y - 3 * s); ctx.lineTo(x + 3, y + 3 * s); } }],
      [p.curve, "SVI", dash], [p.curve, "SVI beyond the quotes", (x, y) => { ctx.setLineDash([3, 3]); dash(x, y); }],
      [p.band, "±2 standard errors", (x, y) => ctx.rect(x - 6, y - 3, 12, 6)], [p.muted, "the same, wider than quotes", (x, y) => ctx.rect(x - 6, y - 3, 12, 6)]];
  };

  function meaning(ctx, p, [style, text, draw], x, y) {
    ctx.font = `11px ${p.font}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.strokeStyle = style;
    ctx.lineWidth = 1.6;
    ctx.beginPath(); draw(x, y); ctx.stroke();
    ctx.setLineDash([]);
    ctx.fillStyle = p.muted;
    ctx.fillText(text, x + 13, y);
    return 13 + ctx.measureText(text).width;
  }

  function legend(ctx, p, x, y, width) {
    for (const one of meanings(ctx, p)) {
      // What there is no room for is left out whole.
      if (x + 21 + ctx.measureText(one[1]).width > width) return;
      x += meaning(ctx, p, one, x + 8, y) + 20;
    }
  }

  // A spare cell of the grid explains the marks and the verdicts.
  function key(ctx, p, x, y, room) {
    const verdicts = [["proved", false, "proved free of arbitrage"], ["guarded", false, "free of it, but do not quote"], ["violated", false, "arbitrage, worst at k*"],
      ["violated", true, "the same, k* beyond the quotes"], ["undecided", false, "undecided"]];
    const list = meanings(ctx, p);
    const step = Math.min(18, room / (list.length + verdicts.length));
    if (step < 11) return;
    for (const one of list) { meaning(ctx, p, one, x, y); y += step; }
    for (const [state, beyond, text] of verdicts) {
      badge(ctx, p, { state, beyond }, x + 11, y, "", 11);
      ctx.textAlign = "left";
      ctx.fillStyle = p.muted;
      ctx.fillText(text, x + 13, y);
      y += step;
    }
  }

  function cross(ctx, p, i, range, X, box, width, height) {
    const list = range.marks;
    if (!list?.length) return;
    const near = list.reduce((a, b) => (Math.abs(X(b.k) - pointer[0]) < Math.abs(X(a.k) - pointer[0]) ? b : a));
    const { j, k } = near;
    const sigma = vol(data, i, k);
    const [log, delta] = moneynessText(k, sigma, data.years[i]);
    const lines = [`strike ${priceText(data.strike[j], 6)}   ${delta}`, `bid ${volText(data.bid_vol[j], 2)}   ask ${volText(data.ask_vol[j], 2)}`,
      `SVI ${errorText(sigma, volError(data, i, k), 2)}   ln K/F ${log}`];
    const wrong = trouble(data, i);
    if (wrong) lines.push(`${wrong}: do not quote on it`);
    if (data.excluded[j]) lines.push(`left out: ${data.header.reasons[data.reason[j]] ?? "not used"}`);
    ctx.strokeStyle = p.muted;
    ctx.lineWidth = 1;
    ctx.beginPath(); ctx.moveTo(X(k), box.y); ctx.lineTo(X(k), box.y + box.h); ctx.stroke();
    card(ctx, p, [X(k), box.y + 44], width, height, lines);
  }

  const view = live({ model, el, panel });
  const host = view.host;
  const place = (e) => { const b = host.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
  host.addEventListener("pointermove", (e) => { pointer = place(e); view.invalidate(); });
  host.addEventListener("pointerleave", () => { pointer = null; view.invalidate(); });
  canvas.addEventListener("click", (e) => {
    const [x, y] = place(e);
    const cell = cells.find((c) => x >= c.x && x < c.x + c.w && y >= c.y && y < c.y + c.h);
    if (cell) choose(cell.i);
  });
  // With none enlarged, forward begins with the nearest expiry and back with the farthest.
  const step = (by) => {
    const n = data?.expiry_ms.length;
    if (n) choose(Math.min(Math.max((chosen() < 0 && by < 0 ? n : chosen()) + by, 0), n - 1));
  };
  back.addEventListener("click", () => choose(-1));
  earlier.addEventListener("click", () => step(-1));
  later.addEventListener("click", () => step(1));
  host.addEventListener("keydown", (e) => {
    if (e.key === "Escape") choose(-1);
    else if (e.key === "ArrowLeft" || e.key === "ArrowRight") step(e.key === "ArrowLeft" ? -1 : 1);
    else return;
    e.preventDefault();
  });
  return view.dispose;
}

export default { render };
