"""An engine of this machine: its feed and core processes, started, joined, watched, restarted and ended together.

    with Engine("deribit", ["BTC"], port=0) as engine:
        engine.wait_ready(30)
        session = vs.attach(engine.stream_url)

The process that makes an `Engine` owns it: when that process ends, however it ends, the engine's processes end too. The stream's
listening socket belongs to the engine, so its address survives a restart of the core and clients merely reconnect.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsurf.engine.child import Child
from volsurf.engine.figures import Figures
from volsurf.engine.link import open_link
from volsurf.engine.listener import DEFAULT_PORT, listen
from volsurf.engine.stream import PATH
from volsurf.engine.wanted import check_urls, check_wanted
from volsurf.errors import EngineError, InputError

if TYPE_CHECKING:
    from volsurf.capture.directory import Claim

_log = logging.getLogger("volsurf.engine")

CORE_MODULE = "volsurf.engine.core_process"
FEED_MODULE = "volsurf.engine.feed_process"
FAILURES_IN_A_ROW = 5
"""After so many ends of one process without a frame in between the engine gives up and says why."""
PATIENCE_SECONDS = 10.0
"""A feed that is not whole keeps an engine from being ready for so long at most once another feed has given a surface."""


class Engine:
    """One feed process per venue and a core process, supervised by a thread of this process.

    Args:
        venues: one name or several, see `volsurf.engine.wanted.VENUES`.
        underlyings: e.g. `["BTC", "ETH", "SOL_USDC"]`, as the venue names its option families.
        url: address of the exchange instead of the public one; `{venue: address}` where there are several.
        port: of the stream, on loopback; 0 for a free one.
        frame_seconds: period of the frame clock.
        batch_seconds: period at which a feed hands its conflated quotes to the core.
        silent_seconds: a feed not heard for so long is not live; its surfaces stay as they are.
        shards: connections each feed divides its instruments among.
        smoothing_seconds: time constant of the temporal filter, 0 for none, if not `CoreRules.smoothing_seconds`. A surface
            jitters the less and lags a drift the more, by about this time; a jump is followed at once whatever it is.
        enforce: publish surfaces free of arbitrage only; False publishes what the quotes alone give, with its certificates.
        capture: directory to record everything in that is heard and made, for `vs.replay`; None records nothing. Where it holds
            an earlier capture, the new one is made beside it.
        capture_options: names and values of `volsurf.capture.directory.CaptureOptions`.

    Raises:
        InputError: an unknown venue, no underlying, no connection, a period that is not positive, or a filter of over a minute.
        ConfigError: an option of the capture that cannot be, or another process is recording in its directory.
        EngineError: the port is taken.
    """

    def __init__(
        self,
        venues: str | Sequence[str] = "deribit",
        underlyings: Sequence[str] = ("BTC", "ETH"),
        *,
        url: str | Mapping[str, str] | None = None,
        port: int = DEFAULT_PORT,
        frame_seconds: float = 0.1,
        batch_seconds: float = 0.01,
        silent_seconds: float = 5.0,
        shards: int = 1,
        smoothing_seconds: float | None = None,
        enforce: bool = True,
        capture: str | os.PathLike[str] | None = None,
        capture_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.venues = (venues,) if isinstance(venues, str) else tuple(venues)
        self.underlyings = (underlyings,) if isinstance(underlyings, str) else tuple(underlyings)
        check_wanted(self.venues, self.underlyings)
        periods = {"frame_seconds": frame_seconds, "batch_seconds": batch_seconds, "silent_seconds": silent_seconds}
        for name, seconds in periods.items():
            if not 0.001 <= seconds <= 60.0:
                raise InputError(f"{name} must be between 0.001 and 60 seconds, was {seconds!r}")
        if smoothing_seconds is not None and not 0.0 <= smoothing_seconds <= 60.0:
            raise InputError(f"smoothing_seconds must be between 0 and 60 seconds, was {smoothing_seconds!r}")
        # Venues admit 32 connections of one address at most, others of its owner included.
        if not 1 <= shards <= 16:
            raise InputError(f"shards must be between 1 and 16 connections, was {shards!r}")
        urls = check_urls(self.venues, url)
        self._feed_settings: list[dict[str, Any]] = [
            {
                "op": "configure",
                "feed": number,
                "venue": venue,
                "underlyings": list(self.underlyings),
                "url": urls.get(venue),
                "batch_seconds": batch_seconds,
                "shards": shards,
            }
            for number, venue in enumerate(self.venues)
        ]
        self._core_settings: dict[str, Any] = {
            "op": "configure",
            "frame_seconds": frame_seconds,
            "feeds": len(self.venues),
            "patience_seconds": PATIENCE_SECONDS,
            "rules": {
                "silent_after_ns": int(1e9 * silent_seconds),
                "smoothing_seconds": smoothing_seconds,
                "enforce": enforce,
            },
        }
        self._claim: Claim | None = None
        self._listener = listen(port)
        if capture is not None:
            try:
                self._record(capture, capture_options)
            except BaseException:
                self._listener.close()
                raise
        self.stream_url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}{PATH}"
        """Address of the native stream, for `vs.attach`."""
        self.failure: str | None = None
        """Why it gave up, or None."""
        self.restarts = 0
        """Processes that ended on their own and were started again."""
        self._changed = threading.Condition()
        self._ready = False
        self._running = False
        self._doing = "starting"
        self._missing: dict[str, str] = {}
        self._given_up: dict[str, str] = {}
        """Feeds that cannot go on, by the name of their process, and why; the others do."""
        self._unlinked: set[str] = set()
        self._links = 0
        self._recorded: dict[str, dict[str, Any]] = {}
        self._figures = Figures(frame_seconds)
        self._stream: dict[str, Any] = {}
        self._stop = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._core = Child("core", CORE_MODULE)
        self._feeds = [Child(f"feed {venue}", FEED_MODULE) for venue in self.venues]
        self._children = (self._core, *self._feeds)
        self._thread = threading.Thread(target=self._supervise, name="volsurf-engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Engine({', '.join(self.venues)}: {', '.join(self.underlyings)} at {self.stream_url}, {self.status})"

    @property
    def capture_path(self) -> Path | None:
        """Where everything is recorded, or None."""
        return None if self._claim is None else self._claim.path

    @property
    def capture_figures(self) -> dict[str, Any]:
        """What was recorded by the processes that run now: records, messages, bytes, records lost, what is wrong; {} without."""
        if self._claim is None:
            return {}
        with self._changed:
            recorded = dict(self._recorded)
        summed = ("records", "messages", "raw_bytes", "stored_bytes", "lost_records", "lost_bytes", "writer_seconds")
        troubles = [f"{name}: {figures['trouble']}" for name, figures in sorted(recorded.items()) if figures["trouble"]]
        total = {name: sum(figures[name] for figures in recorded.values()) for name in summed}
        return {**total, "trouble": "; ".join(troubles)}

    @property
    def status(self) -> str:
        """What the engine is doing, in words; "running" when all is well."""
        with self._changed:
            if self.failure is not None:
                return f"failed: {self.failure}"
            if self._stop.is_set():
                return "stopped"
            doing = "; ".join(self._missing.values()) or ("running" if self._running else self._doing)
            return "; ".join((doing, *self._given_up.values()))

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: "core", "feed deribit", …; of those that run."""
        return {child.name: child.pid for child in self._children if child.pid is not None}

    @property
    def idle_seconds(self) -> float:
        """How long nobody has been connected to the stream; 0 while somebody is."""
        return float(self._stream.get("idle_seconds", 0.0))

    @property
    def stream_figures(self) -> dict[str, Any]:
        """Counts of the stream server: clients, frames_sent, bytes_sent, frames_skipped, …"""
        return dict(self._stream)

    def wait_ready(self, timeout: float) -> None:
        """Until a frame with a surface has been made and every feed that goes on is whole, or one is and 10 s have passed.

        Raises:
            EngineError: not so within `timeout` seconds, saying what is missing; or the engine has failed or was stopped.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready or self.failure or self._stop.is_set(), timeout):
                raise EngineError(f"the engine was not ready after {timeout:g} s: {self.status}")
        if self.failure is not None:
            raise EngineError(self.failure)
        if not self._ready:
            raise EngineError("the engine was stopped before it was ready")

    def summary(self) -> dict[str, float]:
        """Figures since the engine was first ready, under the keys that `volsurf live --json` prints."""
        with self._changed:
            return self._figures.summary(time.monotonic())

    def stop(self, timeout: float = 5.0) -> None:
        """End all processes and close the stream; safe to call twice."""
        self._stop.set()
        self._wake()
        self._thread.join(timeout + 5.0)
        with self._changed:
            self._changed.notify_all()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # closed: the supervisor has ended
            self._wake_writer.send(b"\0")

    def _record(self, path: str | os.PathLike[str], options: Mapping[str, Any] | None) -> None:
        from msgspec import to_builtins

        from volsurf.capture.directory import claim, make_options

        chosen = make_options(dict(options or {}))
        self._claim = claim(path, {"venues": self.venues, "underlyings": self.underlyings})
        recorded = {"path": str(self._claim.path), "id": self._claim.id, "options": to_builtins(chosen)}
        for settings in (self._core_settings, *self._feed_settings):
            settings["capture"] = recorded

    # --- the supervising thread: every child is started from it, because Linux ties a child's life to its parent thread
    def _supervise(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_reader, selectors.EVENT_READ)
                while not self._stop.is_set() and self.failure is None:
                    self._start_missing(selector)
                    for key, _ in selector.select(0.1):
                        if isinstance(key.data, Child):
                            self._hear(key.data)
                    self._bury(selector)
        except Exception as error:
            _log.exception("the engine's supervisor failed")
            self._fail(f"the engine's supervisor failed: {type(error).__name__}: {error}")
        finally:
            self._end_children()
            for sock in (self._wake_reader, self._wake_writer, self._listener):
                sock.close()
            if self._claim is not None:
                self._claim.release()

    def _start_missing(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        started = False
        with self._changed:
            self._missing = {
                child.name: why for child in self._children if (why := self._missing.get(child.name)) and not child.pid
            }
        if self._core.may_start(now):
            self._core.start()
            selector.register(self._core.channel, selectors.EVENT_READ, self._core)
            listener = self._listener.dup()
            self._core.channel.send_sockets(self._core_settings, [listener])
            for feed in self._feeds:
                self._tell_given_up(feed)
            started = True
        for feed, settings in zip(self._feeds, self._feed_settings, strict=True):
            fresh = feed.name not in self._given_up and feed.may_start(now)
            if fresh:
                feed.start()
                selector.register(feed.channel, selectors.EVENT_READ, feed)
                feed.channel.send(settings)
            if (
                (fresh or started or feed.name in self._unlinked)
                and feed.name not in self._given_up
                and feed.pid is not None
                and self._core.pid is not None
            ):
                # An end is new or was closed: the pair is replaced as a whole, and the feed begins with all it knows.
                self._unlinked.discard(feed.name)
                feed_end, core_end = open_link()
                # Numbered, so that a capture can tell which of what a feed sent which core took.
                self._links += 1
                self._core.channel.send_sockets(
                    {"op": "link", "feed": settings["feed"], "link": self._links}, [core_end]
                )
                feed.channel.send_sockets({"op": "link", "link": self._links}, [feed_end])

    def _hear(self, child: Child) -> None:
        for message in child.channel.receive():
            with self._changed:
                match message["op"]:
                    case "status":
                        self._doing = str(message["text"])
                    case "report":
                        figures = message["figures"]
                        self._figures.report(time.monotonic(), float(message["seconds"]), figures)
                        self._stream = dict(message["stream"])
                        if figures["frames"] > 0:
                            child.succeeded()
                    case "capture":
                        self._recorded[child.name] = message["figures"]
                    case "alive":
                        child.succeeded()
                    case "unlinked":
                        self._unlinked.add(child.name)
                        if self._core.pid is not None and not self._stop.is_set():
                            _log.warning("the link of the %s process to the core broke; a new one is made", child.name)
                    case "ready":
                        self._ready = self._running = True
                        self._figures.ready(time.monotonic())
                        self._changed.notify_all()
                    case "failed":
                        self._give_up(child, f"{child.name}: {message['text']}")

    def _bury(self, selector: selectors.BaseSelector) -> None:
        for child in self._children:
            status = child.poll()
            if status is None:
                continue
            self._hear(child)  # its last words
            selector.unregister(child.channel)
            child.channel.close()
            if self._stop.is_set() or self.failure is not None or child.name in self._given_up:
                continue
            self.restarts += 1
            if child is self._core:
                with self._changed:
                    self._running, self._doing = False, "starting"
                    self._figures.core_ended()
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            if child.failures >= FAILURES_IN_A_ROW:
                self._give_up(
                    child, f"the {child.name} process {how}, {child.failures} times without a frame in between"
                )
                continue
            delay = child.back_off(time.monotonic())
            with self._changed:
                self._missing[child.name] = f"the {child.name} process {how}; it starts again in {delay:.1f} s"
            _log.warning("%s", self._missing[child.name])

    def _give_up(self, child: Child, sentence: str) -> None:
        # A venue that lists nothing of what was asked for, or whose process cannot live, takes none of the others with it.
        others = [feed for feed in self._feeds if feed is not child and feed.name not in self._given_up]
        if child is self._core or not others:
            self._fail("; ".join((*self._given_up.values(), sentence)))
            return
        self._given_up[child.name] = sentence
        _log.warning("%s", self._given_up[child.name])
        self._tell_given_up(child)

    def _tell_given_up(self, feed: Child) -> None:
        """Have every frame say it, also those of a core that starts later."""
        sentence = self._given_up.get(feed.name)
        if sentence is not None and self._core.pid is not None:
            number = self._feeds.index(feed)
            told = {"feed": number, "name": self.venues[number], "text": sentence.removeprefix(f"{feed.name}: ")}
            self._core.channel.send({"op": "failed", **told})

    def _fail(self, why: str) -> None:
        with self._changed:
            self.failure = self.failure or why
            self._changed.notify_all()

    def _end_children(self) -> None:
        children = [child for child in (*self._feeds, self._core) if child.pid is not None]
        for child in children:
            child.channel.send({"op": "stop"})
        deadline = time.monotonic() + 3.0
        for child in children:
            child.end(deadline)
            self._hear(child)
            child.channel.close()
        with self._changed:
            self._changed.notify_all()
