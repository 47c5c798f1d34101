"""How a report shows the feeds."""

from __future__ import annotations

import volsurf as vs
from tests.surface.quoted_market import NOW
from tests.surface.venue_boards import FOUR, board_of
from tests.widgets.small_market import four_feeds, status
from volsurf.diagnostics.liveness import feed_sentence, liveness_frame, liveness_html, liveness_text, milliseconds
from volsurf.diagnostics.quality import diagnose
from volsurf.engine.codec import FeedStatus
from volsurf.engine.log import ChannelLiveness, Liveness
from volsurf.surface.quote_vols import quote_vols

FEEDS = four_feeds(10)


def test_times_as_a_person_reads_them() -> None:
    said = [milliseconds(x, sign=True) for x in (None, 0.0, 0.84, -9.96, 999.4, 7_300.0)]
    assert said == ["–", "0.0 ms", "+0.8 ms", "−10 ms", "+999 ms", "+7.3 s"]


def test_a_feed_in_a_sentence() -> None:
    assert feed_sentence(FEEDS["deribit"]) == "2 of 2 connections ready"
    assert feed_sentence(FEEDS["bybit"]).endswith("; left out of BTC, ETH until it is whole again")
    assert feed_sentence(FEEDS["binance"]).endswith("; index BTCUSDT silent for 14.2 s, limit 10.0 s")


def test_a_line_of_text_a_feed() -> None:
    lines = liveness_text(FEEDS).splitlines()
    assert len(lines) == 5
    assert lines[2].split()[:7] == ["okx", "−35", "ms", "61", "ms", "−41", "ms"]
    assert " 12 " in lines[2]
    assert len({line.index(s) for line, s in zip(lines[1:], 4 * ["2 of 2"], strict=True)}) == 1


def test_html_escapes_what_venues_say() -> None:
    evil = Liveness(channels=(ChannelLiveness("<b>'\"", 5.0, 1.0),))
    html = liveness_html({"x": status(name="<i>", liveness=evil)})
    assert "<b>" not in html
    assert "<i>" not in html
    assert "&lt;b&gt;" in html


def test_a_table_has_a_row_for_each_kind_of_news() -> None:
    table = liveness_frame(FEEDS)
    assert len(table) == 8
    binance = table.filter((table["feed"] == "binance") & (table["channel"] == "index BTCUSDT")).row(0, named=True)
    assert (binance["silent_ms"], binance["limit_ms"], binance["lag_median_ms"]) == (14_200.0, 10_000.0, None)
    assert table["left_out"].to_list()[4] == ["BTC", "ETH"]
    assert table["skew_ms"].to_list()[2] == -41.0
    bare: FeedStatus = status(liveness=Liveness())
    assert liveness_frame({"bare": bare})["channel"].to_list() == [None]
    assert len(liveness_frame({})) == 0


def test_a_report_carries_them() -> None:
    quotes = quote_vols(board_of(FOUR[:1]), NOW)
    surface = vs.fit_smiles(vs.build_smiles(quotes))
    report = diagnose(surface, quotes, feeds=FEEDS)
    assert "left out of BTC, ETH" in str(report)
    assert "<summary>feeds</summary>" in report._repr_html_()
    assert len(report.to_polars("feeds")) == 8
    alone = diagnose(surface, quotes)
    assert "<summary>feeds</summary>" not in alone._repr_html_()
