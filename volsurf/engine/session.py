"""The live handle a notebook holds: the newest frame of an engine, followed from a background thread.

    session = vs.live("deribit", underlyings=["BTC"])     # or vs.attach("ws://host:8765")
    session.surface("BTC").vol(k=0.0, years=30 / 365)
    session.widget()

A session holds no exchange connection and does no fitting, so a busy kernel harms only its own picture.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsurf.engine.client import StreamClient, stream_url
from volsurf.engine.loop_thread import LoopThread
from volsurf.errors import InputError, NotReadyError

if TYPE_CHECKING:
    from volsurf.engine.frame import Frame
    from volsurf.surface.surface import Surface
    from volsurf.widgets import Dashboard

_log = logging.getLogger("volsurf.session")

shared_sessions: dict[str, Session] = {}
"""Sessions of this process on shared engines, by the engine's name."""
_attached: weakref.WeakValueDictionary[tuple[str, tuple[str, ...]], Session] = weakref.WeakValueDictionary()
"""Sessions that `attach` gave out, by address and underlyings; weakly, since one that nobody holds is to leave its engine."""
shared_lock = threading.Lock()
STALE_SECONDS = 3.0
"""Age of the newest frame from which `status` speaks of it."""


class Session:
    """Follows one engine. Every method may be called from any thread; `stop()` or leaving a `with` block ends it for all.

    One of a shared engine follows it by name: it goes on with the next engine of that name, wherever that listens.
    """

    def __init__(self, url: str, *, underlyings: Sequence[str] = (), engine_name: str | None = None) -> None:
        self.underlyings = tuple(underlyings)
        """What is wanted; empty for everything the engine has."""
        self.engine_name = engine_name
        """Of a shared engine, or None."""
        self._condition = threading.Condition()
        self._frame: Frame | None = None
        self._arrived = 0.0
        self._subscribers: dict[object, Callable[[Frame], None]] = {}
        self._stopped = False
        self.callback_failures = 0
        """Exceptions that callbacks of `on_frame` raised; each was logged."""
        find = None if engine_name is None else functools.partial(_address_of, engine_name, self.underlyings)
        self._client = StreamClient(url, _weakly(self), want=self.underlyings, find=find)
        self._loop = LoopThread.shared()
        self._ended = threading.Event()
        self._task: concurrent.futures.Future[None] = self._loop.submit(_follow(self._client, self._ended))
        # A session that nobody holds any more, because a cell was run again, leaves the engine too.
        weakref.finalize(self, self._task.cancel)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        what = self.status or f"frame {self.frame.number}, {self.age:.1f} s old"
        return f"Session({self.url}, {what})"

    def _repr_html_(self) -> str:
        from volsurf.engine.session_html import session_html

        return session_html(self)

    @property
    def url(self) -> str:
        """Address of the engine's stream."""
        return self._client.url

    @property
    def capture_path(self) -> Path | None:
        """Where the shared engine of this session records; None where it does not, has ended, or is not a shared one."""
        from volsurf.engine import rendezvous

        record = None if self.engine_name is None else rendezvous.look(self.engine_name)
        return None if record is None or record.capture_path is None else Path(record.capture_path)

    @property
    def stopped(self) -> bool:
        """It will not go on."""
        return self._stopped

    @property
    def is_alive(self) -> bool:
        """It follows its engine, or waits for it; False after `stop()` and in a process that was forked from its own."""
        return not self._stopped and not self._task.done() and self._loop is LoopThread.shared()

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the engine now."""
        return self._client.connected and not self._stopped

    @property
    def status(self) -> str:
        """What is being waited for, in words; "" while frames come."""
        if self._stopped:
            return "this session was stopped"
        if self._task.done():
            return "this session's task has ended unexpectedly: attach again"
        if self._client.status:
            return self._last_words() or self._client.status
        if (frame := self._frame) is None:
            return "waiting for the first frame"
        if self.age > STALE_SECONDS:
            return f"no frame for {self.age:.0f} s: the engine is suspended or overloaded"
        if frame.surfaces:
            return ""
        feeds = [f"{status.name}: {status.sentence}" for status in frame.health.values()]
        return "; ".join(["waiting for the first surface", *feeds, *(problem.sentence for problem in frame.problems)])

    @property
    def frame(self) -> Frame:
        """The newest frame; `NotReadyError`, saying what is waited for, before there is one with a surface.

        After a lost connection it is the last frame that came: `age` tells how old it is, `status` what happened.
        """
        frame = self._frame
        if frame is None or not frame.surfaces:
            raise NotReadyError(self.status)
        return frame

    @property
    def age(self) -> float:
        """Seconds since the newest frame arrived; infinite before the first."""
        return float("inf") if self._frame is None else time.monotonic() - self._arrived

    @property
    def health(self) -> dict[str, Any]:
        """Connection, age, feeds, problems and counts."""
        frame = self._frame
        return {
            "connected": self.connected,
            "status": self.status,
            "age_seconds": self.age,
            "frame": frame and frame.number,
            "feeds": dict(frame.health) if frame else {},
            "problems": frame.problems if frame else (),
            "callback_failures": self.callback_failures,
            "last_error": self._client.last_error,
            **self._client.counters,
        }

    def surface(self, underlying: str) -> Surface:
        """The newest surface of an underlying; `NotReadyError` where there is none (yet)."""
        frame = self.frame
        try:
            return frame.surfaces[underlying]
        except KeyError:
            have = ", ".join(frame.surfaces)
            why = "it is listed but not fitted yet" if underlying in frame.listed else "it is not listed there"
            raise NotReadyError(f"no surface of {underlying!r} ({why}); there are: {have}") from None

    def wait(self, timeout: float | None = 120.0) -> Frame:
        """The newest frame, as soon as it has a surface of every underlying wanted; `NotReadyError` after `timeout` seconds.

        The first engine on a machine compiles its kernels, which takes about a minute.
        """
        self._not_on_loop("wait")

        def ready() -> bool:
            have = self._frame.surfaces if self._frame is not None else {}
            return self._stopped or (bool(have) and all(name in have for name in self.underlyings))

        with self._condition:
            if not self._condition.wait_for(ready, timeout) or self._stopped:
                missing = [name for name in self.underlyings if self._frame is None or name not in self._frame.surfaces]
                what = self.status or f"waiting for {', '.join(missing)}"
                raise NotReadyError(what if self._stopped else f"not ready after {timeout:g} s: {what}")
        return self.frame

    def frames(self) -> Iterator[Frame]:
        """Every new frame from now on, the newest where several came meanwhile; ends with the session."""
        self._not_on_loop("frames")
        last: Frame | None = None
        while True:
            with self._condition:
                while not self._stopped and (self._frame is None or self._frame is last):
                    self._condition.wait()
                if self._stopped:
                    return
                last = self._frame
            if last is not None and last.surfaces:
                yield last

    def on_frame(self, fn: Callable[[Frame], None]) -> Callable[[], None]:
        """Call `fn` with every new frame that has a surface, in the background thread; returns what ends it.

        `fn` must be quick: while it runs no frame is taken. What it raises is logged and counted, and it is called again.
        """
        key = object()
        with self._condition:
            self._subscribers[key] = fn

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    def widget(self, **settings: Any) -> Dashboard:
        """Live panels: status, surface and smiles; the settings are those of `volsurf.widgets.Dashboard`."""
        from volsurf.widgets import Dashboard

        return Dashboard(self, **settings)

    def try_now(self) -> None:
        """Where there is no connection, look for the engine at once instead of after the pause between two attempts."""
        self._loop.loop.call_soon_threadsafe(self._client.try_now)

    def stop(self, *, engine: bool = False) -> None:
        """Leave the engine; a shared one ends by itself when its last client has left, or now, for everybody, with `engine`."""
        if engine and self.engine_name is None:
            raise InputError("this session did not start its engine; end it where it was started")
        with self._condition:
            self._stopped = True
            self._subscribers.clear()
            self._condition.notify_all()
        with shared_lock:
            if self.engine_name is not None and shared_sessions.get(self.engine_name) is self:
                del shared_sessions[self.engine_name]
        self._task.cancel()
        if not self._loop.is_current:
            # The connection is closed when this returns, so the engine knows that the client is gone.
            self._ended.wait(3.0)
        if engine and self.engine_name is not None:
            from volsurf.engine.shared import end

            end(self.engine_name)

    def _last_words(self) -> str:
        if self.engine_name is None or self._client.connected:
            return ""
        from volsurf.engine.shared import last_words

        return last_words(self.engine_name)

    def _take(self, frame: Frame) -> None:
        with self._condition:
            self._frame = frame
            self._arrived = time.monotonic()
            subscribers = list(self._subscribers.values()) if frame.surfaces else []
            self._condition.notify_all()
        for fn in subscribers:
            try:
                fn(frame)
            except Exception:
                self.callback_failures += 1
                if self.callback_failures <= 10 or self.callback_failures % 1000 == 0:
                    _log.exception("a callback of %r failed (%d times so far)", self, self.callback_failures)

    def _not_on_loop(self, what: str) -> None:
        if self._loop.is_current:
            raise RuntimeError(
                f"{what}() blocks, and this is the thread that brings the frames: use the frame you were given"
            )


def _address_of(name: str, underlyings: tuple[str, ...]) -> str | None:
    """Where the shared engine of a name listens now; None where there is none that follows these underlyings."""
    from volsurf.engine import rendezvous
    from volsurf.engine.wanted import base_currencies

    record = rendezvous.look(name)
    return record.stream_url if record and set(underlyings) <= set(base_currencies(record.underlyings)) else None


async def _follow(client: StreamClient, ended: threading.Event) -> None:
    try:
        await client.run()
    finally:
        ended.set()


def _weakly(session: Session) -> Callable[[Frame], None]:
    # The client lives on the loop; were it to hold the session, a session that a cell's re-run forgets would go on for ever.
    reference = weakref.ref(session)

    def take(frame: Frame) -> None:
        if (alive := reference()) is not None:
            alive._take(frame)

    return take


def attach(url: str, *, underlyings: Sequence[str] = ()) -> Session:
    """Join a running engine by the address of its stream; returns at once, `wait()` waits for the first frame.

    Running the cell again gives the same session, as long as it was not stopped and somebody still holds it.

    Args:
        url: `"ws://127.0.0.1:8765"`, `"host:8765"` or only the port.
        underlyings: only these; all if none is named.
    """
    key = (stream_url(str(url)), tuple(underlyings))
    with shared_lock:
        known = _attached.get(key)
        if known is None or not known.is_alive:
            known = _attached[key] = Session(key[0], underlyings=key[1])
        return known


def live(
    venues: str | Sequence[str] = "deribit",
    underlyings: Sequence[str] = ("BTC", "ETH"),
    *,
    url: str | Mapping[str, str] | None = None,
    name: str = "default",
    every: float = 0.1,
    idle_seconds: float | None = None,
    smoothing_seconds: float | None = None,
    enforce: bool = True,
    capture: str | os.PathLike[str] | None = None,
    capture_options: Mapping[str, Any] | None = None,
) -> Session:
    """Start the shared engine of a name, or join it where it runs already; running the cell again gives the same session.

    Args:
        venues: where quotes come from.
        underlyings: e.g. `["BTC", "ETH", "SOL_USDC"]`.
        url: address of the exchange instead of the public one, e.g. of `volsurf sim`; `{venue: address}` for several venues.
        name: engines of different names run side by side.
        every: seconds between frames.
        idle_seconds: how long the engine stays after its last client has left (30, or `$VOLSURF_ENGINE_IDLE_SECONDS`).
        smoothing_seconds: time constant of the temporal filter: vols jitter less, and follow a drift later by up to this time;
            jumps are followed at once. 0 for none; if not given half a second, or what the running engine has.
        enforce: surfaces free of arbitrage only; False for what the quotes alone give, with its certificates.
        capture: directory in which the engine records all it hears and makes, for `vs.replay`; beside it, as `DIR-2`, where it
            holds an earlier capture. `Session.capture_path` says where. None joins an engine whether it records or not.
        capture_options: of the engine that is started, names and values of `volsurf.capture.directory.CaptureOptions`.

    Raises:
        InputError: an unknown venue, no underlying.
        ConfigError: an option of the capture that cannot be.
        EngineError: it could not be started, or the engine of this name follows something else, by other rules, or does not
            record in `capture`.
    """
    from volsurf.engine.joining import join
    from volsurf.engine.rendezvous import SurfaceRules

    rules = SurfaceRules(smoothing_seconds=smoothing_seconds, enforce=enforce)
    at = url if url is None or isinstance(url, str) else dict(url)
    return join(
        venues,
        underlyings,
        url=at,
        name=name,
        every=every,
        idle_seconds=idle_seconds,
        rules=rules,
        capture=capture,
        capture_options=capture_options,
    )
