"""The peers of `volsurf bench iv`: other Python packages that invert Black's formula, those of them that are installed.

Each is called in the way that is fastest for it, and what it needs beyond raw columns (normalised prices, lists) is made
before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from volsurf.cli._iv_sets import Options

Floats = npt.NDArray[np.float64]
Solver = Callable[[], Floats]


def installed_peers(options: Options) -> dict[str, Solver]:
    """By name of the package, a call that solves all the options and returns their vols."""
    makers = {
        "lets-be-precise": _lets_be_precise,
        "vanilla-option-pricers": _vanilla_option_pricers,
        "QuantLib": _quantlib,
    }
    peers: dict[str, Solver] = {}
    for name, make in makers.items():
        try:
            peers[name] = make(options)
        except ImportError:
            continue
    return peers


def _lets_be_precise(options: Options) -> Solver:
    """Compiled, one option a call: price over min(F, K), and −|ln(F/K)|."""
    import lbp

    price = (options.price / np.minimum(options.forward, options.strike)).tolist()
    moneyness = (-np.abs(np.log(options.forward / options.strike))).tolist()
    root = np.sqrt(options.years)
    solve: Callable[[float, float], float] = lbp.black_iv

    def run() -> Floats:
        return np.fromiter(map(solve, price, moneyness), np.float64, len(price)) / root

    return run


def _vanilla_option_pricers(options: Options) -> Solver:
    """numba; its scalar solver in a compiled loop, because its batch calls want one forward and expiry for all."""
    import numba
    from vanilla_option_pricers import infer_bsm_implied_vol

    def loop(price: Floats, forward: Floats, strike: Floats, years: Floats, is_call: Any, out: Floats) -> None:
        for i in range(price.size):
            if is_call[i]:
                out[i] = infer_bsm_implied_vol(forward[i], years[i], strike[i], price[i], 1.0, "C")
            else:
                out[i] = infer_bsm_implied_vol(forward[i], years[i], strike[i], price[i], 1.0, "P")

    compiled = numba.njit(loop)
    out = np.empty(options.price.size)

    def run() -> Floats:
        compiled(options.price, options.forward, options.strike, options.years, options.is_call, out)
        return out

    return run


def _quantlib(options: Options) -> Solver:
    """`blackFormulaImpliedStdDev`, one option a call."""
    import QuantLib as ql

    kinds = [ql.Option.Call if call else ql.Option.Put for call in options.is_call.tolist()]
    columns = (kinds, options.strike.tolist(), options.forward.tolist(), options.price.tolist())
    root = np.sqrt(options.years)
    solve = ql.blackFormulaImpliedStdDev

    def run() -> Floats:
        return np.fromiter(map(solve, *columns), np.float64, len(kinds)) / root

    return run
