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


TARGET = "from volsurf import _jit; print(_jit._marker_name('volsurf.errors'))"


@pytest.mark.parametrize("variable", ["NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"])
def test_another_processor_is_another_cache(variable: str) -> None:
    """A marker that another processor or Python left must not promise its machine code: it would compile with no bar."""

    def marker(environment: dict[str, str]) -> str:
        command = [sys.executable, "-c", TARGET]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout

    assert marker(dict(os.environ)) == marker(dict(os.environ)) != marker(os.environ | {variable: "generic"})


def test_another_python_is_another_cache() -> None:
    from volsurf import _jit

    assert sys.implementation.cache_tag in _jit._target()


def test_full_cache_is_read_where_it_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from volsurf import _jit

    def refuse(**_: object) -> None:
        raise PermissionError

    monkeypatch.setenv("VOLSURF_CACHE_DIR", str(tmp_path))
    (tmp_path / _jit._marker_name("volsurf.errors")).touch()
    monkeypatch.setattr(_jit.tempfile, "TemporaryFile", refuse)
    _jit._place.cache_clear()
    try:
        assert _jit._place("volsurf.errors") == tmp_path
        assert _jit._place("volsurf.instruments") != tmp_path
    finally:
        _jit._place.cache_clear()


def test_processes_that_start_at_once_compile_once(tmp_path: Path) -> None:
    (tmp_path / "probe_kernel.py").write_text(MODULE.format(helper="probe_helper", group="probe"))
    (tmp_path / "probe_helper.py").write_text(HELPER.format(factor=2))
    environment = os.environ | {"VOLSURF_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(out.strip() for out, _ in ends) == ["2.0 0", "2.0 1"]
    assert sum("compiling 1" in err for _, err in ends) == 1


def test_workers_compile_no_entry_points_for_python() -> None:
    code = "from volsurf.svi._varpro import clamp; print(clamp.targetoptions['no_cpython_wrapper'])"
    for worker, lean in (("1", "True"), ("", "False")):
        environment = os.environ | {"VOLSURF_KERNEL_WORKER": worker}
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert out.stdout.strip() == lean


def test_unwritable_cache_falls_back(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = "from volsurf import _jit; print(_jit._marker('volsurf.errors').parent)"
    environment = os.environ | {"VOLSURF_CACHE_DIR": str(blocked / "below")}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert Path(out.stdout.strip()).is_dir()
