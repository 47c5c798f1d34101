"""Where a shared engine can be found by name: by every kernel of this user on this machine, also after a restart.

In `$XDG_RUNTIME_DIR/volsurf`, else `~/.local/state/volsurf`, three files a name:

    NAME.json    address, process id and settings of the engine
    NAME.alive   locked by the engine for as long as it lives; the system releases the lock however it dies, so a record that
                 was left behind is recognised and no process id is mistaken for another
    NAME.lock    locked by whoever looks, starts or ends: two cells cannot start two engines, and an engine that is about to
                 leave cannot be joined
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from volsurf.errors import EngineError, InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class SurfaceRules(msgspec.Struct, frozen=True, kw_only=True):
    """By which rules of the core a shared engine makes its surfaces; see `volsurf.engine.live.Engine`."""

    smoothing_seconds: float | None = None
    """None for the core's own."""
    enforce: bool = True

    def suit(self, wanted: SurfaceRules) -> bool:
        """Whether an engine with these rules gives what is wanted; a filter that nobody named is any."""
        return self.enforce == wanted.enforce and wanted.smoothing_seconds in (None, self.smoothing_seconds)


class EngineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a shared engine."""

    pid: int
    stream_url: str
    venues: tuple[str, ...]
    underlyings: tuple[str, ...]
    url: str | dict[str, str] | None
    """Of the exchange; None for the public one."""
    every: float
    rules: SurfaceRules = SurfaceRules()
    capture: str | None = None
    """Directory it was asked to record in, absolute; None where it records nothing."""
    capture_path: str | None = None
    """Directory it records in: that one, or the next beside it where it holds an earlier capture."""
    version: str


def directory() -> Path:
    """The folder of the records, made if need be, readable by this user only."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = Path(base) / "volsurf" if base and Path(base).is_dir() else state / "volsurf"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def check_name(name: str) -> str:
    """The name itself; `InputError` where it could not be a file's."""
    if not _NAME.fullmatch(name):
        raise InputError(f"an engine's name is letters, digits, '-', '_' and '.', was {name!r}")
    return name


def log_path(name: str) -> Path:
    """Where a shared engine writes what it has to say."""
    return directory() / f"{name}.log"


def _record_path(name: str) -> Path:
    return directory() / f"{name}.json"


@contextmanager
def exclusive(name: str, timeout: float) -> Iterator[None]:
    """Nobody else looks for, starts or ends the engine of this name; `EngineError` where somebody does for too long."""
    deadline = time.monotonic() + timeout
    with open(directory() / f"{name}.lock", "a") as file:
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                raise EngineError(f"another process has been starting or ending engine {name!r} for {timeout:g} s")
            time.sleep(0.02)
        yield


def claim(name: str, patience: float = 0.0) -> IO[str] | None:
    """Become the engine of this name, for as long as the file returned is open; None where there is one.

    Whoever only asks holds the lock for a moment too, so an engine that begins has `patience`, in seconds.
    """
    deadline = time.monotonic() + patience
    file = open(directory() / f"{name}.alive", "a")  # noqa: SIM115  (it is to stay open)
    while not _try_lock(file):
        if time.monotonic() >= deadline:
            file.close()
            return None
        time.sleep(0.01)
    return file


def publish(name: str, record: EngineRecord) -> None:
    """Write the record, whole or not at all."""
    path = _record_path(name)
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_bytes(msgspec.json.encode(record))
    new.replace(path)


def withdraw(name: str) -> None:
    """Remove the record."""
    _record_path(name).unlink(missing_ok=True)


def find(name: str) -> EngineRecord | None:
    """The record of the engine of this name if it is alive; one left by a dead engine is removed. Under `exclusive` only."""
    record = look(name)
    if record is None and not is_alive(name):
        withdraw(name)
    return record


def look(name: str) -> EngineRecord | None:
    """The record of the engine of this name if it is alive; nothing is changed."""
    if not is_alive(name):
        return None
    try:
        return msgspec.json.decode(_record_path(name).read_bytes(), type=EngineRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        # It lives but has not said where yet, or was written by another version.
        return None


def is_alive(name: str) -> bool:
    """Whether an engine of this name lives, whatever its record says."""
    probe = claim(name)
    if probe is None:
        return True
    probe.close()
    return False


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
