"""A panel that shows a stream of frames: leases, hand-shake, pacing, and nothing sent to anyone who is not looking.

A view in the browser says `ready` when it mounts or becomes visible again and then `hb` once a second; each renews a lease
of a few seconds. Without a lease nothing is encoded or sent, so a closed tab, a sleeping laptop or a kernel nobody watches
costs nothing. Frames are sent from the engine client's own thread, which a running cell does not block.

What the browser sends is treated as hostile: unknown messages, wrong types and out-of-range values are counted and dropped.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import anywidget
import traitlets

from volsurf.errors import NotReadyError
from volsurf.widgets._payload import feed_age

if TYPE_CHECKING:
    from volsurf.engine.frame import Frame

_log = logging.getLogger("volsurf.widgets")

LEASE = 5.0
"""Seconds a view is served after it was last heard of."""
BUSY_LEASE = 600.0
"""Seconds it is served at full rate while the kernel runs a cell, because its heartbeats then wait behind the cell unread."""
LONGEST_LEASE = 7200.0
"""Seconds it is served, one frame a second, when the cell runs even longer. Nobody may be there any more, and the notebook server
keeps what it cannot deliver: at 10 kB a frame this bounds it to 70 MB on top of the 60 MB before."""
SLOWEST = 2.0
"""Longest interval between frames, in seconds, that a slow browser can ask for."""

THEMES = ("follow", "light", "dark")
COLOUR_MAPS = ("viridis", "cividis", "ember")


class FrameSource(Protocol):
    """What a panel needs of a session."""

    @property
    def frame(self) -> Frame:
        """The newest frame; `NotReadyError`, saying what is waited for, before there is one."""

    @property
    def status(self) -> str:
        """What is wrong, in words; "" while frames come."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the engine."""

    def on_frame(self, fn: Callable[[Frame], None]) -> Callable[[], None]:
        """Call `fn` with every frame, in the client's thread; returns what ends it."""


class KernelPulse:
    """Whether the thread that runs cells is busy: a callback posted on its event loop has not come back.

    `loop` is the loop that runs cells, or None outside a kernel, where nothing is ever busy.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._posted: float | None = None
        self._answered = -math.inf

    @classmethod
    def of_this_thread(cls) -> KernelPulse:
        """The pulse of the kernel whose cell is running now."""
        try:
            return cls(asyncio.get_running_loop())
        except RuntimeError:
            return cls(None)

    def busy(self) -> bool:
        """True while a question asked at least half a second ago is unanswered. Asks anew, once a second."""
        if self._loop is None or self._loop.is_closed():
            return False
        now = self._clock()
        if self._posted is not None:
            return now - self._posted > 0.5
        if now - self._answered > 1.0:
            self._posted = now
            self._loop.call_soon_threadsafe(self._answer)
        return False

    def _answer(self) -> None:
        self._answered = self._clock()
        self._posted = None


class LiveView(anywidget.AnyWidget):
    """Base of the panels. A panel names its module and encodes a frame; see `SurfacePanel` for the smallest whole one.

    Args:
        source: a session.
        underlying: which one to show; "" for the first the frames carry.
        theme: "follow" the notebook, "light" or "dark".
    """

    every: ClassVar[float] = 0.0
    """Seconds between frames at least."""
    browser_traits: ClassVar[frozenset[str]] = frozenset({"underlying"})
    """Traits the browser may set."""

    underlying = traitlets.Unicode("").tag(sync=True)
    theme = traitlets.Enum(THEMES, "follow").tag(sync=True)

    def __init__(self, source: FrameSource, **settings: Any) -> None:
        allowed = {name for name in self.class_trait_names(sync=True) if not name.startswith("_")}
        if unknown := sorted(set(settings) - allowed):
            raise TypeError(
                f"{type(self).__name__} has no setting {unknown[0]!r}; there are: {', '.join(sorted(allowed))}"
            )
        self._clock = time.monotonic
        self._source = source
        self._pulse = KernelPulse.of_this_thread()
        self._lock = threading.Lock()
        self._heard_at = -math.inf
        self._served_at = -math.inf
        self._draw_seconds = 0.0
        self._on_screen: object | None = None
        self._failed = ""
        self.refused = 0
        """Messages of the browser that were dropped because they made no sense."""
        self.payloads = 0
        """Frames sent with data."""
        self.payload_bytes = 0
        """Bytes of data sent."""
        super().__init__(**settings)
        self.on_msg(self._heard)
        self._unsubscribe = source.on_frame(self._offer)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.underlying or 'first underlying'})"

    def close(self) -> None:
        """Stop following the source and remove every view of the panel."""
        # ipywidgets also calls this from __del__, which runs for an object whose construction failed as well.
        if (unsubscribe := self.__dict__.pop("_unsubscribe", None)) is not None:
            unsubscribe()
        super().close()

    # --- what a panel fills in ------------------------------------------------------------------------------------
    def content(self, frame: Frame) -> object:
        """What the panel shows of a frame. While the very same object comes back, no data is sent again."""
        raise NotImplementedError

    def encode(self, frame: Frame) -> bytes:
        """The payload of a frame."""
        raise NotImplementedError

    # --- frames out: the client's thread -------------------------------------------------------------------------
    def _offer(self, frame: Frame) -> None:
        if not self._due():
            return
        try:
            self._show(frame)
        except Exception as error:
            # One panel's fault must not reach the stream that feeds the others, and must not fill the log ten times a second.
            if (told := f"{type(error).__name__}: {error}") != self._failed:
                self._failed = told
                _log.exception("%r could not show frame %s", self, frame.number)
                self._say("failed", f"this panel could not draw the frame ({told})")

    def _due(self) -> bool:
        now = self._clock()
        silent = now - self._heard_at
        # Asked while the lease still runs, too: the answer must be known when it ends.
        busy = silent <= LONGEST_LEASE and self._pulse.busy()
        if silent > LEASE and not busy:
            return False
        # A browser that needs 200 ms to draw gets no more than it can draw; the rest of its thread is left to the page.
        wait = max(self.every, min(1.25 * self._draw_seconds, SLOWEST) if self._draw_seconds > 0.06 else 0.0)
        if silent > BUSY_LEASE:
            wait = max(wait, 1.0)
        if now - self._served_at < wait:
            return False
        self._served_at = now
        return True

    def _show(self, frame: Frame) -> None:
        with self._lock:
            content = self.content(frame)
            if content is not None and content is self._on_screen:
                facts = {"number": frame.number, "time_ms": frame.time_ns / 1e6, "feed_age": feed_age(frame)}
                self.send({"k": "tick", **facts})
                return
            payload = self.encode(frame)
            self._on_screen = content
            self._failed = ""
            self.payloads += 1
            self.payload_bytes += len(payload)
            self.send({"k": "frame", "feed_age": feed_age(frame)}, [payload])

    def _say(self, state: str, text: str) -> None:
        self.send({"k": "state", "state": state, "text": text[:300]})

    # --- messages in: the kernel's main thread, or any other -----------------------------------------------------
    def _heard(self, _widget: object, message: object, _buffers: object) -> None:
        kind = message.get("k") if isinstance(message, dict) else None
        if kind not in ("ready", "hb"):
            self.refused += 1
            return
        assert isinstance(message, dict)
        draw = message.get("ms", 0.0)
        if isinstance(draw, bool) or not isinstance(draw, int | float) or not 0.0 <= draw <= 60_000.0:
            self.refused += 1
            return
        self._draw_seconds = float(draw) / 1e3
        self._heard_at = self._clock()
        self._answer(again=kind == "ready")

    def _answer(self, *, again: bool) -> None:
        source = self._source
        try:
            frame = source.frame
        except NotReadyError as waiting:
            self._say("waiting", str(waiting))
            return
        if again:
            self._on_screen = None
            self._offer(frame)
        if status := source.status:
            self._say("stale" if source.connected else "disconnected", status)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the browser changed: only traits it may set, only values they accept."""
        taken = {name: value for name, value in sync_data.items() if name in self.browser_traits}
        self.refused += len(sync_data) - len(taken)
        for name, value in taken.items():
            try:
                super().set_state({name: value})
            except (traitlets.TraitError, TypeError, ValueError, OverflowError):
                self.refused += 1

    @traitlets.validate("underlying")  # type: ignore[untyped-decorator]
    def _one_word(self, proposal: dict[str, Any]) -> str:
        name: str = proposal["value"]
        if len(name) > 24 or not all(c.isalnum() or c in "_-." for c in name):
            raise traitlets.TraitError(f"an underlying is a short name such as 'BTC', was {name[:40]!r}")
        return name

    @traitlets.observe("underlying")  # type: ignore[untyped-decorator]
    def _another(self, _change: object) -> None:
        self._on_screen = None
        if self._heard_at > -math.inf:
            self._answer(again=True)


def shown_underlying(frame: Frame, wanted: str) -> str:
    """The underlying to show: the one wanted, else the first the frame carries, else ""."""
    if wanted:
        return wanted
    return next(iter(frame.surfaces), "")
