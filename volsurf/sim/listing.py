"""Which expiries and strikes a crypto-option exchange lists, and when they roll.

Four dailies, three Fridays, three last Fridays of a month, four last Fridays of a quarter, all at 08:00 UTC; strikes on
round numbers, dense near the money. At least eleven expiries at any time of any year. Names and ticks are the venue's: it
derives from `Listing`, which does the rest.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from volsurf.instruments import NANOSECONDS_PER_YEAR, FloatArray, IdArray, Instrument, Kind, Universe
from volsurf.sim.market import UNDERLYINGS, Market

if TYPE_CHECKING:
    from volsurf.sim.profiles import Family

EXPIRY_HOUR = 8
_NANOSECONDS = 1_000_000_000
_DAY = timedelta(days=1)
_DAY_NS = 86_400_000_000_000
_DENSITY = {"day": 6.5, "week": 8.5, "month": 9.5}
"""Strikes per deviation by kind of expiry, before a venue's own density."""
_ZONES = ((-3.0, -1.8, 4.0), (-1.8, -0.9, 2.0), (-0.9, 0.9, 1.0), (0.9, 1.8, 2.0), (1.8, 3.5, 4.0))
"""Of a strike grid: from and to, in deviations of ln spot at expiry, and the step as a multiple of the finest."""


@dataclass(frozen=True, slots=True)
class ExpiryRules:
    """How many of each kind are listed."""

    dailies: int = 4
    weeklies: int = 3
    monthlies: int = 3
    quarterlies: int = 4


def to_ns(moment: datetime) -> int:
    """Nanoseconds UTC of an aware datetime, exact."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * _NANOSECONDS + delta.microseconds * 1000


def from_ns(time_ns: int) -> datetime:
    """Aware datetime of nanoseconds UTC, cut to microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)


def listed_expiries(now_ns: int, rules: ExpiryRules = ExpiryRules()) -> dict[int, str]:
    """Expiries listed at an instant, `{expiry_ns: "day" | "week" | "month"}` in order; one that is due now is gone."""
    now = from_ns(now_ns)
    first = now.replace(hour=EXPIRY_HOUR, minute=0, second=0, microsecond=0)
    if first <= now:
        first += _DAY
    found: dict[int, str] = {}
    friday = first + (4 - first.weekday()) % 7 * _DAY
    last_fridays = list(_last_fridays(first, 3 * rules.quarterlies + rules.monthlies))
    quarters = [day for day in last_fridays if day.month % 3 == 0][: rules.quarterlies]
    # The longest-lived kind names the settlement period, so it is entered last.
    for days, period in (
        ((first + i * _DAY for i in range(rules.dailies)), "day"),
        ((friday + 7 * i * _DAY for i in range(rules.weeklies)), "week"),
        (iter(last_fridays[: rules.monthlies] + quarters), "month"),
    ):
        found.update((to_ns(day), period) for day in days)
    return dict(sorted(found.items()))


def _last_fridays(first: datetime, months: int) -> Iterator[datetime]:
    year, month = first.year, first.month
    produced = 0
    while produced < months:
        year_next, month_next = (year + 1, 1) if month == 12 else (year, month + 1)
        last = first.replace(year=year_next, month=month_next, day=1) - _DAY
        day = last - (last.weekday() - 4) % 7 * _DAY
        if day >= first:
            produced += 1
            yield day
        year, month = year_next, month_next


def round_step(raw: float) -> float:
    """The largest of 1, 2, 2.5 and 5 times a power of ten that is not above `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    # The quotient of a power of ten by itself may come out a hair below 1.
    return power * max(m for m in (0.5, 1.0, 2.0, 2.5, 5.0) if m <= raw / power * (1 + 1e-12))


def strike_grid(spot: float, vol: float, years: float, *, density: float, smallest_step: float) -> FloatArray:
    """Strikes an exchange lists for one expiry, rising, shape (n,).

    One step within 0.9 deviations of the money, twice that to 1.8 and four times to the ends at −3 and +3.5, each in
    proportion to the strikes of its zone: a year out the lowest strikes lie as close in ln K as the highest.

    Args:
        density: strikes per deviation near the money.
        smallest_step: the venue's finest grid for this underlying.
    """
    deviation = vol * math.sqrt(years)
    strikes: list[FloatArray] = []
    for low, high, multiple in _ZONES:
        centre = spot * math.exp(0.5 * (low + high) * deviation)
        size = max(smallest_step, round_step(multiple * centre * deviation / density))
        start = math.ceil(spot * math.exp(low * deviation) / size - 1e-9)
        stop = math.floor(spot * math.exp(high * deviation) / size + 1e-9)
        # Multiples of the step counted in integers, so that 142.5 is 285 halves and not a sum of roundings.
        strikes.append(np.round(np.arange(max(start, 1), stop + 1) * size, 10))
    return np.unique(np.concatenate(strikes))


@dataclass(frozen=True, slots=True)
class _Grid:
    """How the strikes of an expiry were laid out: around which spot last, and with which steps."""

    spot: float
    years: float


class Listing(ABC):
    """The universe of one market as one venue lists it; `update` lists and retires as time and spot go on.

    Beside every row of `universe` stand its name and its family. A venue says what things are called (`symbol`) and may keep
    more beside a row (`added`, called once for each, in order).

    Args:
        market: its spots say where the strikes are.
        venue: written into the instruments.
        families: what is listed. Underlyings the market does not have are left out.
        expiries: how many of each kind.
    """

    def __init__(
        self, market: Market, venue: str, families: Sequence[Family], expiries: ExpiryRules = ExpiryRules()
    ) -> None:
        self.market = market
        self.venue = venue
        self.families = tuple(f for name in market.underlyings for f in families if f.underlying == name)
        self.universe = Universe()
        self.names: list[str] = []
        self.family: list[Family] = []
        self.row_of: dict[str, int] = {}
        self._rules = expiries
        self._expiries: dict[int, str] = {}
        self._grids: dict[tuple[Family, int], _Grid] = {}
        self._next_expiry_ns = 0
        for family in self.families:
            if family.perpetual:
                self._add(family, 0, "perpetual", market.now_ns, kind=Kind.PERPETUAL)

    @abstractmethod
    def symbol(self, family: Family, kind: Kind, expiry_ns: int, strike: float, is_call: bool) -> str:
        """The venue's name of an instrument."""

    def price_index(self, family: Family) -> str:
        """The venue's name of the index that settles a family."""
        return f"{family.underlying}-{family.quote_currency}"

    def added(self, row: int, instrument: Instrument, family: Family, period: str, listed_ns: int) -> None:
        """An instrument was listed; `period` is "day", "week", "month" or "perpetual". Here there is no more to keep."""
        return

    def update(self, now_ns: int) -> tuple[list[int], list[int]]:
        """List what is due and retire what expired; returns (added rows, retired rows)."""
        retired: IdArray = np.zeros(0, np.int32)
        if now_ns >= self._next_expiry_ns:
            expiry = self.universe.expiry_ns
            retired = np.flatnonzero(self.universe.active & (expiry > 0) & (expiry <= now_ns)).astype(np.int32)
            if len(retired):
                self.universe.retire(retired)
            self._expiries = listed_expiries(now_ns, self._rules)
            self._next_expiry_ns = min(self._expiries)
        first = len(self.names)
        # Of what is there at the first call the venue says that it was listed a day ago; of the rest, now.
        listed_ns = now_ns if self._grids else now_ns - _DAY_NS
        for family in self.families:
            self._list(family, now_ns, listed_ns)
        return list(range(first, len(self.names))), retired.tolist()

    def forget(self, underlying: str, expiry_ns: int) -> None:
        """Never list an expiry of an underlying again; what is listed of it is the caller's to retire."""
        for family in self.families:
            if family.underlying == underlying:
                self._grids[family, expiry_ns] = _Grid(math.inf, 0.0)

    def chain(self, underlying: str) -> dict[int, FloatArray]:
        """Listed strikes of every expiry, `{expiry_ns: strikes}`."""
        ids = self.universe.options(underlying)
        expiry, strike = self.universe.expiry_ns[ids], self.universe.strike[ids]
        return {int(e): np.unique(strike[expiry == e]) for e in np.unique(expiry)}

    def _list(self, family: Family, now_ns: int, listed_ns: int) -> None:
        underlying, spot = family.underlying, self.market.spot(family.underlying)
        for expiry_ns, period in self._expiries.items():
            # A contract's last day keeps the grid of its second: strikes are not listed an hour before they expire.
            years = max(expiry_ns - now_ns, 2 * _DAY_NS) / NANOSECONDS_PER_YEAR
            vol = UNDERLYINGS[underlying].levels.long_vol
            grid = self._grids.get((family, expiry_ns))
            if grid is not None and (
                math.isinf(grid.spot) or abs(math.log(spot / grid.spot)) < 0.5 * vol * math.sqrt(years)
            ):
                continue
            # Spot has moved half a deviation: the same grid is laid out again around it. Its steps stay those of the first
            # time, else every expiry would fill with ever finer strikes as it comes near.
            years = grid.years if grid is not None else years
            self._grids[family, expiry_ns] = _Grid(spot, years)
            density = _DENSITY[period] * family.density
            strikes = strike_grid(spot, vol, years, density=density, smallest_step=family.smallest_step)
            if grid is None and period != "day" and family.dated_futures:
                self._add(family, expiry_ns, period, listed_ns, kind=Kind.FUTURE)
            for strike in strikes.tolist():
                for is_call in (True, False):
                    self._add(family, expiry_ns, period, listed_ns, strike=strike, is_call=is_call)

    def _add(
        self,
        family: Family,
        expiry_ns: int,
        period: str,
        listed_ns: int,
        *,
        kind: Kind = Kind.OPTION,
        strike: float = math.nan,
        is_call: bool = False,
    ) -> None:
        name = self.symbol(family, kind, expiry_ns, strike, is_call)
        if name in self.row_of:
            return
        option = kind is Kind.OPTION
        instrument = Instrument(
            venue=self.venue,
            symbol=name,
            kind=kind,
            underlying=family.underlying,
            settlement=family.settlement,
            quote_currency=family.quote_currency,
            expiry_ns=expiry_ns,
            strike=strike,
            is_call=is_call,
            tick_size=family.tick if option else family.future_tick,
            tick_steps=family.tick_steps if option else (),
            contract_size=family.contract_size if option else family.future_contract,
            price_index=self.price_index(family),
        )
        self.universe.add([instrument])
        row = self.row_of[name] = len(self.names)
        self.names.append(name)
        self.family.append(family)
        self.added(row, instrument, family, period, listed_ns)
