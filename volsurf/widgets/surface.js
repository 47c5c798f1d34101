// The 3-D vol surface: WebGL2 for the mesh, a 2-D canvas above it for every letter. surface.py is the other end.
import { card, clockText, colour, dateText, daysText, errorText, fit, live, moneynessText, priceText, steadyRange, ticks, totalVariance, trouble, vol, volError } from "./live.js";

const COLUMNS = 49;
const MAX_ROWS = 72;

/**
 * Grid of the fitted part of a surface. Rows run in √time through every expiry with some between; each row spans the quoted
 * strikes only, and between expiries total variance is linear at fixed log-moneyness. `axis` is "delta" (standardised
 * moneyness y = k / (atm vol √years)) or "log_moneyness".
 */
export function mesh(d, axis, reach) {
  const slices = [];
  for (let i = 0; i < d.years.length; i++) {
    const unit = Math.sqrt(totalVariance(d, i, 0));
    const [low, high] = [Math.max(d.low[i] / unit, -reach), Math.min(d.high[i] / unit, reach)];
    if (d.fitted[i] && unit > 0 && high - low > 0.1) slices.push({ i, t: d.years[i], root: Math.sqrt(d.years[i]), unit, low, high });
  }
  const total = slices.length > 1 ? slices.at(-1).root - slices[0].root : 1;
  const rows = [];
  for (let s = 0; s < slices.length; s++) {
    rows.push({ ...slices[s], near: slices[s], far: slices[s], weight: 0, listed: true });
    const [near, far] = [slices[s], slices[s + 1]];
    if (!far) break;
    const between = Math.min(7, Math.round(36 * (far.root - near.root) / total));
    for (let q = 1; q <= between && rows.length < MAX_ROWS; q++) {
      const f = q / (between + 1);
      const root = near.root + f * (far.root - near.root);
      const weight = (root * root - near.t) / (far.t - near.t);
      const mix = (p) => near[p] + f * (far[p] - near[p]);
      const unit = Math.sqrt((1 - weight) * near.unit ** 2 + weight * far.unit ** 2);
      rows.push({ near, far, weight, t: root * root, root, unit, low: mix("low"), high: mix("high"), listed: false });
    }
  }
  const n = rows.length * COLUMNS;
  const out = { rows, slices, u: new Float32Array(n), k: new Float32Array(n), vol: new Float32Array(n), low: Infinity, high: -Infinity };
  rows.forEach((row, r) => {
    for (let c = 0; c < COLUMNS; c++) {
      const y = row.low + (row.high - row.low) * c / (COLUMNS - 1);
      const k = y * row.unit;
      const near = totalVariance(d, row.near.i, k);
      const w = row.weight ? (1 - row.weight) * near + row.weight * totalVariance(d, row.far.i, k) : near;
      const at = r * COLUMNS + c;
      out.k[at] = k;
      out.u[at] = axis === "delta" ? y : k;
      out.vol[at] = Math.sqrt(Math.max(w, 0) / row.t);
      out.low = Math.min(out.low, out.vol[at]);
      out.high = Math.max(out.high, out.vol[at]);
    }
  });
  return out;
}

/** Camera that fits the box into the view: `matrix` for GL (column major) and `project(x, y, z)` to pixels and depth. */
export function camera([yaw, pitch, zoom], width, height, half, margin) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const distance = 5.5;
  const raw = (x, y, z) => {
    const h = z - half[2];
    const away = sy * x + cy * y;
    const depth = distance + cp * away - sp * h;
    return [(cy * x - sy * y) / depth, (cp * h + sp * away) / depth, depth];
  };
  let [u0, u1, v0, v1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const x of [-half[0], half[0]]) for (const y of [-half[1], half[1]]) for (const z of [0, 2 * half[2]]) {
    const [u, v] = raw(x, y, z);
    u0 = Math.min(u0, u); u1 = Math.max(u1, u); v0 = Math.min(v0, v); v1 = Math.max(v1, v);
  }
  const [left, right, top, bottom] = margin;
  const scale = zoom * Math.max(Math.min((width - left - right) / (u1 - u0), (height - top - bottom) / (v1 - v0)), 10);
  const [px, py] = [(left + width - right) / 2 - scale * (u0 + u1) / 2, (top + height - bottom) / 2 + scale * (v0 + v1) / 2];
  const project = (x, y, z) => {
    const [u, v, depth] = raw(x, y, z);
    return [px + scale * u, py - scale * v, depth];
  };
  const [kx, ky, ox, oy] = [2 * scale / width, 2 * scale / height, 2 * px / width - 1, 1 - 2 * py / height];
  const h = half[2];
  const w = [sy * cp, cy * cp, -sp, distance + sp * h];
  const rowX = [kx * cy, -kx * sy, 0, 0].map((a, i) => a + ox * w[i]);
  const rowY = [ky * sp * sy, ky * sp * cy, ky * cp, -ky * cp * h].map((a, i) => a + oy * w[i]);
  const far = distance + 4;
  const close = distance - 4;
  const [za, zb] = [(far + close) / (far - close), -2 * far * close / (far - close)];
  const rowZ = w.map((a, i) => za * a + (i === 3 ? zb : 0));
  const matrix = new Float32Array(16);
  for (let i = 0; i < 4; i++) { matrix[4 * i] = rowX[i]; matrix[4 * i + 1] = rowY[i]; matrix[4 * i + 2] = rowZ[i]; matrix[4 * i + 3] = w[i]; }
  return { matrix, project, toward: [-sy, -cy] };
}

const VERTEX = `#version 300 es
in vec3 at; uniform mat4 m; uniform float lift; out vec3 p;
void main(){ p=at; gl_Position=m*vec4(at,1.); gl_Position.z-=lift*gl_Position.w; }`;
// One program for both: lines in `ink`, and with no ink the faces, coloured by height and lit by their slope.
const FRAGMENT = `#version 300 es
precision highp float; in vec3 p; uniform vec4 ink; uniform vec3 stops[11]; uniform float top; out vec4 c;
void main(){ vec3 n=normalize(cross(dFdx(p),dFdy(p))); float h=clamp(p.z/top,0.,.9999)*10.; int i=int(h);
 vec3 face=mix(stops[i],stops[i+1],h-float(i))*(.7+.36*abs(dot(n,normalize(vec3(-.35,-.45,.82)))));
 c=ink.a>0.?ink:vec4(min(face,1.),1.); }`;

function renderer(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true, powerPreference: "low-power" });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [type, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "at");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const [m, lift, ink, stops, top] = ["m", "lift", "ink", "stops", "top"].map((name) => gl.getUniformLocation(program, name));
  const [points, indices, walls] = [0, 1, 2].map(() => gl.createBuffer());
  gl.enableVertexAttribArray(0);
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.BLEND);
  gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  let shape = "";
  let counts = [0, 0, 0];

  function connect(rows) {
    const key = rows.map((r) => Number(r.listed)).join("");
    if (key === shape) return;
    shape = key;
    const [faces, major, minor] = [[], [], []];
    for (let r = 0; r < rows.length; r++) for (let c = 0; c < COLUMNS; c++) {
      const a = r * COLUMNS + c;
      const [right, below] = [c + 1 < COLUMNS, r + 1 < rows.length];
      if (right && below) faces.push(a, a + 1, a + COLUMNS, a + 1, a + COLUMNS + 1, a + COLUMNS);
      if (right && rows[r].listed) major.push(a, a + 1);
      if (below && c % 4 === 0) minor.push(a, a + COLUMNS);
    }
    counts = [faces.length, major.length, minor.length];
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint16Array([...faces, ...major, ...minor]), gl.STATIC_DRAW);
  }

  const load = (buffer, data) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
  };
  const pen = (rgba, up) => { gl.uniform4fv(ink, rgba); gl.uniform1f(lift, up); };

  return {
    gl,
    draw({ matrix, height, vertices, rows, grid, gridInk, colours }) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.uniformMatrix4fv(m, false, matrix);
      load(walls, grid);
      pen(gridInk, 0);
      gl.drawArrays(gl.LINES, 0, grid.length / 3);
      if (!rows.length) return;
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, indices);
      connect(rows);
      load(points, vertices);
      gl.uniform1f(top, height);
      gl.uniform3fv(stops, Array.from({ length: 11 }, (_, i) => colour(colours, i / 10)).flat().map((x) => x / 255));
      const [faces, major, minor] = counts;
      const elements = (mode, count, from) => gl.drawElements(mode, count, gl.UNSIGNED_SHORT, 2 * from);
      pen([0, 0, 0, 0], 0);
      elements(gl.TRIANGLES, faces, 0);
      pen([0.04, 0.05, 0.07, 0.75], 0.0015);
      elements(gl.LINES, major, faces);
      pen([0.04, 0.05, 0.07, 0.22], 0.001);
      elements(gl.LINES, minor, faces + major);
    },
  };
}

// In the order in which they get a label while there is room.
const DELTA_TICKS = [[0, "ATM"], [-1.282, "10Δp"], [1.282, "10Δc"], [-2.326, "1Δp"], [2.326, "1Δc"], [-0.674, "25Δp"], [0.674, "25Δc"],
  [-3.09, "0.1Δp"], [3.09, "0.1Δc"]];
const HOME = [-0.62, 0.42, 1];

/** Axis ticks of the moneyness axis: [coordinate, text]. */
function moneynessTicks(axis, low, high) {
  if (axis === "delta") return DELTA_TICKS.filter(([u]) => u >= low && u <= high);
  return ticks(low, high, 7).map((k) => [k, `${k > 0 ? "+" : k < 0 ? "−" : ""}${Math.abs(k).toFixed(2).replace(/0$/, "")}`]);
}

function render({ model, el }) {
  const solid = document.createElement("canvas");
  const over = document.createElement("canvas");
  const tools = document.createElement("div");
  tools.className = "vs-tools";
  const axisButton = document.createElement("button");
  const homeButton = document.createElement("button");
  homeButton.textContent = "reset view";
  tools.append(axisButton, homeButton);

  let gpu = null;
  let lost = "";
  let data = null;
  let grid = null;
  let shown = "";
  let ranges = {};
  let pointer = null;
  let drag = null;
  let armed = false;
  let eye = HOME.slice();
  let size = [1, 1];

  const takeCamera = () => {
    const c = model.get("camera");
    if (Array.isArray(c) && c.length === 3) eye = c.slice();
  };
  const saveCamera = () => { model.set("camera", eye.map((x) => Number(x.toFixed(4)))); model.save_changes(); };
  const axis = () => model.get("axis") || "delta";
  const remesh = () => {
    grid = data && mesh(data, axis(), model.get("reach"));
    axisButton.textContent = axis() === "delta" ? "axis: delta" : "axis: ln K/F";
  };
  const reaxis = () => { ranges = {}; remesh(); };

  function start() {
    gpu = renderer(solid);
    lost = gpu ? "" : "WebGL2 is not available in this browser:\nthe surface cannot be drawn, the smiles can";
  }
  solid.addEventListener("webglcontextlost", (e) => { e.preventDefault(); gpu = null; lost = "graphics context lost, restoring…"; });
  solid.addEventListener("webglcontextrestored", () => { start(); view.invalidate(); });

  const panel = {
    name: "surface",
    label: "implied vol surface: drag or arrow keys to turn, plus and minus to zoom",
    nodes: [solid, over, tools],
    style: `.vs-surface{cursor:grab;touch-action:pan-y}.vs-surface:active{cursor:grabbing}
.vs-surface .vs-tools{opacity:.5;transition:opacity .2s}.vs-surface:hover .vs-tools,.vs-tools:focus-within{opacity:1}`,
    frame(decoded) {
      data = decoded;
      const key = `${data.header.underlying}`;
      if (key !== shown) { shown = key; ranges = {}; }
      remesh();
    },
    resize(width, height) { size = [width, height]; },
    notice() {
      if (lost) return lost;
      if (!data) return "";
      if (!data.header.underlying) return "waiting for the first quotes…";
      if (!data.years.length) return `no quotes for ${data.header.underlying}`;
      return grid.slices.length ? "" : `no expiry of ${data.header.underlying} could be fitted yet`;
    },
    draw: paint,
    changes: { camera: takeCamera, axis: reaxis, reach: reaxis, colours: () => {} },
    dispose() { gpu?.gl.getExtension("WEBGL_lose_context")?.loseContext(); },
  };

  function paint(p) {
    const [width, height] = size;
    if (width < 40 || height < 40) return;
    fit(solid, width, height, false);
    const ctx = fit(over, width, height);
    ctx.clearRect(0, 0, width, height);
    const rows = grid?.rows ?? [];
    const half = [Math.min(Math.max(0.7 * width / height, 0.8), 1.35), 0.9, Math.min(Math.max(0.62 * height / width, 0.4), 0.75)];
    const top = 2 * half[2];
    const cam = camera(eye, width, height, half, [62, 56, 58, 56]);

    ranges.vol = steadyRange(ranges.vol, rows.length ? Math.max(grid.low, 0) : 0.3, rows.length ? grid.high : 0.8);
    if (rows.length) {
      const edge = axis() === "delta" ? 1 : null;
      const [a, b] = [Math.min(...rows.map((r) => r.low * (edge ?? r.unit))), Math.max(...rows.map((r) => r.high * (edge ?? r.unit)))];
      ranges.u = steadyRange(ranges.u, a, b, 0.02);
    }
    const [v0, v1] = [Math.max(ranges.vol[0], 0), ranges.vol[1]];
    const [u0, u1] = ranges.u ?? [-3, 3];
    const [t0, t1] = rows.length > 1 ? [rows[0].root, rows.at(-1).root] : [0, 1];
    const X = (u) => ((u - u0) / (u1 - u0) * 2 - 1) * half[0];
    const Y = (root) => ((root - t0) / (t1 - t0 || 1) * 2 - 1) * half[1];
    const Z = (v) => (v - v0) / (v1 - v0) * top;

    const [backX, backY] = [cam.toward[0] > 0 ? -half[0] : half[0], cam.toward[1] > 0 ? -half[1] : half[1]];
    const across = moneynessTicks(axis(), u0, u1);
    const up = ticks(v0, v1, Math.max(3, Math.min(8, height / 70)));
    const listed = rows.filter((r) => r.listed);
    const lines = [];
    const line = (...xyz) => lines.push(...xyz);
    for (const [u] of across) { line(X(u), -half[1], 0, X(u), half[1], 0); line(X(u), backY, 0, X(u), backY, top); }
    for (const r of listed) { line(-half[0], Y(r.root), 0, half[0], Y(r.root), 0); line(backX, Y(r.root), 0, backX, Y(r.root), top); }
    for (const v of up) { line(-half[0], backY, Z(v), half[0], backY, Z(v)); line(backX, -half[1], Z(v), backX, half[1], Z(v)); }
    for (const x of [-half[0], half[0]]) line(x, -half[1], 0, x, half[1], 0);
    for (const y of [-half[1], half[1]]) line(-half[0], y, 0, half[0], y, 0);

    // The notice says why; axes without a surface would only puzzle.
    if (!gpu) return;
    const vertices = new Float32Array(3 * rows.length * COLUMNS);
    rows.forEach((row, r) => {
      for (let c = 0; c < COLUMNS; c++) {
        const i = r * COLUMNS + c;
        vertices.set([X(grid.u[i]), Y(row.root), Z(grid.vol[i])], 3 * i);
      }
    });
    gpu.draw({ matrix: cam.matrix, height: top, vertices, rows, grid: new Float32Array(lines), colours: model.get("colours"),
      gridInk: p.dark ? [0.62, 0.68, 0.75, 0.2] : [0.2, 0.25, 0.3, 0.2] });

    // --- words ---
    const label = (text, at, from, gap, style = p.text, align) => {
      const [dx, dy] = [at[0] - from[0], at[1] - from[1]];
      const n = Math.hypot(dx, dy) || 1;
      ctx.fillStyle = style;
      ctx.textAlign = align ?? (dx / n > 0.35 ? "left" : dx / n < -0.35 ? "right" : "center");
      ctx.fillText(text, at[0] + gap * dx / n, at[1] + gap * dy / n);
    };
    ctx.textBaseline = "middle";
    ctx.font = `11px ${p.font}`;
    const [frontX, frontY] = [-backX, -backY];
    const placed = [];
    const room = (at, gap) => !placed.some((o) => Math.hypot(o[0] - at[0], o[1] - at[1]) < gap) && placed.push(at);
    for (const [u, text] of listed.length ? across : []) {
      const at = cam.project(X(u), frontY, 0);
      if (room(at, 25)) label(text, at, cam.project(X(u), 0, 0), 13);
    }
    // Where there is not room for all, those with something wrong come first.
    for (const [wrong, r] of listed.map((r) => [trouble(data, r.near.i), r]).sort((a, b) => !a[0] - !b[0])) {
      const at = cam.project(frontX, Y(r.root), 0);
      if (room(at, 19)) label(`${wrong && "▲ "}${daysText(r.t)}`, at, cam.project(0, Y(r.root), 0), 13, wrong ? p.bad : p.text);
    }
    const [a, b] = [[frontX, backY], [backX, frontY]];
    const post = cam.project(...a, 0)[0] < cam.project(...b, 0)[0] ? a : b;
    for (const v of listed.length ? up : []) {
      const at = cam.project(...post, Z(v));
      if (room(at, 15)) label(`${Number((100 * v).toFixed(1))}%`, at, [at[0] + 1, at[1]], 10, p.text, "right");
    }
    // Titles run along their axis, outside its tick labels.
    const title = (text, from, to, middle, gap) => {
      if (width < 280) return;
      const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
      const n = Math.hypot(dx, dy) || 1;
      const mid = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
      const out = (mid[0] - middle[0]) * -dy + (mid[1] - middle[1]) * dx > 0 ? 1 : -1;
      const [nx, ny] = [out * -dy / n, out * dx / n];
      const away = 15 + gap * Math.abs(nx) + 16 * Math.abs(ny);
      ctx.save();
      ctx.translate(mid[0] + nx * away, mid[1] + ny * away);
      ctx.rotate(Math.atan(dy / (dx || 1e-9)));
      ctx.textAlign = "center";
      ctx.fillStyle = p.muted;
      ctx.fillText(text, 0, 0);
      ctx.restore();
    };
    if (listed.length) {
      const ground = cam.project(0, 0, 0);
      title(axis() === "delta" ? "strike, by ≈ forward delta" : "log-moneyness ln(K/F)", cam.project(-half[0], frontY, 0), cam.project(half[0], frontY, 0), ground, 34);
      title("time to expiry (√ scale)", cam.project(frontX, -half[1], 0), cam.project(frontX, half[1], 0), ground, 38);
      title("implied vol", cam.project(...post, 0), cam.project(...post, top), cam.project(0, 0, half[2]), 34);
      // The vol axis is its own colour key.
      for (let i = 0; i < 40; i++) {
        const [from, to] = [i, i + 1.2].map((n) => cam.project(...post, top * Math.min(n / 40, 1)));
        ctx.strokeStyle = `rgb(${colour(model.get("colours"), (i + 0.5) / 40)})`;
        ctx.lineWidth = 5;
        ctx.beginPath(); ctx.moveTo(from[0], from[1]); ctx.lineTo(to[0], to[1]); ctx.stroke();
      }
      ctx.lineWidth = 1;
    }
    ctx.textAlign = "left";
    ctx.font = `600 14px ${p.font}`;
    ctx.fillStyle = p.text;
    const name = data?.header.underlying ?? "";
    // The tools share the line: a narrow panel has room for the name only.
    ctx.fillText(name && width > 320 ? `${name} implied vol` : name, 14, 20);
    if (name && listed.length) {
      ctx.font = `11px ${p.font}`;
      ctx.fillStyle = p.muted;
      ctx.fillText(`${listed.length} expiries · ${clockText(data.header.time_ms)} UTC`, 14, 38);
    }
    if (pointer && !drag && rows.length > 1) readOut(ctx, p, cam, width, height, { X, Y, Z });
  }

  // Of the mesh points near the pointer the one nearest to the eye, moved to the nearest listed expiry and evaluated exactly there.
  function readOut(ctx, p, cam, width, height, { X, Y, Z }) {
    let best = null;
    grid.rows.forEach((row, r) => {
      for (let c = 0; c < COLUMNS; c++) {
        const [x, y, depth] = cam.project(X(grid.u[r * COLUMNS + c]), Y(row.root), Z(grid.vol[r * COLUMNS + c]));
        const cost = depth + 0.02 * Math.hypot(x - pointer[0], y - pointer[1]);
        if (Math.hypot(x - pointer[0], y - pointer[1]) < 14 && !(best?.cost <= cost)) best = { cost, root: row.root, share: c / (COLUMNS - 1) };
      }
    });
    if (!best) return;
    const s = grid.slices.reduce((a, b) => (Math.abs(b.root - best.root) < Math.abs(a.root - best.root) ? b : a));
    const k = (s.low + (s.high - s.low) * best.share) * s.unit;
    const v = vol(data, s.i, k);
    const x = X(axis() === "delta" ? k / s.unit : k);
    const [at, foot] = [Z(v), 0].map((z) => cam.project(x, Y(s.root), z));
    ctx.strokeStyle = p.text;
    ctx.setLineDash([3, 3]);
    ctx.beginPath(); ctx.moveTo(at[0], at[1]); ctx.lineTo(foot[0], foot[1]); ctx.stroke();
    ctx.setLineDash([]);
    ctx.fillStyle = "#fff";
    ctx.strokeStyle = "#000";
    ctx.beginPath(); ctx.arc(at[0], at[1], 4.5, 0, 7); ctx.fill(); ctx.stroke();
    const [log, delta] = moneynessText(k, v, s.t);
    const wrong = trouble(data, s.i);
    card(ctx, p, at, width, height, [`${errorText(v, volError(data, s.i, k), 2)}   ${delta}`, `strike ${priceText(data.forward[s.i] * Math.exp(k))}`,
      `${dateText(data.expiry_ms[s.i])} · ${daysText(s.t)}`, `ln K/F ${log}`, ...(wrong ? [`${wrong}: do not quote on it`] : [])]);
  }

  let view = null;
  start();
  view = live({ model, el, panel });
  const host = view.host;
  takeCamera();
  remesh();

  const turn = (yaw, pitch, factor = 1) => {
    eye = [eye[0] + yaw, Math.min(Math.max(eye[1] + pitch, 0.02), 1.5), Math.min(Math.max(eye[2] * factor, 0.5), 4)];
    view.invalidate();
  };
  const place = (e) => { const b = host.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
  host.addEventListener("pointerdown", (e) => {
    if (e.target.closest("button")) return;
    drag = place(e);
    armed = true;
    host.setPointerCapture(e.pointerId);
  });
  host.addEventListener("pointermove", (e) => {
    pointer = place(e);
    if (drag) { turn((drag[0] - pointer[0]) * -0.008, (pointer[1] - drag[1]) * 0.006); drag = pointer; }
    view.invalidate();
  });
  const drop = () => { if (drag) { drag = null; saveCamera(); } };
  host.addEventListener("pointerup", drop);
  host.addEventListener("pointercancel", drop);
  host.addEventListener("pointerleave", () => { pointer = null; armed = false; view.invalidate(); });
  // A notebook must still scroll past the panel: the wheel zooms only after a click, until the pointer leaves, or with ctrl held.
  let settle = 0;
  host.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !armed) return;
    e.preventDefault();
    turn(0, 0, Math.exp(-e.deltaY * 0.0012));
    clearTimeout(settle);
    settle = setTimeout(saveCamera, 300);
  }, { passive: false });
  const home = () => { eye = HOME.slice(); saveCamera(); view.invalidate(); };
  homeButton.addEventListener("click", home);
  axisButton.addEventListener("click", () => { model.set("axis", axis() === "delta" ? "log_moneyness" : "delta"); model.save_changes(); });
  host.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.08], ArrowDown: [0, -0.08], "+": [0, 0, 1.1], "-": [0, 0, 1 / 1.1] }[e.key];
    if (!step) return;
    e.preventDefault();
    turn(...step);
    saveCamera();
  });
  return () => { clearTimeout(settle); view.dispose(); };
}

export default { render };
