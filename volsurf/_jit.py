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
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, TypeVar, cast

import llvmlite.binding as llvm
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

F = TypeVar("F", bound=Callable[..., object])

KERNEL_MODULES: dict[str, tuple[str, ...]] = {
    "iv": ("volsurf.iv.black", "volsurf.iv.implied"),
    "quotes": ("volsurf.iv.forward",),
    "enforce": ("volsurf.svi._enforce",),
    "blend": ("volsurf.svi.blend",),
    "svi": (
        "volsurf.svi.arbitrage",
        "volsurf.svi.calendar",
        "volsurf.svi._surface_certificates",
        "volsurf.svi._batch",
    ),
    "replay": ("volsurf.replay._newest",),
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
_IS_WORKER = os.environ.get("VOLSURF_KERNEL_WORKER") == "1"


def cache_directory() -> Path:
    """Directory of compiled kernels: `$VOLSURF_CACHE_DIR`, else the user's cache folder."""
    if named := os.environ.get("VOLSURF_CACHE_DIR"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "volsurf" / "kernels"


@functools.cache
def _place(module: str) -> Path:
    """Where a module's kernels are kept: the cache directory if it holds them already or can be written to, else a temporary one.

    An image may carry a full cache that its user cannot write to.
    """
    directory = cache_directory()
    if (directory / _marker_name(module)).exists():
        return directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError:
        directory = Path(tempfile.gettempdir()) / f"volsurf-kernels-{os.getuid()}"
        directory.mkdir(parents=True, exist_ok=True)
        return directory


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
    parts.append(_target())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@functools.cache
def _target() -> str:
    """What numba itself keys machine code on. Without it a marker would promise code that another Python or processor made."""
    processor = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES") or llvm.get_host_cpu_features().flatten()
    return f"{numba.__version__} {sys.implementation.cache_tag} {processor} {features}"


class _Locator(_CacheLocator):
    def __init__(self, py_func: Callable[..., object], py_file: str) -> None:
        self._module = py_func.__module__ if py_func.__module__ != "__main__" else Path(py_file).stem
        self._path = _place(self._module)

    def get_cache_path(self) -> str:
        return str(self._path)

    def get_source_stamp(self) -> str:
        return source_digest(self._module)

    def get_disambiguator(self) -> str:
        # One file set per state of the sources: two checkouts, or a checkout and an installation, do not evict each other.
        return source_digest(self._module)[:12]

    @classmethod
    def from_function(cls, py_func: Callable[..., object], py_file: str) -> _Locator:
        return cls(py_func, py_file)


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
        dispatcher = numba.njit(
            nogil=True,
            error_model="numpy",
            fastmath=fastmath,
            inline="always" if inline else "never",
            # An entry point for Python is a fifth of the work of compiling; where nobody but kernels calls, it is left out.
            no_cpython_wrapper=_IS_WORKER,
            no_cfunc_wrapper=_IS_WORKER,
        )
        return cast("F", dispatcher(function))

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
        modules = [m for g in wanted for m in KERNEL_MODULES[g]]
        if _missing(modules) and not _IS_WORKER:
            with _alone(_place(modules[0])):
                # Another process may have compiled them while this one waited for it.
                if missing := _missing(modules):
                    _compile_in_parallel([d for g in wanted for d in _declared.get(g, []) if d.module in missing])
                    _load(wanted)
                    for module in missing:
                        _marker(module).touch()
        _load(wanted)
        _ready.update(wanted)


def _missing(modules: list[str]) -> list[str]:
    return [m for m in modules if not _marker(m).exists()]


def _load(groups: Iterable[str]) -> None:
    """Load the kernels from the disk cache, compiling here what it turns out not to hold."""
    for group in groups:
        for declared in _declared.get(group, []):
            _compile(declared)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the cache directory's lock, so that of processes that start at once one compiles and the others wait for it.

    The system releases it with the process. Where there are no locks both compile: slower, but files are replaced whole.
    """
    with ExitStack() as stack:
        try:
            import fcntl  # not on Windows

            lock = stack.enter_context((directory / "compiling.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("volsurf: waiting for another process that is compiling the numerical kernels …", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def is_compiled(*groups: str) -> bool:
    """Whether the disk cache holds every kernel of the groups (all, if none is named)."""
    return all(_marker(m).exists() for g in (groups or KERNEL_MODULES) for m in KERNEL_MODULES[g])


def _marker(module: str) -> Path:
    """An empty file that says: all kernels of this state of the module are in the cache."""
    return _place(module) / _marker_name(module)


def _marker_name(module: str) -> str:
    return f"{module}-{source_digest(module)}.compiled"


def _compile(declared: _Declared) -> None:
    function = getattr(importlib.import_module(declared.module), declared.name)
    function.compile(declared.signature)


def _compile_in_parallel(todo: list[_Declared]) -> None:
    """Compile on as many processes as there are cores: LLVM holds one lock per process, so threads gain nothing."""
    workers = max(1, min(len(todo), os.cpu_count() or 1, 4))
    # The longest sources first, so that the last core does not start a long one when the others are done.
    queue = iter(sorted(todo, key=_cost, reverse=True))
    queue_lock = threading.Lock()
    with _progress(len(todo)) as advance:

        def drive() -> None:
            # Whatever ends a worker early, the caller compiles what it leaves, and shows the real error where it can be caught.
            with suppress(OSError), _worker() as (orders, answers):
                while True:
                    with queue_lock:
                        item = next(queue, None)
                    if item is None:
                        break
                    orders.write(f"{item.module}\t{item.name}\t{item.signature}\n")
                    orders.flush()
                    if answers.readline().strip() != "done":
                        break
                    advance()

        threads = [threading.Thread(target=drive, name=f"kernel-compiler-{i}") for i in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@contextmanager
def _worker() -> Iterator[tuple[IO[str], IO[str]]]:
    environment = os.environ | {"VOLSURF_KERNEL_WORKER": "1"}
    command = [sys.executable, "-m", "volsurf._jit"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin, process.stdout


def _cost(declared: _Declared) -> int:
    function = getattr(importlib.import_module(declared.module), declared.name)
    return len(function.py_func.__code__.co_code) * (1 + len(function.py_func.__code__.co_names))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    what = "compiling numerical kernels (first use on this machine"
    if console.is_jupyter:
        # A cell's standard error goes back to the start of the line, but draws no bar.
        done = itertools.count(1)
        print(f"volsurf: {what}, under a minute) … 0/{total}", end="", file=sys.stderr, flush=True)
        yield lambda: print(
            f"\rvolsurf: {what}, under a minute) … {next(done)}/{total}", end="", file=sys.stderr, flush=True
        )
        print(file=sys.stderr)
        return
    if not console.is_terminal:
        # A bar redrawn into a log file is noise: say it once.
        print(f"volsurf: {what}, under a minute) …", file=sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"{what})", total=total)
        yield lambda: progress.advance(task)


def _serve(lines: Iterable[str]) -> None:
    """Worker side of `_compile_in_parallel`: one kernel a line on standard input, `done` a line on standard output."""
    for line in lines:
        module, name, signature = line.rstrip("\n").split("\t")
        _compile(_Declared(module, name, signature))
        print("done", flush=True)


if __name__ == "__main__":
    _serve(sys.stdin)
