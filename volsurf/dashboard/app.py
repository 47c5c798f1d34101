"""Starting and ending the dashboard server, which is a process of its own (`volsurf.dashboard.server`).

    dashboard = launch_dashboard("ws://127.0.0.1:8765/v1/stream")
    print(dashboard.url)
    …
    dashboard.stop()

The server watches a pipe from its parent and ends with it, however the parent ends; kernels end with the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from volsurf.errors import ConfigError, EngineError

DEFAULT_PORT = 8866
STREAM_VARIABLE = "VOLSURF_STREAM"
"""Environment variable in which the notebooks find the address of the engine's stream."""

_START_SECONDS = 40.0
_STOP_SECONDS = 10.0


def notebooks_folder() -> Path:
    """Where the published notebooks are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_dashboards", package.parent / "dashboards"):
        if (folder / "surface.ipynb").is_file():
            return folder
    raise ConfigError(
        f"the dashboard notebooks are neither in {package / '_dashboards'} nor in {package.parent / 'dashboards'}"
    )


class DashboardProcess:
    """A dashboard server that was started here."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url
        """What to open in a browser."""

    def __repr__(self) -> str:
        return f"DashboardProcess({self.url}, {'running' if self.is_alive else 'stopped'})"

    def __enter__(self) -> DashboardProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the server's process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still serves."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server and its kernels; a second call does nothing."""
        _end(self._process)


def launch_dashboard(
    stream_url: str | None,
    *,
    port: int = DEFAULT_PORT,
    theme: str = "dark",
    notebook: str | Path | None = None,
    cull_seconds: float = 120.0,
) -> DashboardProcess:
    """Serve the dashboard on loopback and return when it can be opened.

    Args:
        stream_url: address of the engine's stream, handed to the notebooks; None for notebooks that need none.
        port: 0 for a free one.
        theme: "dark" or "light".
        notebook: another notebook than `surface.ipynb`.
        cull_seconds: a kernel whose page has gone without a word ends after so long.

    Raises:
        ConfigError: the notebook does not exist, the port is taken, or the theme is unknown.
        EngineError: the server did not start.
    """
    if theme not in ("dark", "light"):
        raise ConfigError(f"theme is dark or light, was {theme!r}")
    path = Path(notebook) if notebook is not None else notebooks_folder() / "surface.ipynb"
    if not path.is_file():
        raise ConfigError(f"no such notebook: {path}")
    environment = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1") | os.environ
    environment.pop(STREAM_VARIABLE, None)
    if stream_url is not None:
        environment[STREAM_VARIABLE] = stream_url
    # -P: a module in the user's working directory must not stand in for one of ours.
    command = [sys.executable, "-P", "-m", "volsurf.dashboard.server", str(path.resolve())]
    command += ["--port", str(port), "--theme", theme, "--cull-seconds", str(cull_seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        answer = _first_line(process, time.monotonic() + _START_SECONDS)
    except BaseException:
        _end(process)
        raise
    if "url" not in answer:
        _end(process)
        raise ConfigError(answer["error"])
    return DashboardProcess(process, answer["url"])


def _first_line(process: subprocess.Popen[bytes], deadline: float) -> dict[str, str]:
    """The one line of JSON the server prints when it listens, or cannot."""
    assert process.stdout is not None
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise EngineError(f"the dashboard server was not ready within {_START_SECONDS:.0f} s")
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                status = process.wait()
                raise EngineError(f"the dashboard server ended with status {status} before it was ready")
            line += piece
    answer: dict[str, str] = json.loads(line)
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
