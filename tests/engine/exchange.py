"""A simulated venue in a thread of the test process, which a test can hold still."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from volsurf.sim.market import Market
from volsurf.sim.venues import make_server


class Exchange:
    """Serves until `close`."""

    def __init__(self, underlyings: tuple[str, ...] = ("BTC",), venue: str = "deribit") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="exchange", daemon=True)
        self._thread.start()
        self.server = make_server(venue, Market(7, underlyings, start_ns=time.time_ns()))
        self._call(self.server.__aenter__())
        self.url = self.server.url

    def _call(self, coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)  # type: ignore[arg-type]

    @property
    def connections(self) -> int:
        """Connections made so far."""
        return self.server.stats["connections"]

    @contextmanager
    def held(self) -> Iterator[None]:
        """It says and reads nothing; its sockets stay open."""
        go = threading.Event()
        self._loop.call_soon_threadsafe(go.wait)
        try:
            yield
        finally:
            go.set()

    def close(self) -> None:
        """End the server and its thread."""
        self._call(self.server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def until(condition: Callable[[], object], seconds: float = 60.0, what: str = "") -> None:
    """Wait for a condition; what it was is in the traceback."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s {what}"
        time.sleep(0.01)


def gone(pids: object) -> bool:
    """None of the processes exists any more; a zombie that waits to be reaped counts as gone."""
    for pid in pids:  # type: ignore[attr-defined]
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True
