"""Imports point one way, and the pure rooms touch neither clock nor socket."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "volsurf"

# Ring 0 knows nobody; each ring may import its own room and every room of a lower ring.
RINGS = [
    {"errors", "instruments", "quotes", "_arguments", "_jit"},
    {"iv", "svi"},
    {"surface", "diagnostics"},
    {f"engine.{n}" for n in ("core", "feeds", "frame", "codec", "mirror", "log", "memory", "verdict")},
    {"engine", "feeds", "sim", "capture", "replay", "widgets", "dashboard", "cli", "__init__"},
]
IMPURE = {"asyncio", "socket", "websockets", "threading", "multiprocessing", "subprocess", "time", "logging", "random"}


def _room(module: str) -> str:
    parts = module.removeprefix("volsurf").lstrip(".").split(".")
    if parts[0] == "engine" and len(parts) > 1 and f"engine.{parts[1]}" in RINGS[3]:
        return f"engine.{parts[1]}"
    return parts[0] or "__init__"


def _ring(room: str) -> int:
    for number, rooms in enumerate(RINGS):
        if room in rooms:
            return number
    raise AssertionError(f"room {room!r} is in no ring: give it one")


def _module(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((PACKAGE.parent / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: _module(p))
def test_imports_point_inward(path: Path) -> None:
    room = _room(_module(path))
    ring = _ring(room)
    for name in _imports(path):
        if name == "volsurf" or not name.startswith("volsurf."):
            continue
        other = _room(name)
        if other != room:
            # surface and diagnostics are neighbours, as are iv and svi: a neighbour of the same ring may be used.
            assert _ring(other) <= ring, f"{_module(path)} imports {name}"


@pytest.mark.parametrize("path", [f for f in FILES if _ring(_room(_module(f))) < 4], ids=lambda p: _module(p))
def test_pure_rooms_do_no_io(path: Path) -> None:
    if _module(path) == "volsurf._jit":
        return  # it starts the compiler processes; no kernel can see it do so
    found = {name.split(".")[0] for name in _imports(path)} & IMPURE
    assert not found, f"{_module(path)} imports {sorted(found)}"


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=lambda p: _module(p))
def test_files_stay_readable(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 500, f"{path.name} has {lines} lines: split it"
