"""What the simulated OKX lists: names, ticks, strikes, and the rows of its `instruments` and `instrument-tick-bands` pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from volsurf.instruments import Instrument, Kind, Settlement
from volsurf.sim.listing import Listing, from_ns
from volsurf.sim.market import Market
from volsurf.sim.profiles import Family, VenueProfile

KINDS = {Kind.OPTION: "OPTION", Kind.FUTURE: "FUTURES", Kind.PERPETUAL: "SWAP"}
LIVE, PREOPEN, SUSPENDED, EXPIRED = "live", "preopen", "suspend", "expired"

_FUTURES = {"BTC": (0.1, 100.0), "ETH": (0.01, 10.0)}
"""Tick and dollars of one contract of the inverse futures and swaps, which are listed for reference."""
_CODE = 264_000
_LAST_BAND = {Settlement.INVERSE: "10000000", Settlement.LINEAR: "150000"}


def text(value: float) -> str:
    """A number as the venue writes it: plain decimals, no exponent, `""` for none."""
    return "" if value != value else f"{value:.10f}".rstrip("0").rstrip(".")


def family_name(family: Family) -> str:
    """`BTC-USD`, `BTC-USD_UM`, `BTC-USDC`."""
    stablecoins = "_UM" if family.settlement is Settlement.LINEAR and family.quote_currency == "USD" else ""
    return f"{family.underlying}-{family.quote_currency}{stablecoins}"


class OkxListing(Listing):
    """The universe of one market as OKX lists it.

    Beside every row of `universe` stand its name, its family, and the object of the `instruments` page without its state
    (`objects`). `state` has what is not simply live or expired.
    """

    def __init__(self, market: Market, profile: VenueProfile) -> None:
        self.objects: list[dict[str, Any]] = []
        self.state: dict[int, str] = {}
        families = []
        for family in profile.families:
            if family.settlement is Settlement.INVERSE and family.underlying in _FUTURES:
                tick, contract = _FUTURES[family.underlying]
                family = replace(family, dated_futures=True, perpetual=True, future_tick=tick, future_contract=contract)
            families.append(family)
        super().__init__(market, "okx", families, profile.expiries)

    def symbol(self, family: Family, kind: Kind, expiry_ns: int, strike: float, is_call: bool) -> str:
        """`BTC-USD-261225-77000-C`, `BTC-USD_UM-261225-77000-C`, `BTC-USD-261225`, `BTC-USD-SWAP`."""
        name = family_name(family)
        if kind is Kind.PERPETUAL:
            return f"{name}-SWAP"
        option = f"-{text(strike)}-{'C' if is_call else 'P'}" if kind is Kind.OPTION else ""
        return f"{name}-{from_ns(expiry_ns):%y%m%d}{option}"

    def added(self, row: int, instrument: Instrument, family: Family, period: str, listed_ns: int) -> None:
        """Keep what the `instruments` page says of it."""
        self.objects.append(_object(instrument, family, listed_ns, row))

    def state_of(self, row: int) -> str:
        """Its state now."""
        return self.state.get(row, LIVE) if self.universe.active[row] else EXPIRED

    def page(self, kind: str, uly: str, family: str) -> list[msgspec.Raw] | None:
        """Rows of the `instruments` page that are not expired; None where there is no such underlying or family."""
        if kind not in KINDS.values():
            return None
        known = [name for f in self.families for name in (f"{f.underlying}-{f.quote_currency}", family_name(f))]
        if (uly and uly not in known) or (family and family not in known):
            return None
        return [
            self.api_row(row)
            for row in np.flatnonzero(self.universe.active).tolist()
            if self.objects[row]["instType"] == kind
            and uly in ("", self.objects[row]["uly"])
            and family in ("", self.objects[row]["instFamily"])
        ]

    def api_row(self, row: int) -> msgspec.Raw:
        """The object of an instrument as it is now."""
        return msgspec.Raw(msgspec.json.encode(self.objects[row] | {"state": self.state_of(row)}))

    def bands(self) -> list[dict[str, Any]]:
        """Rows of the tick-bands page of options, the venue's own slip included: linear bands overlap from 0.005 on."""
        rows = []
        for family in self.families:
            steps = family.tick_steps
            ends = [text(above) for above, _ in steps] + [_LAST_BAND[family.settlement]]
            starts = ["0", *("0.005" for _ in steps)]
            ticks = [family.tick, *(tick for _, tick in steps)]
            band = [
                {"minPx": low, "maxPx": high, "tickSz": text(tick)}
                for low, high, tick in zip(starts, ends, ticks, strict=True)
            ]
            rows.append({"instType": "OPTION", "instFamily": family_name(family), "tickBand": band})
        return rows


def _object(instrument: Instrument, family: Family, listed_ns: int, row: int) -> dict[str, Any]:
    inverse, option = instrument.settlement is Settlement.INVERSE, instrument.kind is Kind.OPTION
    in_dollars = inverse and not option
    size = instrument.contract_size
    empty = [
        "alias",
        "auctionEndTime",
        "baseCcy",
        "contTdSwTime",
        "freq",
        "lever",
        "longPosRemainingQuota",
        "maxMktAmt",
        "maxPlatOILmt",
        "method",
        "openType",
        "posLmtAmt",
        "posLmtPct",
        "preMktSwTime",
        "quoteCcy",
        "seriesId",
    ]
    return {
        **dict.fromkeys(empty, ""),
        "category": "1",
        "ctMult": "1" if in_dollars else text(size),
        "ctType": "inverse" if inverse else "linear",
        "ctVal": text(size) if in_dollars else "1",
        "ctValCcy": "USD" if in_dollars else instrument.underlying,
        "expTime": str(instrument.expiry_ns // 1_000_000) if instrument.expiry_ns else "",
        "futureSettlement": False,
        "groupId": "1",
        "instCategory": "1",
        "instFamily": family_name(family),
        "instId": instrument.symbol,
        "instIdCode": _CODE + row,
        "instType": KINDS[instrument.kind],
        "listTime": str(listed_ns // 1_000_000),
        "lotSz": "1",
        "maxIcebergSz": "1000000.0000000000000000",
        "maxLmtAmt": "20000000",
        "maxLmtSz": "1000000",
        "maxMktSz": "5000",
        "maxStopSz": "5000",
        "maxTriggerSz": "1000000.0000000000000000",
        "maxTwapSz": "1000000.0000000000000000",
        "minSz": "1",
        "optType": ("C" if instrument.is_call else "P") if option else "",
        "ruleType": "normal",
        "settleCcy": instrument.underlying if inverse else family.quote_currency,
        "shortPosRemainingQuota": "",
        "stk": text(instrument.strike),
        "tickSz": text(instrument.tick_size),
        "tradeQuoteCcyList": [],
        "uly": f"{family.underlying}-{family.quote_currency}",
        "upcChg": [],
    }
