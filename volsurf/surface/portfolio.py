"""Positions priced off a surface: values and greeks in coin and in the strike's currency, with standard errors and totals.

With B(F, K, T, vol) Black-76 undiscounted, F the forward of the position's own expiry and vol the smile's at its strike,

    linear option      worth B in the strike's currency, B/F in coin
    inverse option     worth B/F coins, shown as B in the strike's currency: at its own forward, as venues quote vol
    linear future      worth F - entry in the strike's currency
    inverse future     worth 1/entry - 1/F coins a unit of the strike's currency

**Two deltas.** When the forward moves, the *sticky strike* delta keeps the vol of each strike; the *sticky moneyness*
delta moves the smile with the forward, vol = f(ln(K/F)), and so adds -vega vol'(k)/F. For inverse options both are
premium-adjusted, in coins: F d(coin value)/dF = delta - B/F, which is the hedge of P&L counted in coin (iv greeks: see
`black_greeks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import numpy as np

from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.iv.black import black_greeks, black_price
from volsurf.surface.bumps import BumpedSurface
from volsurf.surface.positions import Portfolio, Position

if TYPE_CHECKING:
    import polars as pl

    from volsurf.surface.surface import Surface

__all__ = ["Portfolio", "PortfolioValue", "Position", "View", "price_positions", "value_positions"]


class View(Protocol):
    """What positions are priced off: a surface, or one that was bumped. Times are those from the surface's own instant."""

    def forwards(self, at: FloatArray) -> FloatArray:
        """Forward of expiries `at` years away."""

    def years_left(self, at: FloatArray) -> FloatArray:
        """Time they still have to run, 0 where they have expired."""

    def vol_and_skew(self, k: FloatArray, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vol at log-moneyness k and its derivative by k."""


@dataclass(frozen=True, slots=True, eq=False)
class PortfolioValue:
    """Values and greeks of a portfolio. Columns have shape (n,) and count the whole position: quantity times contract size.

    "usd" stands for the strike's currency. Greeks are those of `black_greeks` at the smile's vol, undiscounted: vega per
    1.00 of vol, theta per year.
    """

    portfolio: Portfolio
    time_ns: int
    forward: FloatArray
    """Of the position's expiry; of a perpetual, the forward curve carried back to now."""
    vol: FloatArray
    """NaN for futures and perpetuals, and `vol_error` too; for an option, and its value, where a slice that is not certified
    has no vol."""
    vol_error: FloatArray
    """Standard error of `vol`; NaN where the fit gives none."""
    price_usd: FloatArray
    """Premium of one coin's worth of the option; of a future, its forward."""
    price_coin: FloatArray
    """The premium over the forward; NaN for futures and perpetuals."""
    value_usd: FloatArray
    value_coin: FloatArray
    delta_sticky_strike: FloatArray
    """In coins, premium-adjusted where settlement is inverse."""
    delta_sticky_moneyness: FloatArray
    gamma: FloatArray
    """Change of `delta_sticky_strike` per unit of the strike's currency."""
    vega_usd: FloatArray
    vega_coin: FloatArray
    theta_usd: FloatArray
    theta_coin: FloatArray
    vanna: FloatArray
    """Change of `delta_sticky_strike` per 1.00 of vol."""
    volga_usd: FloatArray
    error_usd: FloatArray
    """Standard error of `value_usd` that the vol's brings; NaN where there is none."""
    total_error_usd: float
    """Of the total: expiries independent, the strikes of one expiry by the covariance of its fit."""

    def __len__(self) -> int:
        return len(self.portfolio)

    def __repr__(self) -> str:
        return f"PortfolioValue({len(self)} positions, {self.total['value_usd']:,.2f} usd, {self.total['value_coin']:,.6f} coin)"

    @property
    def total(self) -> Mapping[str, float]:
        """Sums over the positions, by column: values, deltas, gamma, vegas, thetas, vanna, volga."""
        return {name: float(getattr(self, name).sum()) for name in _SUMMED}

    def to_polars(self) -> pl.DataFrame:
        """One row a position."""
        import polars as pl

        p = self.portfolio
        columns: dict[str, object] = {
            "underlying": [p.underlying] * len(self),
            "name": [p.name(i) for i in range(len(self))],
            "expiry": p.expiry_ns,
            "strike": p.strike,
            "option_type": [p.type_name(i) for i in range(len(self))],
            "quantity": p.quantity,
            "settlement": np.where(p.inverse, "inverse", "linear").tolist(),
            "contract_size": p.contract_size,
        }
        columns |= {name: getattr(self, name) for name in _COLUMNS}
        frame = pl.DataFrame(columns)
        dated = pl.when(pl.col("expiry") > 0).then(pl.col("expiry")).cast(pl.Datetime("ns", "UTC"))
        return frame.with_columns(dated.alias("expiry"))

    def _repr_html_(self) -> str:
        from volsurf.surface.portfolio_html import portfolio_html

        return portfolio_html(self)


_SUMMED = (
    "value_usd",
    "value_coin",
    "delta_sticky_strike",
    "delta_sticky_moneyness",
    "gamma",
    "vega_usd",
    "vega_coin",
    "theta_usd",
    "theta_coin",
    "vanna",
    "volga_usd",
)
_COLUMNS = tuple(f.name for f in fields(PortfolioValue) if f.name not in ("portfolio", "time_ns", "total_error_usd"))


def value_positions(view: View, portfolio: Portfolio) -> tuple[FloatArray, FloatArray]:
    """Values in the strike's currency and in coin, without greeks, shape (n,)."""
    at = portfolio.years
    forward = view.forwards(at)
    usd = np.zeros(len(portfolio))
    option = portfolio.is_option
    if option.any():
        f, strike, t = forward[option], portfolio.strike[option], at[option]
        left = view.years_left(t)
        vol = view.vol_and_skew(np.log(strike / f), t)[0]
        usd[option] = black_price(f, strike, left, vol, portfolio.is_call[option])
    usd = np.where(option, usd * portfolio.quantity * portfolio.contract_size, _future_usd(portfolio, forward))
    return usd, usd / forward


def _future_usd(portfolio: Portfolio, forward: FloatArray) -> FloatArray:
    """Gain of futures and perpetuals since entry, in the strike's currency; zero where no entry is known."""
    entry = np.where(np.isnan(portfolio.entry_price), forward, portfolio.entry_price)
    per_unit = np.where(portfolio.inverse, forward / entry - 1.0, forward - entry)
    return np.asarray(per_unit * portfolio.quantity * portfolio.contract_size)


def price_positions(surface: Surface, portfolio: Portfolio, view: View | None = None) -> PortfolioValue:
    """Values and greeks of a portfolio.

    Args:
        view: what the vols are read off, where it is not the surface itself; standard errors stay the surface's.

    Raises:
        InputError: the portfolio is of another underlying.
    """
    if portfolio.underlying != surface.underlying:
        raise InputError(f"the portfolio is of {portfolio.underlying}, the surface of {surface.underlying}")
    view = BumpedSurface(surface, ()) if view is None else view
    n, at = len(portfolio), portfolio.years
    forward = view.forwards(at)
    option = portfolio.is_option
    size = portfolio.quantity * portfolio.contract_size
    column = {name: np.full(n, np.nan) for name in ("vol", "vol_error", "price_usd", "price_coin")}
    greek = {name: np.zeros(n) for name in ("delta", "moneyness", "gamma", "vega", "theta", "vanna", "volga")}
    total_error = 0.0
    if option.any():
        everything = bool(option.all())
        pick = slice(None) if everything else option
        f, strike, t, call = forward[pick], portfolio.strike[pick], at[pick], portfolio.is_call[pick]
        inverse = portfolio.inverse[pick]
        k = np.log(strike / f)
        left = view.years_left(t)
        vol, skew = view.vol_and_skew(k, t)
        price = black_price(f, strike, left, vol, call)
        raw = black_greeks(f, strike, left, vol, call)
        coin = price / f
        # Premium-adjusted greeks from the plain ones: delta - B/F and its derivatives by F and by vol.
        off = np.where(inverse, coin, 0.0)
        delta = raw.delta - off
        by_inverse = inverse / f
        greek["delta"][pick] = delta
        greek["moneyness"][pick] = delta - raw.vega * skew / f
        greek["gamma"][pick] = raw.gamma - delta * by_inverse
        greek["vanna"][pick] = raw.vanna - raw.vega * by_inverse
        for name in ("vega", "theta", "volga"):
            greek[name][pick] = getattr(raw, name)
        column["vol"][pick], column["price_usd"][pick], column["price_coin"][pick] = vol, price, coin
        from volsurf.surface.value_error import value_errors

        column["vol_error"][pick], total_error = value_errors(surface, k, t, raw.vega * size[pick])
    if not option.all():
        future = ~option
        column["price_usd"][future] = forward[future]
        one = np.where(portfolio.inverse, 1.0 / forward, 1.0)[future]
        greek["delta"][future] = greek["moneyness"][future] = one
        greek["gamma"][future] = np.where(portfolio.inverse[future], -one / forward[future], 0.0)
    usd = np.where(option, column["price_usd"] * size, _future_usd(portfolio, forward))
    vega = greek["vega"] * size
    theta = greek["theta"] * size
    return PortfolioValue(
        portfolio=portfolio,
        time_ns=surface.time_ns,
        forward=forward,
        **column,
        value_usd=usd,
        value_coin=usd / forward,
        delta_sticky_strike=greek["delta"] * size,
        delta_sticky_moneyness=greek["moneyness"] * size,
        gamma=greek["gamma"] * size,
        vega_usd=vega,
        vega_coin=vega / forward,
        theta_usd=theta,
        theta_coin=theta / forward,
        vanna=greek["vanna"] * size,
        volga_usd=greek["volga"] * size,
        error_usd=np.where(option, np.abs(vega) * column["vol_error"], 0.0),
        total_error_usd=total_error,
    )
