"""From the simulated Deribit to the frame: what a venue may do wrong, against the truth, and the log that repeats it all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import ROOT
from tests.engine.pipeline import SECOND, Mangle, Pipeline, unchanged
from volsurf.engine.core import Core, frames_of
from volsurf.engine.log import log_from_bytes, log_to_bytes
from volsurf.feeds.protocol import Health
from volsurf.sim.listing import to_ns

Ticker = dict[str, Any]
VOL_BP = 1e-4
FRIDAY = to_ns(datetime(2026, 11, 27, 8, tzinfo=UTC))
"""An expiry."""


def tickers(change: Callable[[Ticker, int], object], part: str = "") -> Mangle:
    """Every ticker of a channel that holds `part`, changed in place; the number says which of them it is."""
    count = 0

    def mangle(message: bytes) -> tuple[bytes, ...]:
        nonlocal count
        if b'"channel":"ticker.' + part.encode() not in message:
            return (message,)
        whole = json.loads(message)
        count += 1
        change(whole["params"]["data"], count)
        # As Deribit writes it, and what JSON cannot hold as it might come.
        return (json.dumps(whole, separators=(",", ":")).replace('"HUGE"', "1e400").encode(),)

    return mangle


def without(text: bytes) -> Mangle:
    """Messages that hold `text` never arrive."""
    return lambda message: () if text in message else (message,)


def check_truth(pipeline: Pipeline, *, vol_bp: float = 60.0, forward_bp: float = 3.0) -> None:
    """Every listed expiry is on the board, near the truth."""
    for name, surface in pipeline.frame.surfaces.items():
        assert [smile.expiry_ns for smile in surface.smiles] == list(pipeline.frame.listed[name])
        assert pipeline.forward_error(surface) < 1e-4 * forward_bp
        assert max(pipeline.vol_errors(surface).values()) < VOL_BP * vol_bp


def crossed(data: Ticker, number: int) -> None:
    if number % 3 == 0 and data["best_bid_price"] and data["best_ask_price"]:
        data["best_bid_price"], data["best_ask_price"] = data["best_ask_price"], data["best_bid_price"]


def test_crossed_quotes_are_named_and_the_others_carry_the_smile() -> None:
    pipeline = Pipeline("BTC").ready()
    pipeline.mangle = tickers(crossed)
    pipeline.run(3.0)
    assert pipeline.frame.ledger["BTC"]["CROSSED"] > 100
    check_truth(pipeline)


def garbage(data: Ticker, number: int) -> None:
    fields = (
        "best_bid_price",
        "best_ask_amount",
        "mark_price",
        "underlying_price",
        "index_price",
        "mark_iv",
        "timestamp",
    )
    values = ("NaN", -1.0, 0, "HUGE", 1e300, None, True, [])
    if number % 2 and (field := fields[number % 7]) in data:
        data[field] = values[number // 7 % 8]


def test_numbers_that_are_none_are_counted_or_without_effect() -> None:
    pipeline = Pipeline("BTC").ready()
    pipeline.mangle = tickers(garbage)
    pipeline.run(3.0)
    assert pipeline.venue.counters["malformed.schema"] > 100
    assert any(event.kind is Health.MALFORMED for event in pipeline.health)
    check_truth(pipeline)


def test_a_forward_that_is_20_bp_off_is_corrected_by_parity_and_nonsense_is_not_believed() -> None:
    for wrong in (lambda data, _: 1.002 * data, lambda data, number: (1e12, 1e-5, -3.0, 0.0)[number % 4]):
        pipeline = Pipeline("BTC").ready()

        def change(data: Ticker, number: int, wrong: Callable[[float, int], float] = wrong) -> None:
            if "mark_iv" in data and (wrong(1.0, number) == 1.002 or number % 2):
                data["underlying_price"] = wrong(data["underlying_price"], number)

        pipeline.mangle = tickers(change)
        pipeline.run(3.0)
        check_truth(pipeline)


def test_an_expiry_that_is_no_longer_sent_grows_stale_by_itself() -> None:
    pipeline = Pipeline("BTC", step_ns=SECOND).ready()
    pipeline.mangle = without(b'"channel":"ticker.BTC-27NOV26')
    pipeline.run(310.0)
    assert pipeline.frame.ledger["BTC"]["STALE"] > 50
    (silent,) = (smile for smile in pipeline.frame.surfaces["BTC"].smiles if smile.expiry_ns == FRIDAY)
    assert not silent.used.any()
    check_truth(pipeline, forward_bp=15.0)


def test_an_index_that_stops_is_a_problem_of_the_frame_until_it_is_heard_again() -> None:
    pipeline = Pipeline("BTC").ready()
    pipeline.mangle = without(b"deribit_price_index")
    pipeline.run(12.0)
    (problem,) = pipeline.frame.problems
    assert problem.sentence.startswith("deribit: index btc_usd silent for 10 s")
    assert pipeline.frame.health["deribit"].is_live
    pipeline.mangle = unchanged
    pipeline.run(2.0)
    assert pipeline.frame.problems == ()
    check_truth(pipeline)


def test_a_clock_that_is_not_the_venues_is_a_problem_of_the_frame() -> None:
    pipeline = Pipeline("BTC").ready()

    def behind(message: bytes) -> tuple[bytes, ...]:
        if b'"channel":"deribit_price_index' not in message:
            return (message,)
        whole = json.loads(message)
        whole["params"]["data"]["timestamp"] -= 90_000
        return (json.dumps(whole).encode(),)

    pipeline.mangle = behind
    pipeline.run(3.0)
    (problem,) = pipeline.frame.problems
    assert problem.sentence == "deribit: this machine's clock is 90 s ahead of the venue's: vols are off"
    pipeline.mangle = unchanged
    pipeline.run(3.0)
    assert pipeline.frame.problems == ()


def test_a_listing_with_impossible_strikes_costs_only_those() -> None:
    names = ("BTC-27NOV26-0-C", "BTC-27NOV26--100-P", "BTC-31FEB27-50000-C")

    def mangle(message: bytes) -> tuple[bytes, ...]:
        if b'"result":[{' not in message or b'"strike"' not in message:
            return (message,)
        whole = json.loads(message)
        first = whole["result"][0]
        strange = [first | {"instrument_name": n, "strike": s} for n, s in zip(names, (0, -100, 50_000), strict=True)]
        whole["result"] = [*strange, first | {"tick_size": -1}, 17, None, *whole["result"]]
        return (json.dumps(whole).encode(),)

    pipeline = Pipeline("BTC")
    pipeline.mangle = mangle
    pipeline.run(2.0)
    assert pipeline.venue.counters["malformed.listing"] == 6
    assert not any(name in {i.symbol for i in pipeline.core.universe} for name in names)
    check_truth(pipeline)


def test_an_expiry_rolls_off_and_the_next_one_comes_without_a_gap() -> None:
    expiry = FRIDAY
    pipeline = Pipeline("BTC", "SOL_USDC", start_ns=expiry - 31 * 60 * SECOND, step_ns=4 * SECOND)
    pipeline.run(8.0)
    before = {name: pipeline.frame.listed[name] for name in ("BTC", "SOL")}
    assert all(listed[0] == expiry for listed in before.values())
    while pipeline.now < expiry + 60 * SECOND:
        frame = pipeline.run(4.0)
        for name, surface in frame.surfaces.items():
            assert surface.smiles[0].expiry_ns > pipeline.now
            assert all(smile.fit is not None for smile in surface.smiles)
            # In its last half hour an expiry settles on an average: it is neither fitted nor missed.
            assert (expiry in frame.listed[name]) == (pipeline.now < expiry - 30 * 60 * SECOND)
    for name, listed in before.items():
        after = pipeline.frame.listed[name]
        assert set(after) > set(listed[1:])
        assert [smile.expiry_ns for smile in pipeline.frame.surfaces[name].smiles] == list(after)
    assert all(smile.used.any() for surface in pipeline.frame.surfaces.values() for smile in surface.smiles)
    # Between two frames the market moves for four seconds here, and spreads are three vol points wide.
    check_truth(pipeline, vol_bp=150.0)
    universe = pipeline.core.universe
    assert not (universe.active & (universe.expiry_ns == expiry)).any()
    assert np.isnan(pipeline.core.board.bid[universe.expiry_ns == expiry]).all()


def eventful_log() -> tuple[bytes, list[str]]:
    """What the core was told in ten seconds in which much went wrong, and the hashes of its frames."""
    pipeline = Pipeline("BTC", "ETH", "SOL_USDC", step_ns=SECOND // 5, truth="mixture")
    hashes: list[str] = []

    def run(seconds: float) -> None:
        hashes.extend(pipeline.run(0.2).hash.hex() for _ in range(round(5 * seconds)))

    run(2.0)
    pipeline.mangle = tickers(crossed)
    run(1.0)
    pipeline.mangle = tickers(garbage)
    run(1.0)
    pipeline.mangle = unchanged
    pipeline.disconnect("test")
    pipeline.connect()
    run(2.0)
    # The core starts again: it is told everything from the beginning.
    pipeline.outbox.begin()
    run(2.0)
    assert len(set(hashes)) > 30
    return log_to_bytes(pipeline.log), hashes


REPLAY = """
import sys
from pathlib import Path
from volsurf.engine.core import Core, frames_of
from volsurf.engine.log import log_from_bytes
for frame in frames_of(Core(), log_from_bytes(Path(sys.argv[1]).read_bytes())):
    print(frame.hash.hex())
"""


def test_the_log_of_a_run_gives_the_same_frames_here_and_in_another_process(tmp_path: Path) -> None:
    log, hashes = eventful_log()
    assert [frame.hash.hex() for frame in frames_of(Core(), log_from_bytes(log))] == hashes
    path = tmp_path / "log"
    path.write_bytes(log)
    # Neither the order that strings hash in nor the number of threads has a say.
    replays = [
        subprocess.Popen(
            [sys.executable, "-c", REPLAY, str(path)],
            env=os.environ | {"PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for seed, threads in (("1", "1"), ("2", "2"))
    ]
    for replay in replays:
        assert replay.communicate(timeout=60)[0].split() == hashes
