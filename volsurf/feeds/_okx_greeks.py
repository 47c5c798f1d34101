"""OKX's own greeks and vols of one option, as it last told them: reference, off the hot path."""

from __future__ import annotations

from math import nan

from volsurf.feeds._okx_messages import OptSummary, nanoseconds, number
from volsurf.feeds.protocol import VenueGreeks

VOL_CAP = 5.0
"""What `bidVol` and `askVol` say where the vol is 500 % or more: a cap, not a vol."""
LEVER_CAP = 10_000.0
"""What `lever` says where a premium is worth a ten-thousandth of the forward or less."""


def greeks_of(summary: OptSummary, *, in_coin: bool) -> VenueGreeks:
    """The numbers of a row.

    Args:
        in_coin: the premium is paid in coin: the greeks without a suffix are then of the premium itself, and adjusted by it
            (`delta` is `deltaBS` less the premium). What they are of a linear option is not documented, so they are left out.
    """
    coin = [number(getattr(summary, name)) if in_coin else nan for name in ("delta", "gamma", "vega", "theta")]
    return VenueGreeks(
        venue_time_ns=nanoseconds(summary.ts),
        forward=positive(summary.fwdPx),
        mark_vol=positive(summary.markVol),
        bid_vol=side_vol(summary.bidVol),
        ask_vol=side_vol(summary.askVol),
        delta=number(summary.deltaBS),
        gamma=number(summary.gammaBS),
        vega=number(summary.vegaBS),
        theta=number(summary.thetaBS),
        coin_delta=coin[0],
        coin_gamma=coin[1],
        coin_vega=coin[2],
        coin_theta=coin[3],
    )


def positive(text: str) -> float:
    """A number above 0, else NaN: `""` and `"0"` both stand for "none"."""
    value = number(text)
    return value if value > 0 else nan


def side_vol(text: str) -> float:
    """A vol of a side, NaN where there is none: `""`, `"0"` and the cap."""
    value = number(text)
    return value if 0 < value < VOL_CAP else nan


def coin_mark(lever: str) -> float:
    """The mark of a coin-settled option, in coin, from its leverage.

    OKX gives no mark price here, but `lever` is the forward over it: on 26 captured rows 1/lever is Black-76 of `fwdPx` and
    `markVol` to 3.3e-4 of itself, where it is not at its cap.
    """
    value = number(lever)
    return 1.0 / value if 0 < value < LEVER_CAP else nan
