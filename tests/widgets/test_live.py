"""A live view serves whoever looks, believes nobody, and keeps its faults to itself."""

from __future__ import annotations

import asyncio
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.conftest import ROOT
from tests.widgets import small_market as market
from volsurf.diagnostics.trouble import attention
from volsurf.engine.log import Liveness
from volsurf.surface.surface import Surface
from volsurf.widgets import Dashboard, SmilesPanel, StatusPanel, SurfacePanel
from volsurf.widgets.live import BUSY_LEASE, LEASE, LONGEST_LEASE, KernelPulse, LiveView

Panel = Callable[..., Any]


class Watched:
    """A panel with its clock in our hands and what it sends in a list."""

    def __init__(self, kind: type[LiveView] = SurfacePanel, **given: object) -> None:
        self.source = market.Source()
        self.panel = kind(self.source, **given)
        self.now = 100.0
        self.sent: list[tuple[dict[str, Any], Any]] = []
        self.panel._clock = lambda: self.now
        self.panel.send = lambda content, buffers=None: self.sent.append((content, buffers))

    def says(self, message: object) -> None:
        self.panel._handle_custom_msg(message, [])

    def kinds(self) -> list[str]:
        kinds = [content["k"] for content, _ in self.sent]
        self.sent.clear()
        return kinds


def test_nothing_is_sent_to_nobody() -> None:
    view = Watched()
    view.source.push(market.frame(1))
    assert view.sent == []
    assert view.panel.payloads == 0


def test_ready_is_answered_with_the_newest_frame_and_later_ones_follow() -> None:
    view = Watched()
    view.source.push(market.frame(1))
    view.says({"k": "ready"})
    assert view.kinds() == ["frame"]
    view.source.push(market.frame(2))
    content, buffers = view.sent[-1]
    assert content["k"] == "frame"
    assert type(buffers[0]) is bytes  # sent later by another thread: a view of an array would tear


def test_a_lease_ends_and_a_heartbeat_renews_it() -> None:
    view = Watched()
    view.says({"k": "ready"})
    view.now += LEASE - 0.1
    view.source.push(market.frame(1))
    view.says({"k": "hb"})
    view.now += LEASE - 0.1
    view.source.push(market.frame(2))
    view.now += 0.2
    view.source.push(market.frame(3))
    assert view.kinds() == ["state", "frame", "frame"]


def test_before_the_first_frame_the_view_is_told_what_is_waited_for() -> None:
    view = Watched()
    view.says({"k": "ready"})
    content, _ = view.sent[0]
    assert content == {"k": "state", "state": "waiting", "text": "waiting for the first frame: compiling kernels…"}


def test_a_lost_engine_is_told_with_its_reason() -> None:
    view = Watched()
    view.source.push(market.frame(1))
    view.source.status, view.source.connected = "no connection to the engine (nothing listens there)", False
    view.says({"k": "hb"})
    content, _ = view.sent[-1]
    assert content["state"] == "disconnected"
    assert "nothing listens" in content["text"]


def test_an_unchanged_surface_is_not_sent_again() -> None:
    view = Watched()
    view.says({"k": "ready"})
    first = market.frame(1)
    view.source.push(first)
    again = market.frame(2)
    object.__setattr__(again, "surfaces", first.surfaces)
    view.source.push(again)
    assert view.kinds() == ["state", "frame", "tick"]
    view.says({"k": "ready"})  # a page that was reloaded has nothing yet
    assert view.kinds() == ["frame"]


def test_another_underlying_is_shown_at_once() -> None:
    view = Watched(SmilesPanel)
    view.source.push(market.frame(1))
    view.says({"k": "ready"})
    view.kinds()
    view.panel.set_state({"underlying": "ETH"})
    assert view.panel.underlying == "ETH"
    assert view.kinds() == ["frame"]


def test_a_slow_browser_gets_what_it_can_draw() -> None:
    view = Watched()
    view.says({"k": "ready", "ms": 400.0})
    for number in range(1, 41):  # four seconds of frames
        view.source.push(market.frame(number))
        view.now += 0.1
        view.says({"k": "hb", "ms": 400.0})
    assert 7 <= view.kinds().count("frame") <= 9


@pytest.mark.parametrize(
    "message",
    [None, 3, "ready", [], {}, {"k": "exec"}, {"k": ["hb"]}, {"k": "hb", "ms": "9"}, {"k": "hb", "ms": math.nan},
     {"k": "hb", "ms": -1}, {"k": "hb", "ms": 1e9}, {"k": "hb", "ms": True}, {"k": "hb", "ms": None}],
)  # fmt: skip
def test_nonsense_is_counted_and_gives_no_lease(message: object) -> None:
    view = Watched()
    view.says(message)
    view.source.push(market.frame(1))
    assert view.sent == []
    assert view.panel.refused == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=40), lambda s: st.lists(s, max_size=4), max_leaves=6
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["underlying", "camera", "axis", "theme", "_esm", "reach", "layout", "x"]), json_values
    )
)
def test_no_state_from_the_browser_breaks_or_takes_over_a_panel(state: dict[str, Any]) -> None:
    view = VIEW
    module = view.panel._esm
    view.panel.set_state(state)
    assert view.panel._esm == module
    assert view.panel.theme == "follow"
    assert view.panel.reach == 2.5
    assert len(view.panel.underlying) <= 24
    assert all(math.isfinite(x) for x in view.panel.camera)
    assert view.panel.axis in ("delta", "log_moneyness")


VIEW = Watched()


def test_a_panel_that_cannot_draw_says_so_and_leaves_the_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    view = Watched()

    def broken(frame: object) -> bytes:
        raise ZeroDivisionError("no years")

    view.panel.encode = broken
    view.says({"k": "ready"})
    with caplog.at_level(logging.ERROR, "volsurf.widgets"):
        for number in range(1, 6):
            view.source.push(market.frame(number))
    assert [c["state"] for c, _ in view.sent if c["k"] == "state"] == ["waiting", "failed"]
    assert len(caplog.records) == 1, "one report, not ten a second"
    del view.panel.encode
    view.source.push(market.frame(9))
    assert view.sent[-1][0]["k"] == "frame"


@pytest.mark.parametrize("kind", [SurfacePanel, SmilesPanel, StatusPanel, Dashboard])
def test_an_unknown_setting_is_refused_with_those_there_are(kind: Panel) -> None:
    with pytest.raises(TypeError, match=r"no setting 'colormap'; there are: .*theme"):
        kind(market.Source(), colormap="jet")


def test_a_setting_out_of_range_is_refused() -> None:
    import traitlets

    for wrong in (
        {"reach": 9.0},
        {"axis": "strike"},
        {"camera": [0.0, 0.0]},
        {"camera": [0.0, 9.0, 1.0]},
        {"underlying": "B T C!"},
    ):
        with pytest.raises(traitlets.TraitError):
            SurfacePanel(market.Source(), **wrong)


def test_reprs_are_one_short_line() -> None:
    source = market.Source()
    assert repr(SurfacePanel(source, underlying="ETH")) == "SurfacePanel(ETH)"
    assert repr(Dashboard(source)) == "Dashboard(first underlying)"


def test_closing_ends_the_subscription() -> None:
    source = market.Source()
    dashboard = Dashboard(source)
    assert len(source.listeners) == 3
    dashboard.close()
    dashboard.close()
    assert source.listeners == []


def test_the_panels_of_a_dashboard_follow_one_choice() -> None:
    dashboard = Dashboard(market.Source(), underlying="BTC", colours="cividis", theme="dark")
    assert dashboard.surface.colours == "cividis"
    dashboard.status.set_state({"underlying": "ETH"})
    assert (dashboard.underlying, dashboard.surface.underlying, dashboard.smiles.underlying) == ("ETH", "ETH", "ETH")
    dashboard.theme = "light"
    assert {p.theme for p in (dashboard.status, dashboard.surface, dashboard.smiles)} == {"light"}


def test_status_counts_rates_and_certificates() -> None:
    from tests.widgets.test_payload import read

    view = Watched(StatusPanel)
    view.says({"k": "ready"})
    for number in range(1, 40):
        view.now += 0.1
        view.says({"k": "hb"})
        view.source.push(market.frame(number))
    header, _ = read([b for c, b in view.sent if c["k"] == "frame"][-1][0])
    assert header["messages_per_second"] == pytest.approx(12_340, rel=1e-6)
    assert (header["listed"], header["fitted"], header["certified"]) == (12, 12, 9)
    assert header["frame_ms"] == 4.2
    assert header["feed"] == "deribit ready"
    surface = view.source.frame.surfaces["BTC"]
    assert header["atm"] == pytest.approx(float(surface.vol(k=0.0, years=30 / 365)), rel=1e-6)
    assert header["atm_error"] == pytest.approx(float(surface.vol_error(k=0.0, years=30 / 365)), rel=1e-6)
    assert header["attention"] == attention(surface.smiles) != []
    assert 18 <= sum(c["k"] == "frame" for c, _ in view.sent) <= 21, "five a second are enough for text"


def test_status_has_a_line_for_each_feed() -> None:
    from tests.widgets.test_payload import read

    panel = StatusPanel(market.Source())
    panel._rates(market.frame(10, feeds=market.four_feeds(10)))
    header, _ = read(panel.encode(market.frame(20, feeds=market.four_feeds(20))))
    assert header["feed"] == "3 of 4 venues"
    assert header["messages_per_second"] == pytest.approx(20_010)
    deribit, okx, bybit, binance = header["feeds"]
    assert [f["name"] for f in header["feeds"]] == ["deribit", "okx", "bybit", "binance"]
    assert deribit["messages_per_second"] == pytest.approx(12_340)
    assert (deribit["lag"], deribit["skew"], deribit["age"], deribit["silent"]) == ([5.2, 18.0], 3.4, [92.0, 640.0], [])
    assert (okx["gaps"], okx["resyncs"], okx["takeovers"], okx["crossed"]) == (12, 11, 1, 3)
    assert (bybit["live"], bybit["state"], bybit["left_out"]) == (False, "late", ["BTC", "ETH"])
    assert binance["silent"] == [["index BTCUSDT", 14_200.0, 10_000.0]]
    header, _ = read(panel.encode(market.frame(30, feeds={"x": market.status(liveness=Liveness())})))
    assert header["feeds"][0]["lag"] == [None, None]
    assert header["feeds"][0]["skew"] is None


def test_panels_load_no_kernels() -> None:
    code = (
        "import sys; from tests.widgets import small_market as market; from volsurf.widgets import *;"
        "panels = [kind(market.Source()) for kind in (SurfacePanel, SmilesPanel, StatusPanel)];"
        "sizes = [len(panel.encode(market.frame(1))) for panel in panels]; assert min(sizes) > 300;"
        "print(sorted({'numba', 'scipy', 'pandas', 'polars', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]", "a notebook's kernel that only looks stays 60 MB lighter"


def test_status_has_no_month_vol_where_the_surface_does_not_reach_so_far() -> None:
    from tests.widgets.test_payload import read

    frame = market.frame(1)
    near = Surface("BTC", frame.time_ns, frame.surfaces["BTC"].smiles[:4])
    header, _ = read(StatusPanel(market.Source()).encode(replace(frame, surfaces={"BTC": near})))
    assert header["atm"] is None
    assert header["atm_error"] is None
    bare = tuple(s.with_fit(None) for s in frame.surfaces["BTC"].smiles)
    header, _ = read(
        StatusPanel(market.Source()).encode(replace(frame, surfaces={"BTC": Surface("BTC", frame.time_ns, bare)}))
    )
    assert (header["atm"], header["attention"]) == (None, [])


def test_status_survives_a_feed_that_starts_again_and_a_clock_set_back() -> None:
    panel = StatusPanel(market.Source())
    first, later = market.frame(10), market.frame(20)
    panel._rates(later)
    assert panel._rates(first) == {}
    again = market.frame(30)
    object.__setattr__(again, "health", {"deribit": market.status(3)})
    assert panel._rates(again) == {}


def test_a_feed_that_joins_has_no_rate_before_it_has_two_readings() -> None:
    panel = StatusPanel(market.Source())
    for number in (10, 20):
        panel._rates(market.frame(number))
    assert list(panel._rates(market.frame(30, feeds=market.four_feeds(30)))) == ["deribit"]
    for number in (40, 50, 60, 70):
        rates = panel._rates(market.frame(number, feeds=market.four_feeds(number)))
    assert rates == pytest.approx({"deribit": 12_340, "okx": 4_100, "bybit": 970, "binance": 2_600})


class Loop:
    """An event loop that runs what is posted when told to, or never while a cell blocks it."""

    def __init__(self) -> None:
        self.posted: list[Callable[[], None]] = []

    def is_closed(self) -> bool:
        return False

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self.posted.append(callback)

    def turn(self) -> None:
        while self.posted:
            self.posted.pop()()


def frames_while(view: Watched, seconds: float, turn: Callable[[], None]) -> int:
    view.sent.clear()
    for number in range(1, round(seconds * 10) + 1):
        view.now += 0.1
        turn()
        view.source.push(market.frame(number, ("ETH",)))
    return view.kinds().count("frame")


def test_a_running_cell_does_not_end_the_lease_but_a_closed_tab_does() -> None:
    view, loop = Watched(), Loop()
    view.panel._pulse = KernelPulse(loop, lambda: view.now)  # type: ignore[arg-type]
    view.says({"k": "ready"})
    assert frames_while(view, 4.0, loop.turn) == 40
    view.says({"k": "hb"})
    # The heartbeats wait behind the cell, unread; whoever looks goes on seeing frames.
    assert frames_while(view, 12.0, lambda: None) == 120
    # The cell ends, and no heartbeat was waiting: the tab had been closed.
    loop.turn()
    assert frames_while(view, 3.0, loop.turn) == 0


def test_a_very_long_cell_is_served_slowly_and_not_for_ever() -> None:
    view, loop = Watched(), Loop()
    view.panel._pulse = KernelPulse(loop, lambda: view.now)  # type: ignore[arg-type]
    view.says({"k": "ready"})
    frames_while(view, 3.0, lambda: None)
    view.now += BUSY_LEASE
    assert 4 <= frames_while(view, 5.0, lambda: None) <= 6
    view.now += LONGEST_LEASE
    assert frames_while(view, 2.0, lambda: None) == 0


def test_the_pulse_of_a_real_loop() -> None:
    async def main() -> tuple[bool, bool, bool]:
        now = 0.0
        pulse = KernelPulse(asyncio.get_running_loop(), lambda: now)
        idle = pulse.busy()
        now = 2.0  # the question is two seconds old and the loop has not turned: somebody computes
        blocked = pulse.busy()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return idle, blocked, pulse.busy()

    assert asyncio.run(main()) == (False, True, False)
    assert not KernelPulse.of_this_thread().busy()
