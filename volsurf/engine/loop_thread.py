"""The one background event loop of a process, in its own thread, so that a busy or blocked cell stops nothing.

It never runs on a kernel's own loop: that one does not turn while a cell computes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import threading
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class LoopThread:
    """An asyncio loop in a daemon thread; `LoopThread.shared()` is the process's only one."""

    _shared: LoopThread | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="volsurf-loop", daemon=True)
        self._thread.start()

    @classmethod
    def shared(cls) -> LoopThread:
        """The loop of this process, started on first use; a forked child gets its own."""
        with cls._lock:
            if cls._shared is None or cls._shared._pid != os.getpid() or not cls._shared._thread.is_alive():
                cls._shared = cls()
            return cls._shared

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    def submit(self, coroutine: Coroutine[object, object, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop. In a clean context: a copied one would tie its output to the cell that started it."""
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self.loop)
