"""Microseconds a Deribit message costs, by kind, and a tick's conversion to columns.

python -m tests.bench.bench_deribit [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from tests.feeds.deribit_frames import (
    START,
    START_MS,
    Server,
    future_row,
    index_price,
    notification,
    option_row,
    ticker,
    ticker_data,
)
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.venue_feed import VenueFeed

STRIKES = range(40_000, 140_000, 2_000)
EXPIRIES = (
    "16JAN27",
    "17JAN27",
    "22JAN27",
    "29JAN27",
    "26FEB27",
    "26MAR27",
    "30APR27",
    "25JUN27",
    "24SEP27",
    "31DEC27",
)
NAMES = [f"BTC-{expiry}-{strike}-{side}" for expiry in EXPIRIES for strike in STRIKES for side in "CP"]


def ready_venue(**options: bool) -> Deribit:
    """A connection subscribed to 1,000 options."""
    venue = Deribit(["BTC"], **options)
    listings = {
        ("BTC", "option"): [option_row(name) for name in NAMES],
        ("BTC", "future"): [future_row("BTC-PERPETUAL")],
    }
    server = Server(venue, listings).connect()
    server.wait(3)
    assert venue.is_ready
    return venue


def tickers(rounds: int) -> list[bytes]:
    """Distinct tickers of every option, `rounds` times."""
    return [
        ticker(
            name,
            timestamp=START_MS + 100 * round_number,
            best_bid_price=round(0.0065 + 0.0001 * ((i + round_number) % 50), 4),
            underlying_price=76904.4 + i + round_number,
            mark_price=round(0.0069 + 1e-8 * i, 8),
        )
        for round_number in range(rounds)
        for i, name in enumerate(NAMES)
    ]


def microseconds(run: Callable[[], None], messages: int, repeats: int = 7) -> float:
    """Time of a message in the best of a few runs: other work on the machine only ever adds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) / messages)
    return min(times) * 1e6


def receiving(venue: Deribit, messages: list[bytes]) -> Callable[[], None]:
    """Feed messages, and take what they left."""

    def run() -> None:
        receive = venue.receive
        for message in messages:
            receive(message, START)
        venue.events()

    return run


def measure() -> dict[str, float]:
    """Every figure, in microseconds a message."""
    frames = tickers(10)
    result = {"ticker_bytes": statistics.fmean(map(len, frames))}
    venue = ready_venue()
    result["ticker_us"] = microseconds(receiving(venue, frames), len(frames))
    other = [b'{"method":"subscription",' + frame.replace(b'"method":"subscription",', b"", 1)[1:] for frame in frames]
    result["ticker_other_key_order_us"] = microseconds(receiving(venue, other), len(other))

    for rows in (100, 1000):

        def columns(rows: int = rows) -> None:
            for start in range(0, len(frames), rows):
                for frame in frames[start : start + rows]:
                    venue.receive(frame, START)
                venue.take_quotes(START)

        result[f"ticker_with_columns_{rows}_rows_us"] = microseconds(columns, len(frames))

    feed = VenueFeed([venue], clock=lambda: START)

    def merged() -> None:
        for start in range(0, len(frames), 1000):
            for frame in frames[start : start + 1000]:
                venue.receive(frame, START)
            feed.collect()

    result["ticker_to_merged_batch_us"] = microseconds(merged, len(frames))
    indexes = [index_price("btc_usd", 76900.0 + i) for i in range(1000)]
    result["index_us"] = microseconds(receiving(venue, indexes), len(indexes))

    with_books = ready_venue(books=True)
    change = {"type": "change", "timestamp": START_MS, "instrument_name": NAMES[0], "asks": []}
    books = [
        notification(
            f"book.{NAMES[0]}.100ms",
            change | {"change_id": i % 1000 + 1, "prev_change_id": i, "bids": [["change", 0.0065, 40.0 + i]]},
        )
        for i in range(1000)
    ]
    result["book_us"] = microseconds(receiving(with_books, books), len(books))
    trade = {"timestamp": START_MS, "price": 0.0639, "amount": 0.1, "direction": "sell", "trade_id": "1", "iv": 41.0}
    trades = [notification("trades.option.BTC.100ms", [trade | {"instrument_name": NAMES[i]}]) for i in range(1000)]
    result["trade_us"] = microseconds(receiving(venue, trades), len(trades))
    bad = [frame[: 20 + i % 700] for i, frame in enumerate(frames)]
    result["malformed_us"] = microseconds(receiving(venue, bad), len(bad))
    assert json.loads(frames[0])["params"]["data"] == ticker_data(NAMES[0], **json.loads(frames[0])["params"]["data"])
    return {name: round(value, 3) for name, value in result.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    arguments = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name:34s} {value:10.3f}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
