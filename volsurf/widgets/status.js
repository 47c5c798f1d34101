// One line that says whether what is on the screen can be believed. status.py is the other end.
import { ageText, clockText, errorText, live } from "./live.js";

// A narrow line gives up the facts from the right, then the state's last words, but never the choice of underlying. The same
// style lays out a narrow dashboard (dashboard.py names its parts): panels below one another, in a box that scrolls.
const STYLE = `.vs-panel.vs-status{min-height:0;display:flex;align-items:center;gap:18px;padding:0 14px;white-space:nowrap;
font-variant-numeric:tabular-nums;border-bottom:1px solid var(--vs-grid)}
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
.volsurf-dashboard{container-type:inline-size}
@container (max-width:760px){.vs-name{display:none}
.volsurf-panels{flex-direction:column!important;overflow:hidden auto!important}
.volsurf-panels>*{flex:0 0 auto!important;height:360px!important}.volsurf-panels>.volsurf-smiles{height:860px!important}}`;

const FACTS = [["atm", "30-day ATM vol"], ["certified", "arbitrage-free"], ["expiries", "expiries fitted"], ["age", "frame age"],
  ["frames", "frames/s"], ["messages", "messages/s"], ["work", "frame time"], ["clock", "UTC"]];
// Shapes, so that the state needs no colour: disc, ring, square.
const LAMPS = { live: ["●", "good"], waiting: ["○", "unsure"], connecting: ["○", "unsure"], stale: ["■", "bad"], disconnected: ["■", "bad"],
  failed: ["■", "bad"] };

function render({ model, el }) {
  const node = (name, tag = "div") => {
    const e = document.createElement(tag);
    e.className = `vs-${name}`;
    return e;
  };
  const [name, pick, state, alert, facts] = ["name", "pick", "state", "alert", "facts"].map((n) => node(n));
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

  const panel = {
    name: "status",
    nodes: [name, pick, state, alert, facts],
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
