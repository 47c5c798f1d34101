// The pure half of the panels, run by Node: bytes, maths, axes, text. test_panels_js.py prepares the folder and the cases.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import * as live from "./live.js";
import { arrange, markStarts, movedText, strikeText, verdict } from "./smiles.js";
import { feedText, msText, spanText } from "./status.js";
import { camera, mesh } from "./surface.js";

const golden = (name) => {
  const bytes = Buffer.from(readFileSync(new URL(`./golden/${name}.hex`, import.meta.url), "utf8").replace(/\s/g, ""), "hex");
  // At an odd address, as a message's buffer may be.
  const odd = new Uint8Array(bytes.length + 3);
  odd.set(bytes, 3);
  return new DataView(odd.buffer, 3);
};
const cases = JSON.parse(readFileSync(new URL("./cases.json", import.meta.url), "utf8"));
const payload = (base64) => { const b = Buffer.from(base64, "base64"); return new DataView(b.buffer, b.byteOffset, b.byteLength); };

test("the golden payload decodes to its numbers", () => {
  const d = live.decode(golden("smiles"));
  assert.equal(d.header.number, 7);
  assert.equal(d.header.feed_age, 2.5);
  assert.deepEqual([...d.expiry_ms], [1800000000000, 1810000000000]);
  assert.deepEqual([...d.strike], [84, 100, 116, 100, 108]);
  assert.deepEqual([...d.bid_vol].map((x) => (Number.isNaN(x) ? null : x)), [null, 0.5, 0.53125, 0.5, 0.5]);
  assert.deepEqual([...d.side], [1, 0, 0, 0, -1]);
  assert.deepEqual([...d.excluded], [0, 0, 1, 0, 1]);
  assert.deepEqual(markStarts(d), [0, 3, 5]);
  assert.equal(d.fitted[1], 0);
  assert.equal(live.totalVariance(d, 0, 0), 0.015625);
  assert.equal(live.vol(d, 0, 0), 0.25);
  assert.ok(live.volError(d, 0, 0) > 0);
  assert.ok(Number.isNaN(live.volError(d, 1, 0)), "no fit has no error bar");
});

test("damaged payloads are refused, whatever is wrong with them", () => {
  const whole = new Uint8Array(golden("surface").buffer.slice(3));
  for (let n = 0; n < whole.length; n += 7) assert.throws(() => live.decode(new DataView(whole.slice(0, n).buffer)));
  const other = whole.slice();
  other[0] = 65;
  assert.throws(() => live.decode(new DataView(other.buffer)), RangeError);
});

test("vols and deltas are those of Python", () => {
  for (const { payload: p, slice, k, vol, error } of cases.vols) {
    const d = live.decode(payload(p));
    assert.ok(Math.abs(live.volError(d, slice, k) / error - 1) < 1e-4, `${live.volError(d, slice, k)} ${error}`);
    assert.ok(Math.abs(live.vol(d, slice, k) - vol) < 1e-12, `${live.vol(d, slice, k)} ${vol}`);
  }
  for (const { k, vol, years, delta } of cases.deltas) assert.ok(Math.abs(live.otmDelta(k, vol, years) - delta) < 2e-7);
});

test("the mesh stays inside the quotes, passes through the slices and is linear in total variance between them", () => {
  const d = live.decode(payload(cases.surface));
  for (const axis of ["delta", "log_moneyness"]) {
    const m = mesh(d, axis, 3);
    assert.equal(m.slices.length, d.years.length);
    assert.ok(m.rows.length <= 72 && m.rows.length > d.years.length);
    m.rows.forEach((row, r) => {
      for (const c of [0, 13, 48]) {
        const i = 49 * r + c;
        const [near, far] = [row.near.i, row.far.i];
        assert.ok(m.k[i] >= Math.min(d.low[near], d.low[far]) - 1e-5 && m.k[i] <= Math.max(d.high[near], d.high[far]) + 1e-5);
        const w = (1 - row.weight) * live.totalVariance(d, near, m.k[i]) + row.weight * live.totalVariance(d, far, m.k[i]);
        assert.ok(Math.abs(m.vol[i] ** 2 * row.t - w) < 1e-6);
        assert.ok(Math.abs(m.u[i] - (axis === "delta" ? m.k[i] / row.unit : m.k[i])) < 1e-5);
        if (axis === "delta") assert.ok(Math.abs(m.u[i]) <= 3.0001);
      }
    });
    const roots = m.rows.map((r) => r.root);
    assert.deepEqual(roots, [...roots].sort((a, b) => a - b));
  }
});

test("a mesh of nothing, of one slice, and of slices without a fit", () => {
  const d = live.decode(payload(cases.surface));
  assert.equal(mesh({ ...d, fitted: d.fitted.map(() => 0) }, "delta", 3).rows.length, 0);
  assert.equal(mesh({ ...d, fitted: d.fitted.map((_, i) => Number(i === 2)) }, "delta", 3).rows.length, 1);
  const tiny = live.decode(golden("surface"));
  assert.equal(mesh(tiny, "delta", 5).slices.length, 1);
});

test("the camera's matrix puts a point where project says, and the box inside the margins", () => {
  const half = [1.1, 0.9, 0.5];
  for (const eye of [[-0.6, 0.4, 1], [2.4, 1.2, 1], [-2.9, 0.05, 1]]) {
    const cam = camera(eye, 800, 600, half, [60, 50, 40, 50]);
    for (const x of [-1.1, 0.3, 1.1]) for (const y of [-0.9, 0.9]) for (const z of [0, 0.4, 1]) {
      const [px, py] = cam.project(x, y, z);
      assert.ok(px >= 59.9 && px <= 750.1 && py >= 39.9 && py <= 550.1, `${px} ${py}`);
      const clip = [0, 1, 2, 3].map((r) => [x, y, z, 1].reduce((sum, v, c) => sum + cam.matrix[4 * c + r] * v, 0));
      assert.ok(Math.abs((clip[0] / clip[3] + 1) * 400 - px) < 0.01);
      assert.ok(Math.abs((1 - clip[1] / clip[3]) * 300 - py) < 0.01);
      assert.ok(Math.abs(clip[2] / clip[3]) < 1, "between the near and the far plane");
    }
  }
});

test("ticks are round, inside and not too many", () => {
  assert.deepEqual(live.ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(live.ticks(0.42, 0.86, 5), [0.5, 0.6, 0.7, 0.8]);
  assert.deepEqual(live.ticks(87000, 98000, 3), [90000, 95000]);
  assert.deepEqual(live.ticks(1, 1, 5), []);
  assert.deepEqual(live.ticks(NaN, 1, 5), []);
  for (const [a, b, n] of [[3.1e-7, 9e-7, 4], [-5, 5, 7], [1e5, 1e6, 6]]) {
    const t = live.ticks(a, b, n);
    assert.ok(t.length <= n + 1 && t.every((x) => x >= a - 1e-12 && x <= b * (1 + 1e-12)));
  }
});

test("an axis holds its data and does not twitch", () => {
  const r = live.steadyRange(null, 0.4, 0.6);
  assert.ok(r[0] < 0.4 && r[1] > 0.6);
  assert.equal(live.steadyRange(r, 0.41, 0.59), r);
  const wider = live.steadyRange(r, 0.3, 0.59);
  assert.ok(wider[0] < 0.3 && wider[1] === r[1]);
  assert.ok(live.steadyRange(wider, 0.5, 0.52)[1] < 0.53);
  assert.equal(live.steadyRange(r, Infinity, -Infinity), r);
});

test("numbers as traders read them", () => {
  assert.equal(live.dateText(1800000000000), "15 Jan 27");
  assert.equal(live.daysText(0.4 / 365), "9.6 h");
  assert.equal(live.daysText(2.44 / 365), "2.4 d");
  assert.equal(live.daysText(303.4 / 365), "303 d");
  assert.equal(live.daysText(-1), "expired");
  assert.equal(live.priceText(92419.83, 6), "92,419.8");
  assert.equal(live.priceText(3120.456), "3,120.5");
  assert.equal(live.priceText(0.01234), "0.01234");
  assert.equal(live.priceText(NaN), "–");
  assert.equal(strikeText(92500), "92.5k");
  assert.equal(strikeText(3400), "3,400");
  assert.equal(strikeText(148), "148");
  assert.equal(live.volText(0.4523), "45.2%");
  assert.equal(live.errorText(0.4523, 0.00137), "45.2% ±0.14");
  assert.equal(live.errorText(0.4523, 0.137, 2), "45.23% ±14");
  assert.equal(live.errorText(0.4523, NaN), "45.2%");
  assert.equal(live.ageText(0.12), "0.1 s");
  assert.equal(live.ageText(12.4), "12 s");
  assert.equal(live.ageText(600), "10 min");
  assert.deepEqual(live.moneynessText(-0.1, 0.5, 0.25), ["−0.100", "30Δ put"]);
});

test("colour maps run from stop to stop and forgive anything", () => {
  assert.deepEqual(live.colour("viridis", 0), [0x44, 0x01, 0x54]);
  assert.deepEqual(live.colour("viridis", 1), [0xfd, 0xe7, 0x25]);
  assert.deepEqual(live.colour("nonesuch", NaN), [0x44, 0x01, 0x54]);
  for (const map of ["viridis", "cividis", "ember"]) {
    const light = Array.from({ length: 40 }, (_, i) => live.colour(map, i / 39)).map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b);
    assert.ok(light.every((x, i) => !i || x >= light[i - 1] - 0.6), `${map} rises in lightness, for eyes that see no hue`);
  }
});

test("small multiples fill their box with readable cells", () => {
  for (const [n, w, h] of [[12, 900, 850], [12, 700, 600], [1, 500, 400], [9, 1200, 400], [30, 900, 800]]) {
    const g = arrange(n, w, h);
    assert.ok(g.columns * g.rows >= n && g.columns * (g.rows - 1) < n);
    assert.ok(g.w / g.h > 0.7 && g.w / g.h < 3.2, `${n} in ${w}×${h}: ${g.w}×${g.h}`);
  }
  assert.equal(arrange(0, 10, 10).rows, 1);
});

test("verdicts carry their witness and never rest on colour", () => {
  const d = { fitted: [1, 1, 1, 1, 0], butterfly: [1, 2, 1, 0, 0], calendar: [1, 1, 2, 1, 0], butterfly_k: [0, -0.421, 0, 0, 0],
    calendar_k: [0, 0, 1.904, 0, 0], low: [-0.5, -0.5, -0.5, -0.5, NaN], high: [0.5, 0.5, 0.5, 0.5, NaN],
    trouble: [0, 1, 1, 2, 0], move: [0, 0, 0, 0, NaN] };
  assert.equal(verdict(d, 0).state, "proved");
  assert.deepEqual([0, 1, 2, 3, 4].map((i) => live.trouble(d, i)), ["", "arbitrage", "arbitrage", "undecided", "no fit"]);
  for (const [code, word] of [[2, "undecided"], [3, "guarded"], [4, "off its quotes"]]) {
    const { state, short, long } = verdict({ ...d, trouble: [code] }, 0);
    assert.deepEqual([state, short], [word, word]);
    assert.match(long, /[a-z]: do not quote on it$/);
  }
  const moved = { ...d, move: [0.00123] };
  assert.match(verdict(moved, 0).long, /every strike; moved 12 bp from its quotes' own fit$/);
  assert.equal(live.trouble(moved, 0), "");
  assert.equal(movedText(d, 0), "");
  assert.equal(movedText(d, 4), "");
  assert.deepEqual([verdict(d, 1).short, verdict(d, 1).beyond], ["fly −0.42", false]);
  assert.deepEqual([verdict(d, 2).short, verdict(d, 2).beyond], ["cal +1.90", true]);
  assert.match(verdict(d, 2).long, /calendar arbitrage, worst at k\* \+1\.90, beyond the quotes: do not quote on it/);
  assert.equal(verdict(d, 3).state, "undecided");
  assert.equal(verdict(d, 4).short, "no fit");
  assert.equal(verdict({ ...d, butterfly: [3, 0, 0, 0, 0], butterfly_k: [NaN], trouble: [1] }, 0).state, "violated");
});

test("a feed's line in words", () => {
  assert.deepEqual([null, 0, 0.84, 9.96, -41.2, 999, 7300, 200000].map((ms) => msText(ms)),
    ["–", "0.0 ms", "0.8 ms", "10 ms", "−41 ms", "999 ms", "7.3 s", "3 min"]);
  assert.equal(msText(3.4, true), "+3.4 ms");
  assert.equal(spanText([null, null]), "–");
  assert.equal(spanText([5.2, 1800]), "5.2 ms · 1.8 s");
  assert.equal(feedText({ state: "ready", left_out: [], silent: [] }), "ready");
  assert.equal(feedText({ state: "late", left_out: ["BTC", "ETH"], silent: [["quotes", 31000, 30000]] }),
    "late · left out of BTC, ETH · quotes silent for 31 s, limit 30 s");
});
