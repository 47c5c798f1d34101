"""A shared engine: a process of its own that kernels find by name, and that leaves when nobody needs it any more.

    python -m volsurf.engine.shared NAME SETTINGS_JSON      (started by `start`)

It is no child of the kernel that starts it: a kernel may restart, and finds it again. It ends itself once no client has been
connected for a while, so a closed laptop leaves nothing behind.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from volsurf.engine import rendezvous
from volsurf.engine.rendezvous import EngineRecord, SurfaceRules
from volsurf.errors import ConfigError, EngineError, VolsurfError

IDLE_SECONDS = 30.0
_START_SECONDS = 20.0
_LOOK_SECONDS = 0.1

_log = logging.getLogger("volsurf.engine.shared")


def idle_seconds() -> float:
    """`$VOLSURF_ENGINE_IDLE_SECONDS`, or 30."""
    text = os.environ.get("VOLSURF_ENGINE_IDLE_SECONDS", "")
    try:
        seconds = float(text) if text else IDLE_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds < 1e7:
        raise ConfigError(f"VOLSURF_ENGINE_IDLE_SECONDS must be a positive number of seconds, was {text!r}")
    return seconds


def start(
    name: str,
    venues: Sequence[str],
    underlyings: Sequence[str],
    *,
    url: str | dict[str, str] | None,
    every: float,
    idle: float,
    rules: SurfaceRules,
    capture: str | None = None,
    capture_options: dict[str, Any] | None = None,
) -> EngineRecord:
    """Start the engine of a name and return once its stream listens; the caller holds `rendezvous.exclusive(name)`."""
    settings = {
        "venues": list(venues),
        "underlyings": list(underlyings),
        "url": url,
        "every": every,
        "idle": idle,
        "rules": msgspec.to_builtins(rules),
        "capture": capture,
        "capture_options": capture_options,
    }
    log = rendezvous.log_path(name)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "volsurf.engine.shared", name, json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # Nobody else waits for it: without this a kernel that outlives its engine would keep a zombie.
    threading.Thread(target=process.wait, name="volsurf-reaper", daemon=True).start()
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        record = rendezvous.find(name)
        if record is not None and record.pid == process.pid:
            return record
        if process.returncode is not None:
            raise EngineError(
                last_words(name) or f"there is an engine {name!r} that has not said where; its log is {log}"
            )
        time.sleep(0.02)
    process.terminate()
    raise EngineError(f"the engine did not start within {_START_SECONDS:g} s; its log is {log}")


def last_words(name: str) -> str:
    """Why an engine of a name has ended, as far as it could say; "" while it lives."""
    if rendezvous.is_alive(name):
        return ""
    try:
        said = rendezvous.log_path(name).read_text(errors="replace").strip().splitlines()
    except OSError:
        said = []
    return f"engine {name!r} has ended: {said[-1] if said else 'it left no word'}"


def end(name: str, timeout: float = 10.0) -> bool:
    """End the engine of a name, whoever uses it; returns whether there was one."""
    with rendezvous.exclusive(name, timeout):
        record = rendezvous.find(name)
        if record is None:
            return False
        os.kill(record.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while rendezvous.is_alive(name):
            if time.monotonic() > deadline:
                raise EngineError(f"engine {name!r} (process {record.pid}) did not end within {timeout:g} s")
            time.sleep(0.02)
        rendezvous.withdraw(name)
    return True


def serve(name: str, settings: dict[str, Any], stop: threading.Event) -> None:
    """Be the engine of a name until `stop`, until it fails, or until nobody has been there for a while."""
    from volsurf import __version__
    from volsurf.engine.live import Engine

    alive = rendezvous.claim(name, patience=1.0)
    if alive is None:
        raise EngineError(f"there is an engine {name!r} already")
    with (
        alive,
        Engine(
            settings["venues"],
            settings["underlyings"],
            url=settings["url"],
            port=0,
            frame_seconds=settings["every"],
            capture=settings["capture"],
            capture_options=settings["capture_options"],
            **settings["rules"],
        ) as engine,
    ):
        record = EngineRecord(
            pid=os.getpid(),
            stream_url=engine.stream_url,
            venues=engine.venues,
            underlyings=engine.underlyings,
            url=settings["url"],
            every=settings["every"],
            rules=SurfaceRules(**settings["rules"]),
            capture=settings["capture"],
            capture_path=None if engine.capture_path is None else str(engine.capture_path),
            version=__version__,
        )
        rendezvous.publish(name, record)
        _stay(name, float(settings["idle"]), stop, lambda: engine.idle_seconds, lambda: engine.failure)


def _stay(
    name: str,
    idle: float,
    stop: threading.Event,
    idle_for: Callable[[], float],
    failure: Callable[[], str | None],
) -> None:
    while not stop.wait(_LOOK_SECONDS):
        if (why := failure()) is not None:
            rendezvous.withdraw(name)
            raise EngineError(why)
        if idle_for() < idle:
            continue
        try:
            with rendezvous.exclusive(name, 0.0):
                # Looked at again, when the core has reported anew: whoever held the lock until now may just have joined.
                stop.wait(4 * _LOOK_SECONDS)
                if idle_for() >= idle:
                    rendezvous.withdraw(name)
                    _log.warning("nobody connected for %g s: the engine ends", idle)
                    return
        except EngineError:
            continue
    rendezvous.withdraw(name)


def main() -> int:
    """Entry point of the process."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve(rendezvous.check_name(sys.argv[1]), json.loads(sys.argv[2]), stop)
    except VolsurfError as error:
        print(f"volsurf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
