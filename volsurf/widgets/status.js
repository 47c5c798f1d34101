// Whether what is on the screen can be believed: one line on the whole, one on each feed. status.py is the other end.
import { ageText, clockText, errorText, live } from "./live.js";

// A narrow line gives up the facts from the right, then the state's last words, but never the choice of underlying. The same
// style lays out a narrow dashboard (dashboard.py names its parts): panels below one another, in a box that scrolls.
const STYLE = `.vs-panel.vs-status{min-height:0;height:auto;white-space:nowrap;font-variant-numeric:tabular-nums;
border-bottom:1px solid var(--vs-grid);container-type:inline-size}
.vs-line{display:flex;align-items:center;gap:18px;height:45px;padding:0 14px}
.vs-name{font-weight:700;font-size:15px;letter-spacing:.02em}
.vs-pick{flex:none;display:flex;border:1px solid var(--vs-grid);border-radius:5px;overflow:hidden}
.vs-pick button{font:600 12px var(--vs-font);padding:4px 12px;border:0;background:none;color:var(--vs-muted);cursor:pointer}
.vs-pick button[aria-pressed=true]{background:var(--vs-text);color:var(--vs-background)}
.vs-pick button:focus-visible{outline:2px solid var(--vs-bid);outline-offset:-2px}
.vs-state{flex:0 3 auto;display:flex;align-items:center;gap:7px;font-size:13px;font-weight:600;min-width:20px}
.vs-state span+span,.vs-alert{overflow:hidden;text-overflow:ellipsis}
.vs-alert{flex:0 9 auto;min-width:14px;font-size:13px;font-weight:600;color:var(--vs-bad)}.vs-alert:empty{display:none}
.vs-facts{flex:1 1 0;display:flex;flex-wrap:wrap;justify-content:flex-end;gap:20px;height:34px;overflow:hidden}
.vs-fact{display:flex;flex-direction:column;align-items:flex-end;line-height:1.25}
.vs-fact b{font-size:13px;font-weight:600}.vs-fact span{font-size:10px;color:var(--vs-muted)}
.vs-feeds{width:100%;border-collapse:collapse;font-size:12px;border-top:1px solid var(--vs-grid)}.vs-feeds:empty{display:none}
.vs-feeds th,.vs-feeds td{padding:0 8px 0 14px;text-align:right;font-weight:400;line-height:20px}
.vs-feeds th{font-size:10px;line-height:15px;color:var(--vs-muted);padding-top:2px}
.vs-feeds tr>:first-child{text-align:left;font-weight:600}.vs-feeds td:first-child::first-letter{color:var(--vs-lamp)}
.vs-feeds tr>:last-child{text-align:left;width:99%;max-width:0;overflow:hidden;text-overflow:ellipsis}
.vs-feeds tr:last-child>*{padding-bottom:4px}
@container (max-width:900px){.vs-feeds .vs-fine{display:none}}
@container (max-width:560px){.vs-feeds .vs-more{display:none}}
.volsurf-dashboard{container-type:inline-size}
@container (max-width:760px){.vs-name{display:none}
.volsurf-panels{flex-direction:column!important;overflow:hidden auto!important}
.volsurf-panels>*{flex:0 0 auto!important;height:360px!important}.volsurf-panels>.volsurf-smiles{height:860px!important}}`;

const FACTS = [["atm", "30-day ATM vol"], ["certified", "arbitrage-free"], ["expiries", "expiries fitted"], ["age", "frame age"],
  ["frames", "frames/s"], ["messages", "messages/s"], ["work", "frame time"], ["clock", "UTC"]];
// Shapes, so that the state needs no colour: disc, ring, square.
const LAMPS = { live: ["●", "good"], waiting: ["○", "unsure"], connecting: ["○", "unsure"], stale: ["■", "bad"], disconnected: ["■", "bad"],
  failed: ["■", "bad"] };

// Head, class, tip and text of each column of a feed's line.
const COLUMNS = [
  ["venue", "", "", (f) => `${LAMPS[feedSays(f)][0]} ${f.name}`],
  ["messages/s", "more", "", (f) => (Number.isFinite(f.messages_per_second) ? Math.round(f.messages_per_second).toLocaleString("en-US") : "–")],
  ["delay · 95 %", "", "from the venue's stamp to its receipt here, both clocks as they are", (f) => spanText(f.lag)],
  ["clock", "more", "this machine's clock less the venue's, the way included", (f) => msText(f.skew, true)],
  ["quotes' age · 95 %", "", "since the venue last said anything of an instrument that is quoted", (f) => spanText(f.age)],
  ["gaps", "fine", "order books that missed a change, and those that began again", (f) => (f.gaps || f.resyncs ? `${f.gaps} / ${f.resyncs}` : "0")],
  ["takeovers", "fine", "connections replaced before the venue cut them", (f) => String(f.takeovers)],
  ["crossed", "fine", "instruments whose bid is above their ask now", (f) => String(f.crossed)],
  ["state", "", "", feedText],
];
const [CROSSED, STATE] = [COLUMNS.length - 2, COLUMNS.length - 1];

/** Which lamp a feed has. */
const feedSays = (f) => (f.live ? "live" : f.state === "connecting" || f.state === "subscribing" ? "waiting" : "failed");

/** Milliseconds with two or three digits: 0.8 ms, 12 ms, 2.3 s, 12 min. */
export function msText(ms, signed = false) {
  if (!Number.isFinite(ms)) return "–";
  const size = Math.abs(ms);
  const sign = ms < 0 ? "−" : signed && ms > 0 ? "+" : "";
  if (size >= 1000) return sign + ageText(size / 1000);
  return `${sign}${size.toFixed(size < 9.95 ? 1 : 0)} ms`;
}

/** A median and a 95th percentile. */
export function spanText([median, high]) {
  return Number.isFinite(median) ? `${msText(median)} · ${msText(high)}` : "–";
}

/** What there is to say of a feed beside its numbers: its state, what it has left, what it does not send. */
export function feedText(f) {
  const said = [f.state];
  if (f.left_out.length) said.push(`left out of ${f.left_out.join(", ")}`);
  for (const [name, ms, limit] of f.silent) said.push(`${name} silent for ${msText(ms)}, limit ${msText(limit)}`);
  return said.join(" · ");
}

function render({ model, el }) {
  const node = (name, tag = "div") => {
    const e = document.createElement(tag);
    e.className = `vs-${name}`;
    return e;
  };
  const [line, name, pick, state, alert, facts] = ["line", "name", "pick", "state", "alert", "facts"].map((n) => node(n));
  const feeds = node("feeds", "table");
  line.append(name, pick, state, alert, facts);
  name.textContent = "volsurf";
  pick.setAttribute("role", "group");
  pick.setAttribute("aria-label", "underlying");
  const lamp = document.createElement("span");
  const words = document.createElement("span");
  state.append(lamp, words);
  const values = {};
  for (const [key, text] of FACTS) {
    const fact = node("fact");
    values[key] = document.createElement("b");
    values[key].textContent = "–";
    const label = document.createElement("span");
    label.textContent = text;
    fact.append(values[key], label);
    facts.append(fact);
  }
  let data = null;
  let listed = "";
  let told = 0;

  const put = (target, text) => { if (target.textContent !== text) target.textContent = text; };
  const pressed = () => {
    const now = model.get("underlying") || data?.header.underlyings[0];
    for (const b of pick.children) b.setAttribute("aria-pressed", String(b.textContent === now));
  };
  function buttons() {
    const names = data.header.underlyings;
    if (listed === names.join()) return;
    listed = names.join();
    pick.replaceChildren(...names.map((text) => {
      const b = document.createElement("button");
      b.textContent = text;
      b.addEventListener("click", () => { model.set("underlying", text); model.save_changes(); pressed(); });
      return b;
    }));
    pressed();
  }

  // As many lines as there are feeds; their cells stay, so that a pointer resting on one keeps its tip.
  function feedLines(list) {
    while (feeds.rows.length > (list.length && list.length + 1)) feeds.deleteRow(-1);
    while (list.length && feeds.rows.length < list.length + 1) {
      const row = feeds.insertRow();
      for (const [head, kind, tip] of COLUMNS) {
        const cell = row.appendChild(document.createElement(row.rowIndex ? "td" : "th"));
        if (kind) cell.className = `vs-${kind === "more" ? "more" : "more vs-fine"}`;
        if (!row.rowIndex) put(cell, head);
        if (tip) cell.title = tip;
      }
    }
    list.forEach((f, i) => {
      const { cells } = feeds.rows[i + 1];
      COLUMNS.forEach(([, , , text], c) => put(cells[c], text(f)));
      cells[0].style.setProperty("--vs-lamp", `var(--vs-${LAMPS[feedSays(f)][1]})`);
      cells[CROSSED].style.color = f.crossed ? "var(--vs-unsure)" : "";
      cells[STATE].style.color = f.live && !f.silent.length ? "var(--vs-muted)" : "var(--vs-bad)";
      cells[STATE].title = f.sentence;
    });
  }

  const panel = {
    name: "status",
    nodes: [line, feeds],
    style: STYLE,
    changes: { underlying: pressed },
    frame(decoded) { data = decoded; buttons(); },
    draw() {
      // Four times a second is as fast as anyone reads; more only repaints the page.
      if (!data || performance.now() - told < 240) return;
      told = performance.now();
      const h = data.header;
      pressed();
      put(values.frames, view.fps.toFixed(1));
      put(values.messages, Number.isFinite(h.messages_per_second) ? Math.round(h.messages_per_second).toLocaleString("en-US") : "–");
      put(values.expiries, `${h.fitted} / ${h.listed}`);
      put(values.atm, errorText(h.atm ?? NaN, h.atm_error));
      put(values.certified, `${h.certified} / ${h.fitted}`);
      values.certified.style.color = h.certified < h.fitted ? "var(--vs-bad)" : "";
      // Certified is the rule. What is not, or was forced to be, comes with what to do about it.
      put(alert, h.attention.length ? `▲ ${h.attention[0]}${h.attention.length > 1 ? ` and ${h.attention.length - 1} more` : ""}` : "");
      alert.title = h.attention.join("\n");
      put(values.work, Number.isFinite(h.frame_ms) ? `${h.frame_ms.toFixed(1)} ms` : "–");
      put(values.clock, clockText(h.time_ms));
      feedLines(h.feeds ?? []);
    },
    idle({ age, says, words: why }) {
      const [shape, key] = LAMPS[says] ?? LAMPS.waiting;
      put(lamp, shape);
      lamp.style.color = `var(--vs-${key})`;
      const feed = data?.header.feed ?? "";
      put(words, says === "live" ? `live${feed ? ` · ${feed}` : ""}` : why.split("\n")[0] || says);
      state.title = why;
      put(values.age, Number.isFinite(age) ? ageText(age) : "–");
      // The last rate is no longer one.
      if (age > 3 && age < Infinity) put(values.frames, "–");
      values.age.style.color = age > 3 && age < Infinity ? "var(--vs-bad)" : "";
    },
  };
  const view = live({ model, el, panel, stale: false });
  return view.dispose;
}

export default { render };
