"""The liveness of a feed, from ticks handed in with the clock."""

from __future__ import annotations

import numpy as np
import pytest

from volsurf.feeds.liveness import SECOND, LivenessMeter
from volsurf.feeds.protocol import BookEvent, Health, HealthEvent
from volsurf.instruments import Instrument, Kind, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

START = 1_780_000_000 * SECOND
MS = 1_000_000


def board_of(count: int = 10) -> QuoteBoard:
    return QuoteBoard(
        Universe(
            Instrument(
                venue="v", symbol=f"o{i}", kind=Kind.OPTION, underlying="BTC", expiry_ns=START * 2, strike=i + 1.0
            )
            for i in range(count)
        )
    )


class Feed:
    """A board and its meter; `tick` hears quotes whose stamps are so much earlier than their receipt."""

    def __init__(self) -> None:
        self.board = board_of()
        self.meter = LivenessMeter(self.board)
        self.now = START

    def tick(
        self,
        lag_ms: float | np.ndarray,
        fields: int = Field.QUOTE | Field.MARK,
        step_ms: float = 100,
        **columns: object,
    ) -> None:
        self.now += int(step_ms * MS)
        lag = np.broadcast_to(np.asarray(lag_ms, float) * MS, 10).astype(np.int64)
        given = {"bid": 1.0, "ask": 2.0, "receive_time_ns": self.now, "venue_time_ns": self.now - lag} | columns
        batch = QuoteBatch(np.arange(10), int(fields), time_ns=self.now, **given)  # type: ignore[arg-type]
        self.board.apply(batch)
        self.meter.hear(self.now, batch, [])

    def quiet(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.now += 100 * MS
            self.meter.hear(self.now, None, [])


def test_delays_and_skew_of_a_steady_feed() -> None:
    feed, rng = Feed(), np.random.default_rng(1)
    for _ in range(300):
        feed.tick(250 + 4 + rng.exponential(6, 10))
    found = feed.meter.read(feed.now)
    # Clock a quarter of a second ahead, four milliseconds of way: the two cannot be told apart.
    assert found.skew_ns == pytest.approx(254 * MS, abs=1 * MS)
    assert found.lag_median_ms == pytest.approx(254 + 6 * np.log(2), abs=0.6)
    assert found.lag_p95_ms == pytest.approx(254 + 6 * np.log(20), abs=3)
    assert [c.name for c in found.channels] == ["quotes", "marks"]
    assert [c.limit_ms for c in found.channels] == [None, None]
    assert found.channels[0].is_vital
    assert not found.channels[1].is_vital
    assert found.quote_age_median_ms is not None
    assert found.quote_age_median_ms < 30


def test_one_absurd_stamp_is_no_skew() -> None:
    feed = Feed()
    feed.tick(-3_600_000)
    for _ in range(40):
        feed.tick(20)
    assert feed.meter.skew_ns == 20 * MS


def test_no_skew_before_three_seconds_of_delays() -> None:
    feed = Feed()
    for _ in range(15):
        feed.tick(20)
    assert feed.meter.skew_ns is None
    for _ in range(20):
        feed.tick(20)
    assert feed.meter.skew_ns == 20 * MS


def test_a_backlog_shows_as_delay_and_not_as_skew() -> None:
    feed = Feed()
    for _ in range(300):
        feed.tick(20)
    for _ in range(120):
        feed.tick(900)
    found = feed.meter.read(feed.now)
    assert found.skew_ns == 20 * MS
    assert found.lag_median_ms == 900
    assert found.quote_age_median_ms == 880


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000, -200])
def test_a_step_of_the_clock_begins_again(step_ms: float) -> None:
    feed = Feed()
    for _ in range(100):
        feed.tick(20)
    feed.tick(20 + step_ms, step_ms=step_ms)
    assert feed.meter.skew_ns is None
    found = feed.meter.read(feed.now)
    assert found.lag_median_ms == 20 + step_ms
    for _ in range(40):
        feed.tick(20 + step_ms)
    assert feed.meter.skew_ns == (20 + step_ms) * MS


def test_rows_without_a_stamp_say_nothing_of_delays() -> None:
    feed = Feed()
    for _ in range(40):
        feed.tick(20, venue_time_ns=0)
    found = feed.meter.read(feed.now)
    assert (found.skew_ns, found.lag_median_ms) == (None, None)
    assert found.quote_age_median_ms == 0
    assert found.channels[0].silent_ms == 0


def test_each_kind_of_news_has_its_own_delay_and_silence() -> None:
    feed = Feed()
    for _ in range(40):
        feed.tick(20, Field.QUOTE)
        feed.tick(800, Field.MARK | Field.INDEX, 0)
    feed.quiet(1.0)
    feed.tick(20, Field.QUOTE)
    found = {c.name: c for c in feed.meter.read(feed.now).channels}
    assert list(found) == ["quotes", "marks", "indexes"]
    assert (found["quotes"].lag_median_ms, found["marks"].lag_median_ms) == (20, 800)
    assert (found["quotes"].silent_ms, found["marks"].silent_ms) == (0, 1100)


def test_delays_are_those_of_the_last_ten_seconds() -> None:
    feed = Feed()
    for _ in range(30):
        feed.tick(500)
    feed.quiet(9.0)
    feed.tick(20)
    assert feed.meter.read(feed.now).lag_median_ms == 500
    feed.quiet(5.0)
    assert feed.meter.read(feed.now).lag_median_ms == 20
    feed.quiet(6.0)
    assert feed.meter.read(feed.now).lag_median_ms is None


def test_what_the_protocols_wait_for_is_told_with_its_limit_the_worst_connection_first() -> None:
    feed = Feed()
    feed.tick(20)
    one = {"index btc_usd": (2 * SECOND, 10 * SECOND), "quotes": (SECOND, 30 * SECOND)}
    other = {"index btc_usd": (12 * SECOND, 10 * SECOND)}
    many = {f"ticker {i:02d}": (i * SECOND, 60 * SECOND) for i in range(40)}
    found = feed.meter.read(feed.now, (one, other, many))
    by_name = {c.name: c for c in found.channels}
    assert len(found.channels) == 16
    assert (by_name["quotes"].silent_ms, by_name["quotes"].limit_ms) == (1000, 30_000)
    assert (by_name["index btc_usd"].silent_ms, by_name["index btc_usd"].is_silent) == (12_000, True)
    assert found.silent_channels == ("index btc_usd",)
    assert not by_name["index btc_usd"].is_vital
    assert by_name["ticker 39"].is_vital
    assert "ticker 00" not in by_name


def test_gaps_resyncs_and_crossed_quotes_are_counted() -> None:
    feed = Feed()
    feed.tick(20)
    book = BookEvent(3, True, ((1.0, 1.0),), ((2.0, 1.0),), 7, 0, feed.now)
    gap = HealthEvent(Health.GAP, feed.now, "7 after 5")
    feed.meter.hear(feed.now, None, [book, gap, BookEvent(4, True, (), (), 1, 0, feed.now)])
    feed.meter.hear(feed.now, None, [book, HealthEvent(Health.READY, feed.now)])
    feed.tick(20, bid=np.where(np.arange(10) < 3, 2.5, 1.0))
    found = feed.meter.read(feed.now, takeovers=2)
    assert (found.gaps, found.resyncs, found.crossed, found.takeovers) == (1, 1, 3, 2)


def test_ages_are_of_what_is_quoted_and_listed() -> None:
    feed = Feed()
    feed.tick(20)
    assert feed.meter.read(feed.now + SECOND).quote_age_p95_ms == 1000
    feed.board.clear_quotes(np.arange(9))
    feed.board.universe.retire([9])
    assert feed.meter.read(feed.now + SECOND).quote_age_p95_ms is None


def test_nothing_heard_is_nothing_said() -> None:
    found = LivenessMeter(board_of(0)).read(START)
    assert found.channels == ()
    assert (found.skew_ns, found.lag_median_ms, found.quote_age_median_ms, found.gaps) == (None, None, None, 0)


def test_more_rows_than_are_kept_leave_the_newest() -> None:
    board = board_of(5000)
    meter = LivenessMeter(board)
    lag = np.where(np.arange(5000) < 4000, 500, 20) * MS
    batch = QuoteBatch(
        np.arange(5000), int(Field.QUOTE), venue_time_ns=START - lag, receive_time_ns=START, bid=1.0, ask=2.0
    )
    meter.hear(START, batch, [])
    assert meter.read(START).lag_median_ms == 500
    meter.hear(
        START, QuoteBatch(np.arange(2048), int(Field.QUOTE), venue_time_ns=START - 7 * MS, receive_time_ns=START), []
    )
    assert meter.read(START).lag_p95_ms == 7
