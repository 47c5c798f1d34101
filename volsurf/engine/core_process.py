"""The core's process: reads the feeds' sockets, makes a frame on every tick of the frame clock, hands it to the stream.

    python -m volsurf.engine.core_process CONTROL_FD PARENT_PID      (started by `volsurf.engine.live`)

One thread reads and computes; a second one runs the stream server's event loop. The core itself is pure: this module gives it
entries and the time, and measures it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsurf.engine.control import Channel, Message, become_child
from volsurf.engine.core import Core
from volsurf.engine.link import LinkReader
from volsurf.engine.log import Entry, FeedHealth, FeedStarted, FeedState, PolicyChange
from volsurf.engine.pacing import FrameClock, Readiness, StepDetector, Tally, steady_ns
from volsurf.engine.stream import StreamServer
from volsurf.errors import InputError

if TYPE_CHECKING:
    from volsurf.capture.taps import CoreTap
    from volsurf.capture.writer import StreamWriter

_log = logging.getLogger("volsurf.engine.core")

REPORT_SECONDS = 0.25


class _ServerThread:
    """The stream server with an event loop of its own, so that no client can hold up a frame."""

    def __init__(self, listener: socket.socket) -> None:
        self.server = StreamServer(listener)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="volsurf-stream", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(3)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1)
        self._loop.close()


class CoreProcess:
    """The loop of the core's process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, channel)
        self._links: dict[int, LinkReader] = {}
        self._link_numbers: dict[LinkReader, tuple[int, int]] = {}
        """Feed and number of each link, as the capture names them."""
        self._core = Core()
        self._tally = Tally()
        self._stopping = False
        self._settings: Message | None = None
        self._thread: _ServerThread | None = None
        self._reported = 0.0
        self._failures: list[Message] = []
        """Feeds that were given up and of which the core has not been told."""
        self._readiness = Readiness(1, 0.0)
        self._ready = False
        self._ready_at = self._frame_at = 0.0
        """Ticks of the first frame that was whole and of the last one, so that frames and seconds are counted alike."""
        self._waiting = ""
        self._capture: StreamWriter | None = None
        self._tap: CoreTap | None = None

    def run(self) -> None:
        """Until told to stop, or the engine is gone."""
        while self._settings is None and not self._stopping:
            self._serve_control(wait=1.0)
        if self._settings is None:
            return
        settings = self._settings
        self._readiness = Readiness(int(settings["feeds"]), float(settings["patience_seconds"]))
        if settings.get("capture"):
            self._open_capture(settings)
        self._apply_own(PolicyChange(**settings["rules"]))
        self._thread = _ServerThread(socket.socket(fileno=settings["fds"][0]))
        try:
            self._prepare()
            self._loop(float(settings["frame_seconds"]))
        finally:
            if self._capture is not None:
                # First, lest anything keep it from its last second.
                self._capture.close()
            self._thread.stop()
            for link in self._links.values():
                link.close()
            self._report(force=True)

    def _open_capture(self, settings: Message) -> None:
        from volsurf.capture.directory import make_options
        from volsurf.capture.format import CORE
        from volsurf.capture.taps import CoreTap
        from volsurf.capture.writer import StreamWriter

        capture = settings["capture"]
        self._capture = StreamWriter(
            Path(capture["path"]),
            CORE,
            capture=capture["id"],
            options=make_options(capture["options"]),
            settings={name: settings[name] for name in ("rules", "frame_seconds")},
        )
        self._tap = CoreTap(self._capture.recorder)

    def _prepare(self) -> None:
        """Compile or load the kernels, with every client and the engine being told."""
        from volsurf._jit import ensure_compiled, is_compiled

        known = is_compiled()
        self._say(
            "loading the numerical kernels" if known else "compiling the numerical kernels (first use, about a minute)"
        )
        ensure_compiled()
        self._say("waiting for the first quotes")
        # What is loaded now stays for good; leaving it out of every later collection keeps those short.
        gc.collect()
        gc.freeze()

    def _say(self, status: str) -> None:
        assert self._thread is not None
        self._thread.server.say(status)
        self._channel.send({"op": "status", "text": status})

    def _loop(self, period: float) -> None:
        clock = FrameClock(period, time.monotonic())
        steps = StepDetector(time.time_ns(), steady_ns())
        read_seconds = 0.0
        while not self._stopping:
            for key, _ in self._selector.select(clock.wait(time.monotonic())):
                started = time.perf_counter()
                if key.data is self._channel:
                    self._serve_control(wait=0.0)
                else:
                    self._read(key.data)
                    read_seconds += time.perf_counter() - started
            self._give_up()
            now = time.monotonic()
            if clock.wait(now) > 0.0:
                continue
            late = clock.take(now)
            self._frame_at = clock.due - clock.period
            step = steps.look(time.time_ns(), steady_ns())
            if step is not None:
                self._apply_own(step)
            self._make_frame({"late": late * 1e3, "apply": read_seconds * 1e3})
            read_seconds = 0.0
            self._report()

    def _make_frame(self, timings: dict[str, float]) -> None:
        assert self._thread is not None
        last = started = time.perf_counter()

        def lap(step: str) -> None:
            nonlocal last
            now = time.perf_counter()
            timings[step] = timings.get(step, 0.0) + (now - last) * 1e3
            last = now

        now_ns = time.time_ns()
        frame = self._core.frame(now_ns, lap)
        # This encodes what changed: here, and not in the server's thread, where clients would wait for it.
        digest = frame.hash
        lap("encode")
        if self._tap is not None:
            self._tap.ticked(now_ns, frame.number, digest)
        timings["total"] = (last - started) * 1e3
        frame.timings.update({step: round(ms, 3) for step, ms in timings.items()})
        self._thread.server.publish(frame)
        if self._ready:
            self._tally.count(frame)
            return
        self._ready = self._readiness.look(frame, self._frame_at)
        if self._ready:
            self._ready_at = self._frame_at
            self._channel.send({"op": "ready"})
        elif frame.health:
            feeds = "; ".join(f"{status.name}: {status.sentence}" for status in frame.health.values())
            self._waiting = f"waiting for {'every feed' if frame.surfaces else 'the first surface'}; {feeds}"

    def _read(self, link: LinkReader) -> None:
        try:
            entries = link.read()
        except InputError as error:
            _log.error("a feed's link is broken and is closed: %s", error)
            entries, link.closed = [], True
        for entry in entries:
            self._apply(entry)
        if entries and self._tap is not None:
            self._tap.took(time.time_ns(), *self._link_numbers[link], len(entries))
        if link.closed:
            self._selector.unregister(link)
            link.close()
            self._links = {feed: other for feed, other in self._links.items() if other is not link}
            self._link_numbers.pop(link, None)

    def _apply(self, entry: Entry) -> None:
        if isinstance(entry, FeedHealth):
            self._tally.feeds[entry.feed] = entry
        elif isinstance(entry, FeedStarted):
            self._tally.feed_started(entry.feed)
        self._core.apply(entry)

    def _apply_own(self, entry: Entry) -> None:
        if self._tap is not None:
            self._tap.applied(time.time_ns(), entry)
        self._apply(entry)

    def _serve_control(self, wait: float) -> None:
        if wait:
            self._selector.select(wait)
        for message in self._channel.receive():
            match message["op"]:
                case "configure":
                    self._settings = message
                case "link":
                    self._open_link(int(message["feed"]), int(message["link"]), message["fds"][0])
                case "failed":
                    self._failures.append(message)
                case "stop":
                    self._stopping = True
        if self._channel.closed:
            self._stopping = True

    def _give_up(self) -> None:
        """Tell the core of the feeds that will not come back: its own words, since their processes are gone."""
        failures, self._failures = self._failures, []
        for message in failures:
            feed, name = int(message["feed"]), str(message["name"])
            self._end_link(feed)
            now_ns = time.time_ns()
            self._apply_own(FeedStarted(feed, name))
            self._apply_own(
                FeedHealth(
                    feed=feed, name=name, time_ns=now_ns, state=FeedState.FAILED, detail=str(message["text"])[:400]
                )
            )

    def _end_link(self, feed: int) -> None:
        link = self._links.pop(feed, None)
        if link is None:
            return
        # What the old process had still written is read first: it precedes what comes of the feed now.
        self._read(link)
        if not link.closed:
            self._selector.unregister(link)
            link.close()
            self._link_numbers.pop(link, None)

    def _open_link(self, feed: int, number: int, fd: int) -> None:
        self._end_link(feed)
        link = self._links[feed] = LinkReader(socket.socket(fileno=fd))
        self._link_numbers[link] = feed, number
        self._selector.register(link, selectors.EVENT_READ, link)

    def _report(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        assert self._thread is not None
        server = self._thread.server
        idle = 0.0 if server.clients else now - server.last_client_at
        stream: dict[str, Any] = {"clients": server.clients, "idle_seconds": idle, **server.counters}
        seconds = self._frame_at - self._ready_at if self._ready else 0.0
        if not self._ready and self._waiting:
            self._channel.send({"op": "status", "text": self._waiting})
        self._channel.send({"op": "report", "seconds": seconds, "figures": self._tally.report(), "stream": stream})
        if self._capture is not None:
            self._channel.send({"op": "capture", "figures": self._capture.report()})


def main() -> None:
    """Entry point of the process."""
    logging.basicConfig(level=logging.WARNING, format="volsurf core: %(message)s", stream=sys.stderr)
    channel = become_child(int(sys.argv[1]), int(sys.argv[2]))
    process = CoreProcess(channel)

    def stop(*_: object) -> None:
        process._stopping = True

    signal.signal(signal.SIGTERM, stop)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    process.run()


if __name__ == "__main__":
    main()
