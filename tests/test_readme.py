"""What the README shows runs, and what it names exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- runs -->\n```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert len(BLOCKS) >= 4
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    surface, again, report = names["surface"], names["again"], names["report"]
    assert surface.certificate  # type: ignore[attr-defined]
    assert again.svi.a.tolist() == surface.svi.a.tolist()  # type: ignore[attr-defined]
    assert report.ledger.rows == len(names["chain"])  # type: ignore[attr-defined,arg-type]


def test_every_notebook_is_listed() -> None:
    listed = re.findall(r"`(notebooks/\d\d_\w+\.ipynb)`", README)
    assert listed == sorted(str(p.relative_to(ROOT)) for p in (ROOT / "notebooks").glob("*.ipynb"))


def test_scripts_exist() -> None:
    scripts = re.findall(r"python -m (tests\.bench\.\w+)", README)
    assert len(scripts) >= 4
    assert [s for s in scripts if importlib.util.find_spec(s) is None] == []


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^\| `volsurf (\w+)", README, re.MULTILINE))))
def test_every_command_of_the_table_has_its_flags(command: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `volsurf {command}"))
    shown = subprocess.run(
        [sys.executable, "-m", "volsurf.cli", command, "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    for flag in re.findall(r"--[a-z-]+", row):
        assert flag in shown, f"volsurf {command} has no {flag}"
