"""The kernel cache: keyed on every source a kernel is built from, visible while it fills, silent afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from volsurf._jit import kernel
from volsurf.{helper} import twice

@kernel("float64(float64)", group="{group}")
def apply(x):
    return twice(x)
"""
HELPER = """
from volsurf._jit import helper

@helper()
def twice(x):
    return {factor} * x
"""
DRIVER = """
import sys, time
import volsurf
volsurf.__path__.append(sys.argv[1])
from volsurf import _jit
_jit.KERNEL_MODULES["probe"] = ("volsurf.probe_kernel",)
_jit._compile_in_parallel = lambda todo: print("compiling", len(todo), file=sys.stderr)
_jit.ensure_compiled("probe")
from volsurf.probe_kernel import apply
print(apply(1.0), sum(apply.stats.cache_hits.values()))
"""


def run(folder: Path) -> tuple[str, str]:
    environment = os.environ | {"VOLSURF_CACHE_DIR": str(folder / "cache")}
    out = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder)], capture_output=True, text=True, env=environment, check=True
    )
    return out.stdout.strip(), out.stderr.strip()


def test_cache_notices_a_change_in_a_helper_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "probe_kernel.py").write_text(MODULE.format(helper="probe_helper", group="probe"))
    (tmp_path / "probe_helper.py").write_text(HELPER.format(factor=2))
    assert run(tmp_path) == ("2.0 0", "compiling 1")
    assert run(tmp_path) == ("2.0 1", "")
    (tmp_path / "probe_helper.py").write_text(HELPER.format(factor=3))
    assert run(tmp_path) == ("3.0 0", "compiling 1")


def test_unknown_group_is_named() -> None:
    from volsurf._jit import ensure_compiled

    with pytest.raises(KeyError, match="nonesuch"):
        ensure_compiled("nonesuch")


def test_unwritable_cache_falls_back(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = "from volsurf import _jit; print(_jit._marker('volsurf.errors').parent)"
    environment = os.environ | {"VOLSURF_CACHE_DIR": str(blocked / "below")}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert Path(out.stdout.strip()).is_dir()
