"""Bump-and-reprice risk of a portfolio: what each bump of the surface does to its value, in coin and in the strike's currency.

Every bump is made both ways and the whole portfolio repriced at each: nothing is linearised.

    pnl         (V(+size) - V(-size))/2       the part that changes sign with the bump
    convexity   V(+size) + V(-size) - 2 V(0)  what is gained whichever way it goes

The node bumps are a partition of the parallel one (see `volsurf.surface.bumps`), so their P&Ls add up to its: by construction in
first and second order, because `pnl` has no second, and to a difference of third order that `RiskTable.residual_usd` gives.
Time goes one way: its `down` is minus its `up`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volsurf.errors import InputError
from volsurf.instruments import FloatArray, IntArray
from volsurf.iv.black import black_price
from volsurf.surface.bumps import NODES, Bump, BumpedSurface, GridCheck, check_vols
from volsurf.surface.interpolation import Curve, forward_at, vol_of
from volsurf.surface.portfolio import value_positions
from volsurf.surface.positions import Portfolio

if TYPE_CHECKING:
    import polars as pl

    from volsurf.surface.surface import Surface

__all__ = ["Bump", "RiskTable", "default_bumps", "risk_of"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RiskTable:
    """P&L of n positions under m bumps, of each bump's own size; arrays have shape (m, n)."""

    portfolio: Portfolio
    bumps: tuple[Bump, ...]
    up_usd: FloatArray
    """Change of value under the bump, in the strike's currency at each position's own (bumped) forward."""
    down_usd: FloatArray
    """Under the bump the other way."""
    up_coin: FloatArray
    down_coin: FloatArray
    checks: tuple[tuple[GridCheck, GridCheck], ...]
    """Of each bump, whether the surface bumped up and bumped down is still free of arbitrage."""
    expiries: IntArray
    """Of the node bumps, ns UTC."""

    def __repr__(self) -> str:
        return f"RiskTable({len(self.bumps)} bumps of {self.up_usd.shape[1]} positions)\n{self.to_polars()}"

    @property
    def pnl_usd(self) -> FloatArray:
        """The odd part, shape (m, n)."""
        return 0.5 * (self.up_usd - self.down_usd)

    @property
    def pnl_coin(self) -> FloatArray:
        """As `pnl_usd`, in coin."""
        return 0.5 * (self.up_coin - self.down_coin)

    @property
    def convexity_usd(self) -> FloatArray:
        """The even part, shape (m, n)."""
        return self.up_usd + self.down_usd

    @property
    def convexity_coin(self) -> FloatArray:
        """As `convexity_usd`, in coin."""
        return self.up_coin + self.down_coin

    @property
    def total_usd(self) -> FloatArray:
        """`pnl_usd` of the whole portfolio, shape (m,)."""
        return np.asarray(self.pnl_usd.sum(axis=1))

    @property
    def total_coin(self) -> FloatArray:
        """As `total_usd`, in coin."""
        return np.asarray(self.pnl_coin.sum(axis=1))

    @property
    def is_free(self) -> bool:
        """No bump of the table leaves arbitrage that its grid can see."""
        return all(up and down for up, down in self.checks)

    @property
    def vega_usd(self) -> FloatArray:
        """P&L of the whole portfolio under each node bump, shape (expiries, nodes); sum over an axis for buckets.

        Raises:
            InputError: the table has no node bumps.
        """
        return self._by_node(self.total_usd)

    @property
    def vega_coin(self) -> FloatArray:
        """As `vega_usd`, in coin."""
        return self._by_node(self.total_coin)

    @property
    def residual_usd(self) -> float:
        """P&L of the parallel bump that the node bumps together do not explain.

        Raises:
            InputError: the table has no node bumps, or no parallel one.
        """
        for bump, total in zip(self.bumps, self.total_usd.tolist(), strict=True):
            if bump.kind == "parallel":
                return float(total - self.vega_usd.sum())
        raise InputError("the table has no parallel bump: add Bump.parallel()")

    def _by_node(self, total: FloatArray) -> FloatArray:
        if not self.expiries.size:
            raise InputError("the table has no node bumps: leave bumps= out, or add Bump.at_node(expiry_ns, node)")
        result = np.zeros((len(self.expiries), len(NODES)))
        for bump, value in zip(self.bumps, total.tolist(), strict=True):
            if bump.kind == "node":
                result[np.searchsorted(self.expiries, bump.expiry_ns), NODES.index(bump.node)] += value
        return result

    def to_polars(self, rows: str = "bumps") -> pl.DataFrame:
        """One row a bump with its totals, or with `rows="positions"` one a bump and position."""
        import polars as pl

        if rows not in ("bumps", "positions"):
            raise InputError(f'rows must be "bumps" or "positions", was {rows!r}')
        labels = [b.label for b in self.bumps]
        if rows == "positions":
            n = len(self.portfolio)
            names = [self.portfolio.name(i) for i in range(n)]
            return pl.DataFrame(
                {
                    "bump": [label for label in labels for _ in range(n)],
                    "position": names * len(labels),
                    "pnl_usd": self.pnl_usd.ravel(),
                    "pnl_coin": self.pnl_coin.ravel(),
                    "convexity_usd": self.convexity_usd.ravel(),
                    "convexity_coin": self.convexity_coin.ravel(),
                }
            )
        return pl.DataFrame(
            {
                "bump": labels,
                "kind": [b.kind for b in self.bumps],
                "size": [b.size for b in self.bumps],
                "pnl_usd": self.total_usd,
                "pnl_coin": self.total_coin,
                "up_usd": self.up_usd.sum(axis=1),
                "down_usd": self.down_usd.sum(axis=1),
                "convexity_usd": self.convexity_usd.sum(axis=1),
                "convexity_coin": self.convexity_coin.sum(axis=1),
                "free_of_arbitrage": [bool(up) and bool(down) for up, down in self.checks],
                "evidence": [check_sentence(up, down) for up, down in self.checks],
            }
        )

    def _repr_html_(self) -> str:
        from volsurf.surface.risk_html import risk_html

        return risk_html(self)


def check_sentence(up: GridCheck, down: GridCheck) -> str:
    """What the checks of a bump both ways say: the first that fails, with its direction, or that both hold."""
    for way, check in (("up", up), ("down", down)):
        if not check:
            return f"bumped {way}: {check.sentence}"
    return up.sentence


def default_bumps(surface: Surface) -> tuple[Bump, ...]:
    """Parallel, tilt, skew, curvature, both forwards, a day, and a node bump for every fitted expiry and node."""
    expiries = surface.expiries[surface.fitted].tolist()
    return (
        Bump.parallel(),
        Bump.tilt(),
        Bump.skew(),
        Bump.curvature(),
        Bump.forward(),
        Bump.forward(sticky="strike"),
        Bump.time(),
        *(Bump.at_node(expiry, node) for expiry in expiries for node in NODES),
    )


def risk_of(surface: Surface, portfolio: Portfolio, bumps: Sequence[Bump] | None = None) -> RiskTable:
    """The table of a portfolio; `default_bumps` where none are given.

    Raises:
        InputError: bumps that take a vol to zero or below.
    """
    bumps = default_bumps(surface) if bumps is None else tuple(bumps)
    book = _Book(surface, portfolio)
    shape = (len(bumps), len(portfolio))
    up_usd, down_usd, up_coin, down_coin = (np.zeros(shape) for _ in range(4))
    checks = []
    for row, bump in enumerate(bumps):
        up_usd[row], up_coin[row] = book.change(bump)
        up = BumpedSurface(surface, (bump,)).check()
        if bump.kind == "time":
            down_usd[row], down_coin[row], down = -up_usd[row], -up_coin[row], up
        else:
            back = bump.reversed()
            down_usd[row], down_coin[row] = book.change(back)
            down = BumpedSurface(surface, (back,)).check()
        checks.append((up, down))
    nodes = np.unique(np.array([b.expiry_ns for b in bumps if b.kind == "node"], np.int64))
    return RiskTable(portfolio, bumps, up_usd, down_usd, up_coin, down_coin, tuple(checks), nodes)


class _Book:
    """A portfolio with everything worked out that vol bumps leave as it is, so that each reprices only what it touches."""

    def __init__(self, surface: Surface, portfolio: Portfolio) -> None:
        self.surface, self.portfolio = surface, portfolio
        self.usd, self.coin = value_positions(BumpedSurface(surface, ()), portfolio)
        self.rows = np.flatnonzero(portfolio.is_option)
        self.at = portfolio.years[self.rows]
        self.forward = forward_at(surface, self.at)
        self.strike = portfolio.strike[self.rows]
        k = np.log(self.strike / self.forward)
        curve = Curve(surface, self.at)
        self.vol = vol_of(curve(k)[0], self.at)
        self.y = k / vol_of(curve(np.zeros(()))[0], 1.0)
        self.size = (portfolio.quantity * portfolio.contract_size)[self.rows]

    def change(self, bump: Bump) -> tuple[FloatArray, FloatArray]:
        """Change of value of every position, in the strike's currency and in coin."""
        if not bump.is_vol:
            usd, coin = value_positions(BumpedSurface(self.surface, (bump,)), self.portfolio)
            return usd - self.usd, coin - self.coin
        change = np.zeros(len(self.portfolio))
        shape = bump.shape(self.surface, self.y, self.at)[0]
        touched = np.flatnonzero(shape)
        if touched.size:
            rows = self.rows[touched]
            vol = self.vol[touched] + bump.size * shape[touched]
            check_vols(vol, (bump,))
            price = black_price(
                self.forward[touched], self.strike[touched], self.at[touched], vol, self.portfolio.is_call[rows]
            )
            change[rows] = price * self.size[touched] - self.usd[rows]
        forward = np.ones(len(change))
        forward[self.rows] = self.forward
        return change, change / forward
