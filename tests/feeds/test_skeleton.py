"""The parts that every venue is made of: lanes, the watch, the catalogue, pending values."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from volsurf.errors import ConfigError
from volsurf.feeds._catalogue import Catalogue
from volsurf.feeds._lanes import Lane
from volsurf.feeds._pending import Pending
from volsurf.feeds._watch import SECOND, Watch
from volsurf.feeds.protocol import Health, HealthEvent
from volsurf.feeds.registry import make_venues
from volsurf.instruments import Instrument, Kind, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

NOW = 1_790_000_000 * SECOND
EXPIRY = NOW + 86_400 * SECOND


def option(symbol: str, strike: float = 70_000.0, tick: float = 5.0) -> Instrument:
    return Instrument(
        venue="v",
        symbol=symbol,
        kind=Kind.OPTION,
        underlying="BTC",
        expiry_ns=EXPIRY,
        strike=strike,
        is_call=True,
        tick_size=tick,
    )


INDEX = Instrument(venue="v", symbol="idx", kind=Kind.INDEX, underlying="BTC")


class TestLane:
    @given(
        st.integers(1, 5),
        st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=60),
        st.integers(SECOND // 10, SECOND),
    )
    def test_no_window_holds_more_than_burst_and_rate(self, burst: int, steps: list[int], interval: int) -> None:
        lane: Lane[int] = Lane(burst, interval)
        lane.waiting.extend(range(10_000))
        sent: list[int] = []
        elapsed = 0
        for step in steps:
            elapsed += step
            while lane.take(elapsed) is not None:
                sent.append(elapsed)
        for i, start in enumerate(sent):
            for j in range(i, len(sent)):
                assert j - i + 1 <= burst + (sent[j] - start) / interval + 1e-6

    def test_waits_until_what_it_says(self) -> None:
        lane: Lane[str] = Lane(1, SECOND)
        assert lane.next_ready(0) is None
        lane.waiting.extend("ab")
        assert lane.take(0) == "a"
        ready = lane.next_ready(0)
        assert ready == SECOND
        assert lane.take(ready - 2) is None
        assert lane.take(ready) == "b"

    def test_hold_outlasts_credits(self) -> None:
        lane: Lane[str] = Lane(5, SECOND)
        lane.waiting.append("a")
        lane.hold(10 * SECOND)
        assert lane.next_ready(0) == 10 * SECOND
        assert lane.take(9 * SECOND) is None
        assert lane.take(10 * SECOND) == "a"


class TestWatch:
    def make(self) -> Watch:
        watch = Watch(Counter())
        watch.advance(NOW)
        watch.opened()
        return watch

    def kinds(self, watch: Watch) -> list[Health]:
        return [event.kind for event in watch.take_events() if isinstance(event, HealthEvent)]

    def test_silence_is_said_once_and_its_end_too(self) -> None:
        watch = self.make()
        watch.expect("btc", 3 * SECOND, "index silent for {silence} s")
        watch.advance(NOW + 3 * SECOND)
        assert not watch.notice_silence()
        watch.advance(NOW + 4 * SECOND)
        assert watch.notice_silence()
        assert not watch.notice_silence()
        assert watch.trouble == "index silent for 4 s"
        assert watch.silence_of("btc") == 4 * SECOND
        watch.heard_of("btc")
        assert watch.trouble == ""
        assert self.kinds(watch) == [Health.STALE, Health.RECOVERED]

    def test_what_is_not_given_is_not_missed(self) -> None:
        watch = self.make()
        watch.expect("btc", SECOND, "silent")
        watch.advance(NOW + 2 * SECOND)
        watch.notice_silence()
        watch.forget("btc")
        assert watch.trouble == ""
        assert not watch.notice_silence()
        assert watch.silence_of("btc") == 0

    @pytest.mark.parametrize("step", [-SECOND, 6 * SECOND, -86_400 * SECOND])
    def test_a_step_of_the_clock_is_no_time(self, step: int) -> None:
        watch = self.make()
        watch.expect("btc", 3 * SECOND, "silent")
        watch.advance(NOW + step)
        assert watch.elapsed == 0
        assert watch.stepped
        assert not watch.notice_silence()
        assert self.kinds(watch) == [Health.CLOCK_STEP]

    def test_a_pause_between_two_sockets_is_time_and_no_step_but_a_clock_that_went_back_is(self) -> None:
        watch = self.make()
        watch.closed()
        watch.advance(NOW + 30 * SECOND)
        watch.opened()
        assert (watch.elapsed, watch.stepped, self.kinds(watch)) == (30 * SECOND, False, [])
        watch.advance(NOW + 36 * SECOND)
        assert self.kinds(watch) == [Health.CLOCK_STEP]
        watch.closed()
        watch.advance(NOW)
        assert self.kinds(watch) == [Health.CLOCK_STEP]

    def test_a_flood_of_nonsense_is_one_event_a_second(self) -> None:
        watch = self.make()
        for i in range(3000):
            watch.advance(NOW + i * SECOND // 1000)
            watch.malformed("json", b"x" * 200)
        watch.advance(NOW + 4 * SECOND)
        watch.report_malformed()
        events = [event for event in watch.take_events() if isinstance(event, HealthEvent)]
        assert len(events) == 4
        assert watch._counters["malformed.json"] == 3000

    def test_skew_needs_two_looks(self) -> None:
        watch = self.make()
        watch.advance(NOW + SECOND)
        watch.heard_time(NOW - 60 * SECOND)
        assert watch.trouble == ""
        watch.advance(NOW + 2 * SECOND)
        watch.heard_time(NOW - 60 * SECOND)
        assert "62 s ahead of the venue's" in watch.trouble


class TestCatalogue:
    def test_a_listing_adds_changes_and_ends(self) -> None:
        catalogue: Catalogue[str] = Catalogue()
        first = catalogue.follow([INDEX, option("a"), option("b")], "BTC", complete=True)
        assert first == ([0, 1, 2], [])
        assert catalogue.rows == {"a": 1, "b": 2}
        assert catalogue.index_rows == {"idx": 0}
        again = catalogue.follow([INDEX, option("a", tick=1.0), option("c")], "BTC", complete=True)
        assert again == ([1, 3], [2])
        catalogue.retire(again.retired)
        assert catalogue.rows == {"a": 1, "c": 3}
        assert not catalogue.universe.active[2]
        assert catalogue.follow([], "ETH", complete=True) == ([], [])
        assert catalogue.follow([], "BTC", complete=False) == ([], [])
        assert catalogue.expired(EXPIRY + 1) == [1, 3]
        assert catalogue.expired(EXPIRY) == []
        assert catalogue.first_expiry_ns == EXPIRY

    def test_another_contract_under_the_same_name_is_another_row(self) -> None:
        catalogue: Catalogue[str] = Catalogue()
        catalogue.follow([option("a")], "k", complete=True)
        change = catalogue.follow([option("a", strike=80_000.0)], "k", complete=True)
        assert change.added == [1]
        assert catalogue.rows == {"a": 1}
        assert catalogue.universe.active.tolist() == [False, True]

    def test_shards_part_the_symbols(self) -> None:
        names = [f"BTC-{i}" for i in range(500)]
        shards = [Catalogue[str]((i, 3)) for i in range(3)]
        owners = [sum(shard.is_mine(name) for shard in shards) for name in names]
        assert owners == [1] * 500
        assert min(sum(shard.is_mine(name) for name in names) for shard in shards) > 100


class TestPending:
    def make(self) -> tuple[Pending, QuoteBoard]:
        universe = Universe([option("a"), option("b"), INDEX])
        return Pending(universe), QuoteBoard(universe)

    def show(self, board: QuoteBoard, pending: Pending, now: int) -> None:
        batch = pending.take(now)
        assert batch is not None
        board.apply(batch)

    def test_a_clearing_that_was_not_taken_survives_the_end_of_the_connection(self) -> None:
        pending, board = self.make()
        for clear in (lambda: pending.clear([0], NOW + 1), lambda: pending.quote(0, *4 * [math.nan], 2, NOW + 1)):
            pending.quote(0, 1.0, 5.0, 2.0, 6.0, 1, NOW)
            self.show(board, pending, NOW)
            assert board.bid[0] == 1.0
            clear()
            pending.clear_all(NOW + 2)
            self.show(board, pending, NOW + 2)
            assert math.isnan(board.bid[0])
            assert math.isnan(board.ask[0])
        # What was never taken need not be taken back.
        pending.quote(0, 1.0, 5.0, 2.0, 6.0, 1, NOW)
        pending.clear_all(NOW + 3)
        assert pending.take(NOW + 3) is None

    def test_channels_of_one_instrument_become_one_row(self) -> None:
        pending, board = self.make()
        pending.quote(0, 1.0, 2.0, 3.0, 4.0, NOW, NOW + 5, 7)
        pending.forward(0, 70_000.0, NOW + 1, NOW + 6)
        pending.mark(0, 2.0, 0.5, NOW - 1, NOW + 4)
        pending.index(2, 69_000.0, NOW, NOW)
        pending.last(0, 2.5, NOW, NOW)
        batch = pending.take(NOW + 10)
        assert batch is not None
        assert batch.instrument_id.tolist() == [0, 2]
        assert batch.fields.tolist() == [Field.QUOTE | Field.FORWARD | Field.MARK | Field.LAST, Field.INDEX]
        board.apply(batch)
        assert (board.bid[0], board.ask_size[0], board.forward[0], board.mark_vol[0]) == (1.0, 4.0, 70_000.0, 0.5)
        assert (board.venue_time_ns[0], board.receive_time_ns[0], board.sequence[0]) == (NOW + 1, NOW + 6, 7)
        assert board.index[2] == 69_000.0
        assert board.last[0] == 2.5
        assert math.isnan(board.bid[1])
        assert pending.take(NOW) is None

    def test_the_end_of_a_connection_clears_what_was_shown_and_nothing_else(self) -> None:
        pending, board = self.make()
        pending.quote(0, 1.0, 2.0, math.nan, 4.0, NOW, NOW)
        first = pending.take(NOW)
        assert first is not None
        assert math.isnan(first.ask_size[0])
        board.apply(first)
        pending.quote(1, math.nan, math.nan, math.nan, math.nan, NOW, NOW)
        pending.index(2, 1.0, NOW, NOW)
        pending.clear_all(NOW + 1)
        batch = pending.take(NOW + 1)
        assert batch is not None
        assert batch.instrument_id.tolist() == [0]
        board.apply(batch)
        assert np.isnan(board.bid[0])
        pending.clear_all(NOW + 2)
        assert pending.take(NOW + 2) is None

    def test_whole_columns_come_after_what_was_said_before_and_before_what_is_said_later(self) -> None:
        pending, board = self.make()
        pending.quote(0, 1.0, 2.0, 3.0, 4.0, NOW, NOW)
        pending.mark(1, 0.5, 0.6, NOW, NOW)
        both = {"bid": [1.5, math.nan], "ask": [math.nan, math.nan], "venue_time_ns": NOW, "receive_time_ns": NOW}
        pending.add(QuoteBatch([0, 1], Field.QUOTE, **both))
        pending.quote(1, 2.5, 1.0, 3.5, 1.0, NOW, NOW)
        batch = pending.take(NOW + 1)
        assert batch is not None
        assert batch.time_ns == NOW + 1
        board.apply(batch)
        assert board.bid[:2].tolist() == [1.5, 2.5]
        assert math.isnan(board.ask[0])
        assert board.mark[1] == 0.5
        assert pending.take(NOW) is None

    def test_whole_columns_are_cleared_with_their_connection(self) -> None:
        pending, _ = self.make()
        pending.add(QuoteBatch([0, 1], [Field.QUOTE, Field.INDEX], bid=[1.0, math.nan], index=5.0))
        assert pending.take(NOW) is not None
        pending.clear_all(NOW)
        batch = pending.take(NOW)
        assert batch is not None
        assert batch.instrument_id.tolist() == [0]
        assert np.isnan(batch.bid).all()
        pending.add(QuoteBatch([0], Field.QUOTE))
        pending.clear_all(NOW)
        assert pending.take(NOW) is None, "it shows no price any more"
        pending.add(QuoteBatch([2], Field.QUOTE, bid=1.0))
        pending.clear([2], NOW)
        batch = pending.take(NOW)
        assert batch is not None
        assert batch.instrument_id.tolist() == [2, 2]
        assert np.isnan(batch.bid[1])


class TestRegistry:
    @pytest.mark.parametrize(
        ("venue", "underlyings", "shards", "words"),
        [
            ("ftx", ["BTC"], 1, "no venue 'ftx'; there are deribit"),
            ("deribit", [], 1, "needs underlyings"),
            ("deribit", [""], 1, "needs underlyings"),
            ("deribit", ["BTC"], 0, "at least one connection"),
        ],
    )
    def test_what_cannot_be_meant(self, venue: str, underlyings: list[str], shards: int, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            make_venues(venue, underlyings, shards=shards)
