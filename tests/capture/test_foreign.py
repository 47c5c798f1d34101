"""Raw captures of cryptofeed become ours: the shared ones, and some written here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import shared_path
from volsurf.capture.foreign import import_capture
from volsurf.capture.format import RecordKind
from volsurf.capture.info import count_records, describe
from volsurf.capture.reader import Capture
from volsurf.capture.verify import verify
from volsurf.errors import ConfigError, InputError

FOREIGN = ("data", "real", "ws_captures_cryptofeed")


def frames(capture: Capture) -> list[bytes]:
    (name,) = capture.feeds
    return [
        payload
        for block in capture.blocks(name)
        for payload, kind in zip(block.payloads, block.kind.tolist(), strict=True)
        if kind == RecordKind.RECEIVED
    ]


def lines_of(path: Path) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]


@pytest.mark.parametrize(
    ("name", "venue", "messages", "is_played"),
    [
        ("deribit_20210405.ws.txt.gz", "deribit", 461, True),
        ("bitcom_20211210.ws.txt.gz", "bitcom", 1231, False),
        ("delta_20211129.ws.txt.gz", "delta", 320, False),
    ],
)
def test_the_shared_captures_are_taken_in_to_the_last_byte(
    tmp_path: Path, name: str, venue: str, messages: int, is_played: bool
) -> None:
    path = shared_path(*FOREIGN, name)
    capture = import_capture(path, tmp_path / "ours", venue=venue)
    received = [line.split(": ", 1)[1].encode() for line in lines_of(path) if line[:1].isdigit() or " -> " in line[:60]]
    assert frames(capture) == received
    assert len(received) == messages
    assert capture.feeds[f"feed-0-{venue}"].settings.get("protocol", True) is is_played
    assert verify(capture).ok
    assert capture.lost == ()
    # It covers the file's own time, not the import's.
    assert 20 < describe(capture)["seconds"] < 120


def test_answers_to_http_requests_are_kept(tmp_path: Path) -> None:
    path = shared_path(*FOREIGN, "bitcom_20211210.rest.txt.gz")
    capture = import_capture(path, tmp_path / "ours", venue="bitcom")
    assert count_records(capture)["feed-0-bitcom"] == {"http_answer": 4, "note": 1, "end": 1}


def test_the_fixture_is_taken_in(tmp_path: Path) -> None:
    path = shared_path("venues", "fixtures", "deribit", "cryptofeed_DERIBIT.ws.1.0.txt")
    capture = import_capture(path, tmp_path / "ours", venue="deribit")
    assert len(frames(capture)) == 136
    assert verify(capture).ok


def written_here(path: Path) -> Path:
    """A short capture of one option, in cryptofeed's form; numbers of our own."""
    asked = {"method": "public/subscribe", "params": {"channels": ["ticker.BTC-27NOV26-90000-C.raw"]}}
    ticker = {
        "jsonrpc": "2.0",
        "method": "subscription",
        "params": {
            "channel": "ticker.BTC-27NOV26-90000-C.raw",
            "data": {
                "timestamp": 1795500000000,
                "instrument_name": "BTC-27NOV26-90000-C",
                "best_bid_price": 0.011,
                "best_bid_amount": 4.0,
                "best_ask_price": 0.012,
                "best_ask_amount": 2.5,
                "mark_price": 0.0115,
                "mark_iv": 51.5,
                "underlying_price": 88000.5,
                "index_price": 87990.0,
                "last_price": 0.0,
            },
        },
    }
    host = "wss://www.deribit.com/ws/api/v2"
    path.write_text(
        "\n".join(
            (
                'configuration: {"ticker": ["BTC-27NOV26-90000-C"]}',
                f"{host} <-> 1795500000.25",
                f"{host} <- 1795500000.5: {json.dumps(asked)}",
                f"1795500001.0: {json.dumps(ticker, separators=(',', ':'))}",
            )
        )
    )
    return path


def test_a_capture_of_deribit_can_be_exported_as_quotes(tmp_path: Path) -> None:
    import polars as pl

    from volsurf.capture.export import export

    capture = import_capture(written_here(tmp_path / "file.txt"), tmp_path / "ours", venue="deribit")
    assert capture.end_ns == 1_795_500_001_000_000_000
    export(capture, tmp_path / "columns")
    rows = pl.read_parquet(tmp_path / "columns" / "quotes" / "**" / "*.parquet").to_dicts()
    (row,) = [row for row in rows if np.isfinite(row["bid"])]
    assert (row["symbol"], row["bid"], row["ask"]) == ("BTC-27NOV26-90000-C", 0.011, 0.012)
    assert (row["mark_vol"], row["forward"]) == (pytest.approx(0.515), 88000.5)
    assert row["receive_time_ns"] == 1_795_500_001_000_000_000


def test_what_cannot_be_taken_in_is_refused(tmp_path: Path) -> None:
    path = written_here(tmp_path / "file.txt")
    with pytest.raises(ConfigError, match="no format 'pcap' can be imported; there are: cryptofeed"):
        import_capture(path, tmp_path / "ours", venue="deribit", format="pcap")
    with pytest.raises(ConfigError, match="a venue's name"):
        import_capture(path, tmp_path / "ours", venue="../deribit")
    with pytest.raises(InputError, match="cannot be read"):
        import_capture(tmp_path / "none", tmp_path / "ours", venue="deribit")
    (tmp_path / "other.txt").write_text("time,price\n1,2\n")
    for venue in ("deribit", "bitcom"):
        with pytest.raises(InputError, match="line 1: not a line of a cryptofeed capture"):
            import_capture(tmp_path / "other.txt", tmp_path / f"ours-{venue}", venue=venue)
