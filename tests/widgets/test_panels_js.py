"""What the browser runs: each panel's module is self-contained and small, and its pure half agrees with Python."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.widgets import small_market as market
from volsurf.widgets._esm import MAXIMUM_BYTES, panel_module
from volsurf.widgets._payload import frame_facts, surface_payload

HERE = Path(__file__).parent
WIDGETS = Path(__file__).resolve().parents[2] / "volsurf" / "widgets"
PANELS = ("surface", "smiles", "status")

node = pytest.mark.skipif(
    shutil.which("node") is None, reason="no node on this machine: the panels' JavaScript is only run in a browser"
)


@pytest.mark.parametrize("name", PANELS)
def test_a_module_is_self_contained_and_small(name: str) -> None:
    text = panel_module(name)
    assert len(text.encode()) < MAXIMUM_BYTES
    assert not re.search(r"\bimport\b|\brequire\(", text)
    assert not re.search(r"https?:|//[a-z]+\.", text), "a panel must work without a network"
    assert text.count("export default") == 1


@pytest.mark.parametrize("name", PANELS)
def test_shortening_leaves_every_text_as_it_was_written(name: str) -> None:
    text = panel_module(name)
    for source in ("live", name):
        code = (WIDGETS / f"{source}.js").read_text(encoding="utf-8")
        code = re.sub(r"^[ \t]*(?:/\*\*.*?\*/|//[^\n]*|import [^\n]*)\n", "", code, flags=re.MULTILINE | re.DOTALL)
        words = {w for w in re.findall(r'"[^"\n]*"|`[^`]*`', code) if " " in w and "${" not in w and "\n" not in w}
        assert len(words) > 3
        assert [w for w in sorted(words) if w not in text] == []


@node
@pytest.mark.parametrize("name", PANELS)
def test_a_module_parses_as_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.mjs"
    path.write_text(panel_module(name), encoding="utf-8")
    # Evaluated, not only parsed: the shared half and the panel's own share one scope, where names must not collide.
    script = f"import p from {json.dumps(path.as_uri())}; if (typeof p.render !== 'function') process.exit(3)"
    subprocess.run(["node", "--input-type=module", "-e", script], check=True, timeout=60)


@node
def test_the_pure_half_under_node(tmp_path: Path) -> None:
    for name in ("live", *PANELS):
        shutil.copy(WIDGETS / f"{name}.js", tmp_path)
    shutil.copytree(HERE / "golden", tmp_path / "golden")
    shutil.copy(HERE / "panels.test.mjs", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "cases.json").write_text(json.dumps(cases()))
    done = subprocess.run(
        ["node", "--test", "panels.test.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"^# pass (\d+)", done.stdout, re.MULTILINE).group(1)) >= 12  # type: ignore[union-attr]


def cases() -> dict[str, object]:
    from scipy.stats import norm

    frame = market.frame(3)
    surface = frame.surfaces["BTC"]
    payload = base64.b64encode(surface_payload(frame_facts(frame, "BTC"), surface)).decode()
    rng = np.random.default_rng(5)
    vols: list[dict[str, object]] = []
    deltas = []
    for index in (0, 5, 11):
        smile = surface.smiles[index]
        for k in rng.uniform(-1, 1, 4):
            error = float(surface.vol_error(k=k, expiry=smile.expiry_ns))
            vols.append({"payload": payload, "slice": index, "k": k, "vol": float(smile.fitted_vol(k)), "error": error})
    for k, vol, years in zip(rng.normal(0, 0.3, 30), rng.uniform(0.1, 2, 30), rng.uniform(0.001, 2, 30), strict=True):
        d1 = -k / (vol * np.sqrt(years)) + vol * np.sqrt(years) / 2
        deltas.append({"k": k, "vol": vol, "years": years, "delta": float(norm.cdf(d1) - (k < 0))})
    return {"surface": payload, "vols": vols, "deltas": deltas}
