"""The market: reproducible, driven by the time it is told, and of the size of a real one."""

from __future__ import annotations

import numpy as np
import pytest

from volsurf.errors import InputError
from volsurf.sim.market import Market
from volsurf.sim.truth import SviSlice

START = 1_795_507_200_000_000_000
SECOND = 1_000_000_000
MONTH = START + 30 * 86_400 * SECOND


def test_same_seed_same_path_whatever_the_steps_of_the_caller() -> None:
    one, two = Market(3, start_ns=START), Market(3, start_ns=START)
    one.advance(START + 20 * SECOND)
    for now in np.sort(np.random.default_rng(0).integers(START, START + 20 * SECOND, 300)).tolist():
        two.advance(now)
    two.advance(START + 20 * SECOND)
    for underlying in one.underlyings:
        assert one.spot(underlying) == two.spot(underlying)
        assert one.truth(underlying, {MONTH: [50_000.0]}) == two.truth(underlying, {MONTH: [50_000.0]})


def test_another_seed_another_market() -> None:
    markets = [Market(seed, start_ns=START) for seed in (1, 2)]
    assert markets[0].spot("BTC") != markets[1].spot("BTC")


def test_time_that_runs_back_moves_nothing() -> None:
    market = Market(1, start_ns=START)
    assert market.advance(START + SECOND) == 10
    spot = market.spot("BTC")
    assert market.advance(START) == 0
    assert (market.spot("BTC"), market.now_ns) == (spot, START + SECOND)


@pytest.mark.parametrize("truth", ["svi", "mixture"])
def test_truth_is_what_truth_vol_and_truth_forward_say(truth: str) -> None:
    market = Market(2, start_ns=START, truth=truth)
    market.advance(START + 5 * SECOND)
    strikes = np.array([80_000.0, 90_000.0, 100_000.0])
    (slice_,) = market.truth("BTC", {MONTH: strikes, START: strikes})
    assert slice_.forward == float(market.truth_forward("BTC", MONTH))
    np.testing.assert_array_equal(slice_.vols, market.truth_vol("BTC", MONTH, strikes))
    assert slice_.atm_vol == pytest.approx(float(market.truth_vol("BTC", MONTH, slice_.forward)), rel=1e-12)
    assert isinstance(slice_.svi, SviSlice) == (truth == "svi")


def test_spot_moves_like_its_vol() -> None:
    """A day of minutes: realised volatility within what diffusion and jumps of the model give."""
    market = Market(4, ("BTC",), start_ns=START, step_ns=60 * SECOND)
    spots = [market.spot("BTC")]
    for i in range(1, 3000):
        market.advance(START + i * 60 * SECOND)
        spots.append(market.spot("BTC"))
    realised = np.std(np.diff(np.log(spots))) * np.sqrt(365 * 1440)
    # Diffusion 0.42, and 150 jumps a day of 12 bp add 0.28 in quadrature.
    assert 0.45 < realised < 0.56


def test_no_activity_no_moves() -> None:
    market = Market(4, ("ETH",), start_ns=START, activity=0.0)
    spot = market.spot("ETH")
    market.advance(START + 10 * SECOND)
    assert market.spot("ETH") == pytest.approx(spot, rel=1e-6)


def test_forwards_carry_and_the_nearest_of_solana_is_the_index() -> None:
    market = Market(1, start_ns=START)
    far, near = START + 365 * 86_400 * SECOND, START + 86_400 * SECOND
    assert 1.005 < float(market.truth_forward("BTC", far)) / market.spot("BTC") < 1.045
    assert float(market.truth_forward("SOL", near)) == market.spot("SOL")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"underlyings": ("DOGE",)}, "DOGE"),
        ({"truth": "heston"}, "heston"),
        ({"step_ns": 0}, "longer than 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Market(1, start_ns=START, **arguments)  # type: ignore[arg-type]


def test_unknown_underlying_is_named() -> None:
    with pytest.raises(InputError, match="XRP"):
        Market(1, start_ns=START).spot("XRP")
