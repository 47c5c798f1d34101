from __future__ import annotations

import pytest
from msgspec import structs

from tests.engine.smiles import FrameMaker
from volsurf.engine.figures import Figures
from volsurf.engine.frame import Frame
from volsurf.engine.log import FeedHealth, FeedState
from volsurf.engine.pacing import FrameClock, Readiness, StepDetector, Tally, steady_ns

SECOND = 1_000_000_000


def test_frames_are_due_on_a_grid_however_long_they_take() -> None:
    clock, now, taken = FrameClock(0.1, 5.0), 5.0, []
    for work in (0.01, 0.09, 0.05, 0.02):
        now += clock.wait(now)
        taken.append(now)
        clock.take(now)
        now += work
    assert taken == pytest.approx([5.0, 5.1, 5.2, 5.3])
    assert clock.dropped == 0


def test_ticks_that_passed_are_dropped_and_the_grid_stays() -> None:
    clock = FrameClock(0.1, 0.0)
    clock.take(0.0)
    assert clock.take(1.234) == pytest.approx(1.134)
    assert clock.dropped == 11
    assert clock.wait(1.234) == pytest.approx(0.066)


def test_a_frame_slower_than_its_period_leaves_no_debt() -> None:
    clock, now, made = FrameClock(0.1, 0.0), 0.0, 0
    while now < 3.0:
        now += clock.wait(now)
        assert clock.take(now) < 0.16
        now += 0.15
        made += 1
    assert made in (20, 21)


def test_a_clock_that_is_set_is_noticed_once_and_drift_is_not() -> None:
    steps = StepDetector(1000 * SECOND, 5 * SECOND)
    assert steps.look(1001 * SECOND, 6 * SECOND) is None
    assert steps.look(1002 * SECOND + 10_000_000, 7 * SECOND) is None
    found = steps.look(4602 * SECOND, 8 * SECOND)
    assert found is not None
    assert found.step_ns == pytest.approx(3599 * SECOND, abs=20_000_000)
    assert found.time_ns == 4602 * SECOND
    assert steps.look(4603 * SECOND, 9 * SECOND) is None
    back = steps.look(1000 * SECOND, 10 * SECOND)
    assert back is not None
    assert back.step_ns == -3604 * SECOND


def test_the_steady_clock_goes_forward() -> None:
    assert steady_ns() <= steady_ns()


def of_feeds(*states: str, surfaces: bool = True) -> Frame:
    """A frame with one feed for each state."""
    frame = FrameMaker().make({"BTC": (0, {1: 0})} if surfaces else {})
    status = frame.health.pop("venue")
    for number, state in enumerate(states):
        name = f"venue {number}"
        frame.health[name] = structs.replace(status, name=name, state=state, is_live=state == "ready")
    return frame


def test_an_engine_is_ready_with_a_surface_and_every_feed_live_or_given_up() -> None:
    assert Readiness(1, 10.0).look(of_feeds("ready"), 0.0)
    assert Readiness(3, 10.0).look(of_feeds("ready", "failed", "ready"), 0.0)
    assert not Readiness(1, 10.0).look(of_feeds("ready", surfaces=False), 0.0)
    assert not Readiness(2, 10.0).look(of_feeds("ready", "subscribing"), 0.0)
    assert not Readiness(2, 10.0).look(of_feeds("ready"), 0.0), "the second has not said a word yet"


def test_a_feed_that_is_not_whole_holds_an_engine_up_for_a_while_once_another_has_a_surface() -> None:
    readiness = Readiness(2, 10.0)
    frame = of_feeds("ready", "connecting")
    assert not readiness.look(of_feeds("ready", "connecting", surfaces=False), 5.0)
    assert not readiness.look(frame, 100.0)
    assert not readiness.look(frame, 109.9)
    assert not readiness.look(of_feeds("silent", "connecting"), 110.5), "nobody is live"
    assert not readiness.look(frame, 111.0)
    assert readiness.look(frame, 121.0)


@pytest.mark.parametrize("states", [("connecting",), ("failed", "connecting"), ("silent", "failed")])
def test_without_a_live_feed_an_engine_is_never_ready(states: tuple[str, ...]) -> None:
    readiness = Readiness(len(states), 10.0)
    assert not any(readiness.look(of_feeds(*states), 50.0 * i) for i in range(5))


def health(messages: int, missed: int = 0) -> FeedHealth:
    return FeedHealth(feed=0, name="v", time_ns=0, state=FeedState.READY, messages=messages, heartbeats_missed=missed)


def test_counts_go_on_when_a_feed_starts_again() -> None:
    tally = Tally()
    tally.feed_started(0)
    tally.feeds[0] = health(100, 1)
    tally.feed_started(0)
    assert tally.report()["messages"] == 100
    tally.feeds[0] = health(7)
    assert tally.report()["messages"] == 107
    assert tally.report()["heartbeats_missed"] == 1


def test_slices_count_in_every_frame_that_carries_them() -> None:
    tally, maker = Tally(), FrameMaker()
    tally.count(maker.make({}))
    assert tally.report()["frames"] == 0
    for version in range(3):
        tally.count(maker.make({"BTC": (version, {1: version, 2: 0}), "ETH": (0, {1: 0})}))
    report = tally.report()
    assert (report["frames"], report["slices_published"], report["expiries_fitted"], report["expiries_listed"]) == (
        3,
        9,
        3,
        3,
    )


def counts(frames: int, messages: int = 0) -> dict[str, int]:
    return {"frames": frames, "messages": messages, "slices_published": 3 * frames, "expiries_fitted": 3}


def test_a_rate_counts_to_the_last_report_and_falls_when_reports_stop() -> None:
    figures = Figures()
    figures.report(5.0, 0.0, counts(0))
    assert figures.summary(5.1)["frames_per_second"] == 0.0
    # The core was ready at 9.9; word of it came at 10.2.
    figures.ready(10.2)
    figures.report(11.9, 2.0, counts(20, 700))
    assert figures.summary(12.1)["frames_per_second"] == 10.0
    assert figures.summary(12.1)["seconds"] == 2.0
    assert figures.summary(19.9)["frames_per_second"] == 2.0


def test_counts_go_on_when_the_core_starts_again() -> None:
    figures = Figures()
    figures.ready(0.0)
    figures.report(10.0, 10.0, counts(100, 5000))
    figures.core_ended()
    assert figures.summary(10.5)["frames"] == 100
    figures.ready(12.0)
    figures.report(14.0, 2.0, counts(20, 6000))
    summary = figures.summary(14.0)
    # The outage is part of the time, so the rate shows it.
    assert (summary["seconds"], summary["frames"], summary["slices_published"]) == (14.0, 120, 360)
    assert (summary["messages"], summary["expiries_fitted"]) == (6000, 3)
