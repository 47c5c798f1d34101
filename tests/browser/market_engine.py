"""An engine for pages to look at: the real stream server, fed by the small market instead of a core."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from types import TracebackType

from tests.widgets import small_market as market
from volsurf.engine.stream import PATH, StreamServer


class MarketEngine:
    """Serves a frame every `every` seconds on a free loopback port until closed; `paused` stops the frames, not the server, and
    `silent_ns` is how long the venue is said to have been silent. `feeds` is 1 or 4: how many it shows."""

    def __init__(
        self, underlyings: tuple[str, ...] = ("BTC", "ETH"), every: float = 0.1, *, paused: bool = False, port: int = 0
    ) -> None:
        self.paused = paused
        self.silent_ns = 40_000_000
        self.number = 0
        self.underlyings = underlyings
        self.feeds = 1
        self._every = every
        self._stop = threading.Event()
        listener = socket.create_server(("127.0.0.1", port))
        self.port: int = listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}{PATH}"
        self.server = StreamServer(listener)
        self._started = threading.Event()
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._drive)]
        for thread in self._threads:
            thread.start()
        assert self._started.wait(5)

    def __enter__(self) -> MarketEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _serve(self) -> None:
        async def run() -> None:
            await self.server.start()
            self._started.set()
            await asyncio.to_thread(self._stop.wait)
            await self.server.stop()

        asyncio.run(run())

    def _drive(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if not self.paused:
                self.number += 1
                feeds = market.four_feeds(self.number) if self.feeds == 4 else None
                frame = market.frame(self.number, self.underlyings, silent_ns=self.silent_ns, feeds=feeds)
                self.server.publish(frame)
            due = max(due + self._every, time.monotonic())
            self._stop.wait(due - time.monotonic())
