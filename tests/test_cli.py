"""The command line as a user meets it: help everywhere, errors in one line, and a demo that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from volsurf.cli import BENCHMARKS, COMMANDS

VOLSURF = [sys.executable, "-m", "volsurf.cli"]
DEMO = [*VOLSURF, "demo", "--headless", "--port", "0", "--json"]


def run(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VOLSURF, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("command", [*((c,) for c in COMMANDS if c != "bench"), *(("bench", b) for b in BENCHMARKS)])
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: volsurf {' '.join(command)}")


def test_no_command_prints_help_and_fails() -> None:
    done = run()
    assert done.returncode == 2
    assert all(command in done.stdout for command in COMMANDS)


def test_unknown_command_is_named() -> None:
    done = run("surfase")
    assert done.returncode == 2
    assert "surfase" in done.stderr


def test_a_failure_is_one_line_without_a_traceback() -> None:
    done = run("fit", "no-such-file.csv")
    assert done.returncode == 1
    assert "no-such-file.csv" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that is running; killed if the test fails. All of it is on this machine: a proxy, here a dead one, is not asked."""
    behind = (
        os.environ | dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9") | {"no_proxy": ""}
    )
    with subprocess.Popen(
        [*DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=behind
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def descendants_when_served(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until the demo has printed its addresses, and list what it has started."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("stream"):
            return psutil.Process(process.pid).children(recursive=True)
    raise AssertionError(f"the demo ended with status {process.wait()} before it served anything")


def assert_gone(processes: list[psutil.Process]) -> None:
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive, [p.cmdline() for p in alive]


@pytest.mark.slow
def test_demo_reports_and_leaves_nothing_behind() -> None:
    with demo("--seconds", "8") as process:
        started = descendants_when_served(process)
        out, _ = process.communicate(timeout=150)
        assert process.returncode == 0
    summary = json.loads(out.splitlines()[-1])
    assert summary["heartbeats_missed"] == 0
    assert summary["expiries_fitted"] == summary["expiries_listed"] >= 11
    assert summary["messages"] > 1000
    # A floor that a loaded test machine keeps; the figure itself is the command's.
    assert summary["frames_per_second"] >= 5
    assert summary["slices_certified"] <= summary["slices_published"]
    assert_gone(started)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_demo_ends_cleanly_when_told_to(number: signal.Signals) -> None:
    with demo() as process:
        started = descendants_when_served(process)
        os.kill(process.pid, number)
        process.communicate(timeout=60)
        assert process.returncode in (0, 1)  # 1: it was stopped before the first frame
    assert_gone(started)


@pytest.mark.slow
def test_demo_that_is_killed_takes_its_processes_with_it() -> None:
    with demo() as process:
        started = descendants_when_served(process)
        process.kill()
        process.communicate(timeout=60)
    assert_gone(started)


def test_a_reader_that_goes_away_is_not_a_traceback() -> None:
    with subprocess.Popen([*VOLSURF, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        error = process.stderr.read()
    assert "Traceback" not in error


def test_help_answers_at_once_because_nothing_heavy_is_loaded() -> None:
    code = "import sys; from volsurf.cli import main; main([]); print([m for m in ('numba', 'polars') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
