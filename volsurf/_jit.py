"""Declaring, compiling and caching the numba kernels.

A kernel states its signatures, so that everything the engine needs can be compiled ahead of its first use: once per machine,
on both cores, with a progress bar, and from then on loaded from disk. Two rules keep this honest:

* the disk cache is keyed on the text of *every* volsurf module a kernel is built from. numba's own key is the one file the
  kernel stands in, so a change to a helper in another file would silently run the old machine code;
* kernel modules are imported only when a function that needs them is first called, because importing numba costs 0.2 s.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar, cast

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

F = TypeVar("F", bound=Callable[..., object])

KERNEL_MODULES: dict[str, tuple[str, ...]] = {
    "iv": ("volsurf.iv.black", "volsurf.iv.implied"),
    "quotes": ("volsurf.iv.forward",),
    "svi": ("volsurf.svi.arbitrage", "volsurf.svi.calendar", "volsurf.svi._batch"),
}
"""The modules of each group of kernels. A group is compiled as a whole."""

_IMPORT = re.compile(r"^(?:from|import)\s+(volsurf(?:\.\w+)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Declared:
    module: str
    name: str
    signature: str


_declared: dict[str, list[_Declared]] = {}
_ready: set[str] = set()
_lock = threading.RLock()


def cache_directory() -> Path:
    """Directory of compiled kernels: `$VOLSURF_CACHE_DIR`, else the user's cache folder."""
    if named := os.environ.get("VOLSURF_CACHE_DIR"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "volsurf" / "kernels"


@functools.cache
def _source(module: str) -> str | None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).read_text(encoding="utf-8")


@functools.cache
def source_digest(module: str) -> str:
    """Digest of the text of a module and of every volsurf module it imports, directly or not."""
    seen: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or (text := _source(name)) is None:
            continue
        seen[name] = text
        todo.extend(_IMPORT.findall(text))
    parts = [f"{name}\0{seen[name]}" for name in sorted(seen)]
    # The tuned code differs between processors and numba versions; numba checks the processor itself, we name both.
    parts.append(f"{numba.__version__} {os.environ.get('NUMBA_CPU_NAME', '')}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class _Locator(_CacheLocator):
    def __init__(self, py_func: Callable[..., object], py_file: str) -> None:
        self._module = py_func.__module__ if py_func.__module__ != "__main__" else Path(py_file).stem
        self._path = cache_directory()

    def get_cache_path(self) -> str:
        return str(self._path)

    def get_source_stamp(self) -> str:
        return source_digest(self._module)

    def get_disambiguator(self) -> str:
        # One file set per state of the sources: two checkouts, or a checkout and an installation, do not evict each other.
        return source_digest(self._module)[:12]

    @classmethod
    def from_function(cls, py_func: Callable[..., object], py_file: str) -> _Locator:
        self = cls(py_func, py_file)
        try:
            self.ensure_cache_path()
        except OSError:
            self._path = Path(tempfile.gettempdir()) / f"volsurf-kernels-{os.getuid()}"
            self.ensure_cache_path()
        return self


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes: ClassVar = [_Locator]


class _KernelCache(FunctionCache):
    _impl_class = _CacheImpl


def kernel(*signatures: str, group: str, fastmath: bool | set[str] = False) -> Callable[[F], F]:
    """Declare a compiled entry point: `@kernel("float64[::1](float64[::1])", group="iv")`.

    Args:
        signatures: numba signatures, all compiled by `ensure_compiled(group)`. Other argument types still work: they compile
            when first met, without a progress bar.
        group: key of `KERNEL_MODULES`.
        fastmath: LLVM flags; never more than {"contract"} where NaN or rounding matters.
    """

    def declare(function: F) -> F:
        dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
        dispatcher._cache = _KernelCache(function)
        module = function.__module__
        _declared.setdefault(group, []).extend(_Declared(module, function.__name__, s) for s in signatures)
        return cast("F", dispatcher)

    return declare


def helper(*, inline: bool = False, fastmath: bool | set[str] = False) -> Callable[[F], F]:
    """Declare a function that only kernels call; it is compiled into them."""

    def declare(function: F) -> F:
        inlining = "always" if inline else "never"
        return cast("F", numba.njit(nogil=True, error_model="numpy", fastmath=fastmath, inline=inlining)(function))

    return declare


def ensure_compiled(*groups: str) -> None:
    """Make the kernels of the groups ready to call, compiling what the disk cache does not hold.

    The first call ever takes tens of seconds and shows a progress bar on standard error; a later process loads the machine
    code from disk. With no argument every group is made ready.
    """
    wanted = [g for g in (groups or KERNEL_MODULES) if g not in _ready]
    if not wanted:
        return
    with _lock:
        wanted = [g for g in wanted if g not in _ready]
        for group in wanted:
            if group not in KERNEL_MODULES:
                raise KeyError(f"no kernel group {group!r}; there are {sorted(KERNEL_MODULES)}")
            for module in KERNEL_MODULES[group]:
                importlib.import_module(module)
        missing = [m for g in wanted for m in KERNEL_MODULES[g] if not _marker(m).exists()]
        if missing and os.environ.get("VOLSURF_KERNEL_WORKER") != "1":
            _compile_in_parallel([d for g in wanted for d in _declared.get(g, []) if d.module in missing])
            for module in missing:
                _marker(module).touch()
        for group in wanted:
            for declared in _declared.get(group, []):
                _compile(declared)
            _ready.add(group)


def is_compiled(*groups: str) -> bool:
    """Whether the disk cache holds every kernel of the groups (all, if none is named)."""
    return all(_marker(m).exists() for g in (groups or KERNEL_MODULES) for m in KERNEL_MODULES[g])


def _marker(module: str) -> Path:
    """An empty file that says: all kernels of this state of the module are in the cache."""
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        directory = Path(tempfile.gettempdir()) / f"volsurf-kernels-{os.getuid()}"
        directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{module}-{source_digest(module)}.compiled"


def _compile(declared: _Declared) -> None:
    function = getattr(importlib.import_module(declared.module), declared.name)
    function.compile(declared.signature)


def _compile_in_parallel(todo: list[_Declared]) -> None:
    """Compile on as many processes as there are cores: LLVM holds one lock per process, so threads gain nothing."""
    workers = max(1, min(len(todo), os.cpu_count() or 1, 4))
    # The longest sources first, so that the last core does not start a long one when the others are done.
    queue = iter(sorted(todo, key=_cost, reverse=True))
    queue_lock = threading.Lock()
    failures: list[str] = []
    with _progress(len(todo)) as advance:

        def drive() -> None:
            environment = os.environ | {"VOLSURF_KERNEL_WORKER": "1"}
            command = [sys.executable, "-m", "volsurf._jit"]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                while True:
                    with queue_lock:
                        item = next(queue, None)
                    if item is None:
                        break
                    process.stdin.write(f"{item.module}\t{item.name}\t{item.signature}\n")
                    process.stdin.flush()
                    if process.stdout.readline().strip() != "done":
                        # The parent compiles it again and shows the real error where it can be caught.
                        failures.append(item.name)
                        break
                    advance(item.name)
                process.stdin.close()

        threads = [threading.Thread(target=drive, name=f"kernel-compiler-{i}") for i in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _cost(declared: _Declared) -> int:
    function = getattr(importlib.import_module(declared.module), declared.name)
    return len(function.py_func.__code__.co_code) * (1 + len(function.py_func.__code__.co_names))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if not console.is_terminal:
        # A bar redrawn into a log file is noise: say it once.
        print("volsurf: compiling numerical kernels (first use on this machine, under a minute) …", file=sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("compiling numerical kernels (first use on this machine)", total=total)
        yield lambda name: progress.advance(task)


def _serve(lines: Iterable[str]) -> None:
    """Worker side of `_compile_in_parallel`: one kernel a line on standard input, `done` a line on standard output."""
    for line in lines:
        module, name, signature = line.rstrip("\n").split("\t")
        _compile(_Declared(module, name, signature))
        print("done", flush=True)


if __name__ == "__main__":
    _serve(sys.stdin)
