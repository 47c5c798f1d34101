"""The connections of a feed as tasks, while some come and others go."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from volsurf.errors import ConfigError
from volsurf.feeds.connection import Connection


class Crew:
    """Connections that run beside each other."""

    def __init__(self) -> None:
        self._running: dict[Connection, tuple[asyncio.Task[None], asyncio.Event]] = {}

    def become(self, connections: Collection[Connection]) -> None:
        """Run these: start those that are new, tell the others to close."""
        for connection, (task, ending) in list(self._running.items()):
            if connection not in connections:
                ending.set()
                if task.done():
                    task.exception()  # nobody depends on it any more
                    del self._running[connection]
        for connection in connections:
            if connection not in self._running:
                ending = asyncio.Event()
                self._running[connection] = (asyncio.ensure_future(connection.run(ending)), ending)

    async def wait(self, *events: asyncio.Event) -> None:
        """Until one of these is set or a connection ends."""
        tasks = [task for task, _ in self._running.values() if not task.done()]
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait((*tasks, *waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()

    def raise_errors(self, needed: Collection[Connection]) -> None:
        """Raise the error a connection ended with; that a venue lists nothing matters only of those that are `needed`."""
        for connection, (task, _) in self._running.items():
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None and (connection in needed or not isinstance(error, ConfigError)):
                raise error

    async def end(self) -> None:
        """Close them all, and return when they are."""
        for _, ending in self._running.values():
            ending.set()
        # Sockets are closed by their own tasks, whether the feed was told to stop, was cancelled or saw one fail.
        await asyncio.gather(*(task for task, _ in self._running.values()), return_exceptions=True)
