"""Captures of another program: lines, and real feeds through our own venue."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import volsurf as vs
from tests.conftest import shared_path
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.feeds.protocol import BookEvent
from volsurf.replay.cryptofeed import Direction, Line, is_cryptofeed, read_cryptofeed
from volsurf.replay.player import FeedPlayer
from volsurf.replay.replay import Replay, replay

CRYPTOFEED = ("data", "real", "ws_captures_cryptofeed")
DERIBIT = (*CRYPTOFEED, "deribit_20210405.ws.txt.gz")
FIXTURE = ("venues", "fixtures", "deribit", "cryptofeed_DERIBIT.ws.1.0.txt")

LINES = b"""configuration: {"ticker":["BTC-USD-15JAN27-80000-C"]}
wss://www.deribit.com/ws/api/v2 <-> 1800000000.5
wss://www.deribit.com/ws/api/v2 <- 1800000000.8063161: {"id":0,"params":{"channels":["ticker.BTC-26MAR27-80000-C.raw"]}}
1800000000.899453: {"id":0,"result":[]}
wss://www.deribit.com/ws/api/v2 -> 1800000001.25: {"a":1}
https://www.deribit.com/listing?x=1 -> 1800000002: {"b": 2}
"""


def test_lines(tmp_path: Path) -> None:
    plain, packed = tmp_path / "raw.txt", tmp_path / "raw.txt.gz"
    plain.write_bytes(LINES)
    packed.write_bytes(gzip.compress(LINES))
    url = "wss://www.deribit.com/ws/api/v2"
    lines = list(read_cryptofeed(plain))
    assert [line.direction for line in lines] == ["opened", "sent", "received", "received", "answered"]
    assert lines[0] == Line(Direction.OPENED, 1_800_000_000_500_000_000, url, b"")
    assert lines[2] == Line(Direction.RECEIVED, 1_800_000_000_899_453_000, "", b'{"id":0,"result":[]}')
    assert [line.url for line in lines[3:]] == [url, "https://www.deribit.com/listing?x=1"]
    assert lines[1].time_ns == 1_800_000_000_806_316_100, "through a double the last digits would be lost"
    assert list(read_cryptofeed(packed)) == lines
    assert is_cryptofeed(plain)
    assert is_cryptofeed(packed)


@pytest.mark.parametrize("line", [b"hello", b"1800000000.1", b"wss://x <-> 1.5: {}", b"ftp://x -> 1.5: {}"])
def test_another_form_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "raw.txt"
    path.write_bytes(LINES + line + b"\n")
    with pytest.raises(InputError, match="line 7: not a line"):
        list(read_cryptofeed(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(LINES)[:-20])
    with pytest.raises(InputError, match="cut short"):
        list(read_cryptofeed(cut))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_cryptofeed(tmp_path / "nowhere"))
    assert not is_cryptofeed(tmp_path / "nowhere")


def test_a_feed_without_channels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_bytes(b"wss://www.deribit.com/ws <-> 1800000000.5\n")
    with pytest.raises(InputError, match="no channel of an instrument was asked for"):
        replay(tmp_path / "raw.txt", "1s")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("deribit_20210405.ws.txt.gz", {"opened": 1, "sent": 1, "received": 461}),
        ("bitcom_20211210.ws.txt.gz", {"opened": 1, "sent": 3, "received": 1231}),
        ("bitcom_20211210.rest.txt.gz", {"answered": 4}),
        ("delta_20211129.ws.txt.gz", {"opened": 1, "sent": 1, "received": 320}),
    ],
)
def test_real_files_are_read_to_the_last_line(name: str, counts: dict[str, int]) -> None:
    path = shared_path(*CRYPTOFEED, name)
    lines = list(read_cryptofeed(path))
    assert Counter(str(line.direction) for line in lines) == counts
    assert all(json.loads(line.data) is not None for line in lines if line.direction is not Direction.OPENED)
    times = [line.time_ns for line in lines]
    assert times == sorted(times)


def test_venues_without_a_protocol_here_are_named() -> None:
    with pytest.raises(InputError, match=r"messages of ws\.bit\.com"):
        replay(shared_path(*CRYPTOFEED, "bitcom_20211210.ws.txt.gz"), "1s")


def tickers(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Receive time and data of every ticker."""
    found = []
    for line in read_cryptofeed(path):
        message = json.loads(line.data) if line.direction is Direction.RECEIVED else {}
        if message.get("params", {}).get("channel", "").startswith("ticker."):
            found.append((line.time_ns, message["params"]["data"]))
    return found


@pytest.mark.parametrize(
    ("parts", "messages", "books", "compared"),
    [(DERIBIT, 461, 187, 1400), (FIXTURE, 136, 46, 450)],
    ids=["2021-04", "2021-07"],
)
def test_a_real_feed(parts: tuple[str, ...], messages: int, books: int, compared: int) -> None:
    path = shared_path(*parts)
    said = tickers(path)
    played = cast(Replay, replay(path, "1s"))
    last: dict[str, dict[str, float]] = {}
    excess: list[float] = []
    events = 0
    for frame in played:
        while said and said[0][0] <= frame.time_ns:
            _, data = said.pop(0)
            last[str(data["instrument_name"])] = data
        events += sum(isinstance(event, BookEvent) for event in played.events)
        quotes = vs.quote_vols(played.board, frame.time_ns)
        for at, row in enumerate(quotes.instrument_id.tolist()):
            instrument = played.universe[row]
            data = last.get(instrument.symbol, {})
            for side in ("bid", "ask"):
                theirs, price = data.get(f"{side}_iv"), data.get(f"best_{side}_price")
                if not theirs or not price:
                    continue
                assert getattr(played.board, side)[row] == price, "the top of the book is not the ticker's"
                ours = float(getattr(quotes, f"{side}_vol")[at])
                if quotes.reason[at] == QuoteReason.ITM_LEG:
                    # The pipeline takes the vol of the other leg; the kernel has one for this too.
                    years = (instrument.expiry_ns - frame.time_ns) / (365 * 86_400e9)
                    forward = float(played.board.forward[row])
                    ours = float(vs.implied_vol(price * forward, forward, instrument.strike, years, instrument.is_call))
                excess.append(abs(100 * ours - theirs))
    player = cast(FeedPlayer, played._player._players[0])  # type: ignore[union-attr]
    assert player._recorded is not None
    feed = player._recorded.feed
    assert played.messages == messages
    assert events == books
    assert feed.books is not None
    assert feed.books.counters["changed"] + feed.books.counters["unchanged"] == books, "a gap in a book"
    assert not [name for name in feed.counters if "gap" in name or "malformed" in name or "awaiting" in name]
    assert len(excess) > compared
    assert not np.isnan(excess).any()
    assert np.median(excess) <= 0.05, "vol points"
    assert np.percentile(excess, 90) <= 0.1
