"""A capture's directory: claimed by one writer at a time, described by `capture.json`."""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec

from volsurf.capture import format as layout
from volsurf.capture.reader import Manifest, is_written
from volsurf.capture.segments import segment_names
from volsurf.errors import ConfigError


class CaptureOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a capture is written."""

    segment_mb: float = 64.0
    """A segment of this size is closed and the next one begun."""
    segment_seconds: float = 900.0
    """Or of this age."""
    max_gb: float | None = None
    """The oldest segments are deleted as long as the capture, with earlier ones beside it, is larger; None for no limit."""
    keep_days: float | None = None
    """Segments closed longer ago are deleted; None to keep them all."""
    min_free_mb: float = 512.0
    """Nothing is written as long as the disk has less room than this: a full one would take more down than the capture."""
    pending_mb: float = 64.0
    """Records that wait for the disk, in memory, per stream; what comes when they are this many is lost, and said to be."""
    flush_seconds: float = 0.1
    """A record is handed to the operating system at the latest after so long."""
    level: int = 3
    """Of zstd."""
    books: bool = False
    """Follow order books too, where a venue offers them."""
    trades: bool = True
    """Follow trades too."""

    def validate(self) -> CaptureOptions:
        """Itself, or `ConfigError` naming the option that cannot be."""
        positive = ("segment_mb", "segment_seconds", "max_gb", "keep_days", "pending_mb", "flush_seconds")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} of a capture must be positive, was {value!r}")
        if self.flush_seconds > 1.0:
            raise ConfigError(f"flush_seconds of a capture must be at most 1, was {self.flush_seconds!r}")
        if self.min_free_mb < 0:
            raise ConfigError(f"min_free_mb of a capture must not be negative, was {self.min_free_mb!r}")
        if not 1 <= self.level <= 19:
            raise ConfigError(f"level of a capture's compression must be between 1 and 19, was {self.level!r}")
        if self.max_gb is not None and self.max_gb * 1e3 < 4 * self.segment_mb:
            raise ConfigError(
                f"max_gb must leave room for four segments of {self.segment_mb:g} MB, was {self.max_gb!r}: "
                "make the segments smaller or the limit larger"
            )
        return self


def make_options(options: CaptureOptions | dict[str, Any] | None) -> CaptureOptions:
    """Options from what a caller gave: names and values, or nothing; `ConfigError` for a name there is not."""
    if isinstance(options, CaptureOptions):
        return options.validate()
    try:
        return msgspec.convert(options or {}, CaptureOptions, strict=True).validate()
    except msgspec.ValidationError as error:
        names = ", ".join(CaptureOptions.__struct_fields__)
        raise ConfigError(f"an option of the capture cannot be: {error}; there are {names}") from None


class Claim:
    """A capture being written: this process holds its lock until `release`.

    Attributes:
        path: the directory; where the one asked for holds an earlier capture, the next free one beside it: `path-2`, …
        id: of the capture.
    """

    def __init__(self, path: Path, file: int, manifest: Manifest) -> None:
        self.path, self._file, self.manifest = path, file, manifest
        self.id = manifest.id

    def release(self) -> None:
        """Let go of the directory; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def claim(path: str | os.PathLike[str], settings: dict[str, Any] | None = None) -> Claim:
    """Make a capture's directory, or take an empty one, and lock it.

    A directory that holds a finished capture is left as it is and the new one made beside it: `captures`, `captures-2`, …

    Raises:
        ConfigError: another process is writing there, or it cannot be made.
    """
    wanted = Path(path).expanduser().absolute()
    for candidate in (wanted, *earlier(wanted)):
        if is_written(candidate):
            raise ConfigError(
                f"{str(candidate)!r} is being written by process {_owner(candidate)}: choose another directory"
            )
    number = 1
    while True:
        candidate = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        claimed = _claim(candidate, settings or {})
        if claimed is not None:
            return claimed
        number += 1


def earlier(path: Path) -> list[Path]:
    """Captures beside this one that were asked to be made in the same place, oldest first, without itself."""
    stem = family_stem(path)
    found = []
    for other in path.parent.glob(f"{glob_escape(stem)}*") if path.parent.is_dir() else ():
        rest = other.name.removeprefix(stem)
        is_one = rest == "" or (rest.startswith("-") and rest[1:].isdigit())
        if is_one and other != path and (other / layout.MANIFEST).is_file():
            found.append(other)
    return sorted(found, key=lambda other: (len(other.name), other.name))


def family_stem(path: Path) -> str:
    """`captures` of `captures-12` where `captures` is a capture too, else the name itself."""
    stem, dash, number = path.name.rpartition("-")
    if dash and number.isdigit() and (path.with_name(stem) / layout.MANIFEST).is_file():
        return stem
    return path.name


def glob_escape(text: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _claim(path: Path, settings: dict[str, Any]) -> Claim | None:
    """The claim of one directory; None where it holds a capture already."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = os.open(path / layout.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"no capture can be made in {str(path)!r}: {error.strerror}") from None
    if not _lock(file):
        os.close(file)
        raise ConfigError(f"{str(path)!r} is being written by process {_owner(path)}: choose another directory")
    if (path / layout.MANIFEST).exists() or segment_names(path):
        os.close(file)
        return None
    manifest = Manifest(
        id=secrets.token_hex(8),
        created_ns=time.time_ns(),
        volsurf=_version(),
        host=platform.node(),
        pid=os.getpid(),
        settings=settings,
    )
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        temporary = path / f"{layout.MANIFEST}.part"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        temporary.replace(path / layout.MANIFEST)
    except OSError as error:
        os.close(file)
        raise ConfigError(f"no capture can be made in {str(path)!r}: {error.strerror}") from None
    return Claim(path, file, manifest)


def _lock(file: int) -> bool:
    # Who only looks whether somebody writes holds the lock for an instant too.
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.02)
    return False


def _owner(path: Path) -> str:
    try:
        return (path / layout.LOCK).read_text().strip() or "of another owner"
    except OSError:
        return "of another owner"


def _version() -> str:
    from volsurf import __version__

    return __version__
