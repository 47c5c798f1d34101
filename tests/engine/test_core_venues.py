"""Several feeds of one underlying: one that is not live leaves the smiles, says so, and comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from tests.engine.tape import SECOND, Market
from volsurf.engine.core import Core, CoreRules
from volsurf.engine.frame import Frame
from volsurf.engine.log import (
    ChannelLiveness,
    ClockStep,
    FeedHealth,
    FeedStarted,
    FeedState,
    Liveness,
    PolicyChange,
)
from volsurf.engine.memory import Basis
from volsurf.engine.mirror import FrameMirror
from volsurf.surface.smile_columns import SmileColumns

TENTH = SECOND // 10
_AT_THE_FORWARD = np.sqrt(0.55 + 0.45 * np.sqrt(1 + 0.12 * 0.3**2))
"""Of the tape's smile, in its level."""
Spoilt = Callable[[FeedHealth], FeedHealth]


class Venues:
    """Two venues on one core. The second one's vols are 30 bp higher, about a spread, so that its part in a smile shows."""

    def __init__(self, rules: CoreRules | None = None, underlyings: tuple[str, ...] = ("BTC",)) -> None:
        self.one = Market(underlyings=("BTC",), feed=0, name="one", days=(2.0, 30.0))
        self.two = Market(underlyings=underlyings, feed=1, name="two", days=(2.0, 30.0))
        for name in underlyings:
            self.two.level[name] = 0.503
        self.now = self.one.start_ns
        self.core = Core(rules or CoreRules(smoothing_seconds=0.0))
        for market in (self.one, self.two):
            for entry in market.beginning():
                self.core.apply(entry)

    def frame(self, one: Spoilt | None = lambda h: h, two: Spoilt | None = lambda h: h, seconds: float = 0.1) -> Frame:
        """A frame after so long; a venue of None says nothing, and another's health is made what its function returns."""
        self.now += int(seconds * SECOND)
        for market, spoil in ((self.one, one), (self.two, two)):
            if spoil is not None:
                health = spoil(market.health(self.now))
                if health.state is FeedState.READY:
                    self.core.apply(market.batch(self.now))
                self.core.apply(health)
        return self.core.frame(self.now)

    def whole(self) -> Frame:
        """The first frames, with both."""
        self.frame()
        return self.frame()


def level(frame: Frame, name: str = "BTC") -> float:
    """What `Market.level` would have to be for the 30-day vol at the forward."""
    return float(frame.surfaces[name].atm_vol[1]) / _AT_THE_FORWARD


def skewed(ns: int | None) -> Spoilt:
    return lambda h: replace(h, liveness=Liveness(skew_ns=ns))


def silent_quotes(health: FeedHealth) -> FeedHealth:
    channels = (ChannelLiveness("marks", 90e3, 60e3), ChannelLiveness("quotes", 31e3, 30e3, is_vital=True))
    return replace(health, liveness=Liveness(channels=channels))


FAULTS: dict[str, tuple[Spoilt, str, str]] = {
    "disconnected": (lambda h: replace(h, state=FeedState.DISCONNECTED, detail="cut"), "disconnected", "cut"),
    "subscribing": (lambda h: replace(h, state=FeedState.SUBSCRIBING), "subscribing", "subscribing"),
    "silent": (lambda h: replace(h, last_message_ns=h.time_ns - 6 * SECOND), "silent", "nothing heard for 6 s"),
    "maintenance": (lambda h: replace(h, suspended="the platform is locked"), "maintenance", "the platform is locked"),
    "late": (skewed(7 * SECOND), "late", "7.0 s behind"),
    "quotes silent": (silent_quotes, "silent", "quotes silent for 31 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_venue_that_is_not_live_leaves_the_smile_and_says_so(fault: str) -> None:
    spoil, state, words = FAULTS[fault]
    venues = Venues()
    both = venues.whole()
    assert 0.501 < level(both) < 0.5022
    assert both.problems == ()
    frame = venues.frame(one=skewed(0), two=spoil)
    # At the very next frame.
    assert level(frame) == pytest.approx(0.5, abs=4e-4)
    assert frame.surfaces["BTC"].certificate
    status = frame.health["two"]
    assert (status.state, status.is_live, status.left_out) == (state, False, ("BTC",))
    assert words in status.sentence
    (problem,) = frame.problems
    assert problem.sentence.startswith("two: ")
    assert words in problem.sentence
    assert problem.sentence.endswith("; left out of BTC until it is whole again")
    listed = len(venues.one.instruments) + len(venues.two.instruments)
    assert sum(frame.ledger["BTC"].values()) == listed
    assert frame.ledger["BTC"]["VENUE_STALE"] == len(venues.two.instruments)
    assert frame.health["one"].is_live
    # The others go on.
    venues.one.level["BTC"] = 0.6
    assert level(venues.frame(one=skewed(0), two=spoil)) == pytest.approx(0.6, abs=2e-3)
    venues.one.level["BTC"] = 0.5
    back = venues.frame()
    assert level(back) == pytest.approx(level(both), abs=2e-4)
    assert (back.problems, back.health["two"].left_out) == ((), ())
    assert "VENUE_STALE" not in back.ledger["BTC"]


def test_when_the_last_live_venue_goes_its_surface_stays() -> None:
    venues = Venues()
    venues.whole()
    alone = venues.frame(two=None, seconds=6.0)
    assert alone.health["two"].left_out == ("BTC",)
    venues.one.level["BTC"] = 0.9
    cut: Spoilt = lambda h: replace(h, state=FeedState.DISCONNECTED)  # noqa: E731
    gone = venues.frame(one=cut, two=None)
    assert gone.surfaces["BTC"] is alone.surfaces["BTC"]
    # Neither is left out of what nobody fits.
    assert [status.left_out for status in gone.health.values()] == [(), ()]
    later = venues.frame(one=cut, two=None, seconds=2.0)
    assert later.surfaces["BTC"] is alone.surfaces["BTC"]
    # The other one comes back first, and is then the only one.
    back = venues.frame(one=cut)
    assert level(back) == pytest.approx(0.503, abs=4e-4)
    assert back.health["one"].left_out == ("BTC",)


def test_an_underlying_that_only_the_lost_venue_quotes_keeps_its_surface() -> None:
    venues = Venues(underlyings=("BTC", "ETH"))
    whole = venues.whole()
    frame = venues.frame(two=FAULTS["disconnected"][0])
    assert frame.health["two"].left_out == ("BTC",)
    assert frame.surfaces["ETH"] is whole.surfaces["ETH"]
    assert "VENUE_STALE" not in frame.ledger["ETH"]


def test_a_feed_process_that_begins_again_is_out_until_it_is_whole() -> None:
    venues = Venues()
    venues.whole()
    venues.core.apply(FeedStarted(feed=1, name="two"))
    frame = venues.frame(two=None)
    assert frame.health["two"].state == "connecting"
    assert frame.ledger["BTC"]["VENUE_STALE"] == len(venues.two.instruments)
    for entry in venues.two.beginning(venues.now):
        venues.core.apply(entry)
    assert "VENUE_STALE" not in venues.frame().ledger["BTC"]


def test_a_venue_that_has_never_been_whole_is_waited_for_only_by_itself() -> None:
    """While no feed is whole all quotes count, as they do for a single one; then those of a feed that is not yet do not."""
    venues = Venues()
    starting: Spoilt = lambda h: replace(h, state=FeedState.SUBSCRIBING)  # noqa: E731
    first = venues.frame(one=starting, two=starting)
    assert 0.501 < level(first) < 0.5022
    second = venues.frame(two=starting)
    assert level(second) == pytest.approx(0.5, abs=4e-4)


def test_two_feeds_of_one_venue_have_names_of_their_own_and_each_its_own_rows() -> None:
    near = Market(underlyings=("BTC",), feed=0, name="venue", days=(2.0,))
    far = Market(underlyings=("BTC",), feed=1, name="venue", days=(30.0,))
    core = Core()
    for market in (near, far):
        for entry in market.beginning():
            core.apply(entry)
    frame = core.frame(near.start_ns)
    assert list(frame.health) == ["venue #0", "venue #1"]
    assert list(frame.feed_numbers) == ["venue #0", "venue #1"]
    assert len(frame.surfaces["BTC"]) == 2
    now = near.start_ns + TENTH
    core.apply(near.health(now))
    core.apply(far.health(now, FeedState.DISCONNECTED))
    frame = core.frame(now)
    assert frame.ledger["BTC"]["VENUE_STALE"] == len(far.instruments)
    # The expiry that only the lost one quotes keeps its curve.
    kept = frame.surfaces["BTC"].smiles[1].fit
    assert kept is not None
    assert kept.is_kept
    assert frame.surfaces["BTC"].certificate


def test_what_two_feeds_list_is_as_live_as_the_livelier() -> None:
    one = Market(underlyings=("BTC",), feed=0, name="venue", days=(2.0,))
    again = Market(underlyings=("BTC",), feed=1, name="venue", days=(2.0,))
    core = Core()
    for market in (one, again):
        for entry in market.beginning():
            core.apply(entry)
    now = one.start_ns + TENTH
    core.apply(one.batch(now))
    core.apply(one.health(now))
    core.apply(again.health(now, FeedState.DISCONNECTED))
    frame = core.frame(now)
    assert "VENUE_STALE" not in frame.ledger["BTC"]
    assert sum(frame.ledger["BTC"].values()) == len(one.instruments)


def test_a_clock_of_ours_that_is_wrong_condemns_nobody() -> None:
    venues = Venues()
    venues.whole()
    frame = venues.frame(one=skewed(60 * SECOND), two=skewed(63 * SECOND))
    assert all(status.is_live for status in frame.health.values())
    frame = venues.frame(one=skewed(60 * SECOND), two=skewed(None))
    assert all(status.is_live for status in frame.health.values())
    frame = venues.frame(one=skewed(-60 * SECOND), two=skewed(-50 * SECOND))
    assert [status.is_live for status in frame.health.values()] == [False, True]
    assert "10.0 s ahead of" in frame.health["one"].sentence


def test_the_bound_on_lateness_is_a_rule() -> None:
    venues = Venues()
    venues.whole()
    venues.core.apply(PolicyChange(maximum_skew_ns=SECOND // 2))
    frame = venues.frame(one=skewed(0), two=skewed(SECOND))
    assert frame.health["two"].state == "late"


def test_the_skew_makes_quotes_as_old_as_their_stamps() -> None:
    venues = Venues()
    venues.whole()
    core, two = venues.core, venues.two

    def age_of_two(skew_ns: int | None, step_ns: int = 0) -> int:
        venues.now += TENTH
        two.spot["BTC"] *= 1.0001
        batch = two.batch(venues.now)
        batch.venue_time_ns = batch.venue_time_ns - 3 * SECOND
        core.apply(venues.one.batch(venues.now))
        core.apply(batch)
        core.apply(venues.one.health(venues.now))
        core.apply(skewed(skew_ns)(two.health(venues.now)))
        if step_ns:
            venues.now += step_ns
            core.apply(ClockStep(venues.now, step_ns))
            core.apply(venues.one.health(venues.now))
        core.frame(venues.now)
        assert core.quotes is not None
        layout = core.quotes.layout
        ages = core.quotes.age_ns
        assert (ages[layout.venue == layout.venues.index("one")] == 0).all()
        (age,) = set(ages[layout.venue == layout.venues.index("two")].tolist())
        return int(age)

    assert age_of_two(None) == 0
    assert age_of_two(SECOND) == 2 * SECOND
    assert age_of_two(3 * SECOND) == 0
    # A step of our clock moves the time of receipt, and so the skew.
    assert age_of_two(SECOND, step_ns=3600 * SECOND) == 2 * SECOND


@pytest.mark.parametrize("step", [3600 * SECOND, -3600 * SECOND])
def test_a_clock_that_is_set_silences_nobody_whose_report_comes_later(step: int) -> None:
    venues = Venues()
    both = venues.whole()
    venues.now += step
    venues.core.apply(ClockStep(venues.now, step))
    frame = venues.frame(two=None)
    assert frame.health["two"].left_out == ()
    assert frame.health["two"].silent_ns == TENTH
    assert level(frame) == pytest.approx(level(both), abs=2e-4)
    # It is not believed for longer for that.
    assert venues.frame(two=None, seconds=6.0).health["two"].left_out == ("BTC",)


def test_the_figures_reach_whoever_reads_the_stream() -> None:
    venues = Venues()
    venues.whole()
    figures = Liveness(
        skew_ns=-4_000_000,
        lag_median_ms=12.5,
        lag_p95_ms=30.25,
        quote_age_p95_ms=800.0,
        channels=(ChannelLiveness("quotes", 10.0, 30e3, 12.5, 30.25, is_vital=True),),
        gaps=3,
        resyncs=2,
        crossed=1,
    )
    frame = venues.frame(two=lambda h: replace(h, liveness=figures))
    assert frame.health["two"].liveness == figures
    mirrored = FrameMirror().apply(frame.to_bytes())
    assert mirrored.health["two"].liveness == figures
    assert mirrored.health["one"].liveness == Liveness()


def test_frames_of_two_venues_are_the_same_from_the_same_log() -> None:
    def run() -> list[bytes]:
        venues = Venues()
        rng = np.random.default_rng(3)
        faults = [None, *(spoil for spoil, _, _ in FAULTS.values())]
        hashes = []
        for _ in range(25):
            fault = faults[int(rng.integers(len(faults)))]
            venues.one.spot["BTC"] *= float(np.exp(3e-4 * rng.standard_normal()))
            venues.two.spot["BTC"] = venues.one.spot["BTC"]
            hashes.append((venues.frame(two=fault) if fault else venues.frame()).hash)
        return hashes

    assert run() == run()


@pytest.mark.parametrize(("shift", "moved"), [(0.0, False), (2e-4, False), (0.005, True)])
def test_a_market_whose_own_forward_moves_calls_for_a_refit(shift: float, moved: bool) -> None:
    """Of two currencies in an expiry only one speaks for it; a move of the other's shows in its quotes' moneyness alone."""
    venues = Venues()
    surface = venues.whole().surfaces["BTC"]
    quotes = venues.core.quotes
    assert quotes is not None
    columns = SmileColumns.of(quotes)
    mine = columns.of_underlying("BTC")
    basis = Basis.of(columns, mine, surface)
    of_two = np.isin(columns.instrument_id, [i for i, row in enumerate(venues.core.universe) if row.venue == "two"])
    assert 0 < of_two.sum() < len(of_two)
    other = dataclasses.replace(columns, log_moneyness=columns.log_moneyness + np.where(of_two, shift, 0.0))
    assert basis.is_left_behind(other, mine, venues.core.rules) is moved


def test_a_venue_that_was_given_up_says_why_for_good_and_is_missed_by_nobody() -> None:
    venues = Venues()
    venues.whole()
    why = "nothing of DOGE is listed; there are BTC, ETH"
    venues.core.apply(FeedStarted(1, "two"))
    venues.core.apply(FeedHealth(feed=1, name="two", time_ns=venues.now, state=FeedState.FAILED, detail=why))
    venues.frame(two=None)
    frame = venues.frame(two=None, seconds=3600.0)
    status = frame.health["two"]
    assert (status.state, status.is_live, status.sentence) == ("failed", False, why)
    assert level(frame) == pytest.approx(0.5, abs=4e-4)
    assert sum(frame.ledger["BTC"].values()) == len(venues.one.instruments)
    (problem,) = frame.problems
    assert problem.sentence == f"two: failed, {why}; left out of BTC for good"
