"""A random market that is free of arbitrage at every instant and knows its own truth.

Spots diffuse and jump, the basis and the surface's factors revert to calm levels. The path is a function of the seed, the
start and the step alone: time is handed in, and `advance` walks the steps up to it. Exchanges are separate: several venues
may list and quote on one market.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import NANOSECONDS_PER_YEAR, FloatArray, years_between
from volsurf.sim.truth import FACTOR_BOUNDS, TRUTHS, Factors, SurfaceTruth, SviSlice, VolLevels

_DAYS_PER_YEAR = 365.0


@dataclass(frozen=True, slots=True)
class UnderlyingModel:
    """Calm levels and dynamics of one underlying."""

    name: str
    spot: float
    levels: VolLevels
    spot_vol: float
    """Of the diffusion, per √year."""
    jumps_per_day: float = 150.0
    jump_size: float = 0.0012
    """Standard deviation of ln spot in one jump."""
    basis: float = 0.025
    """Annualised carry of the forwards over the index."""
    index_forward_days: float = 0.0
    """Nearer than this the venue takes the index itself as the forward, and so does the truth."""
    market_beta: float = 0.85
    """Correlation of its diffusion with the common one."""


UNDERLYINGS: dict[str, UnderlyingModel] = {
    model.name: model
    for model in (
        UnderlyingModel("BTC", 91_250.0, VolLevels(0.50, -0.20, -0.12, 0.85), 0.42),
        UnderlyingModel("ETH", 3_120.0, VolLevels(0.68, -0.16, -0.08, 0.82), 0.62, jump_size=0.0016),
        UnderlyingModel(
            "SOL", 142.0, VolLevels(0.82, -0.12, -0.04, 0.80), 0.78, jump_size=0.0022, index_forward_days=2.0
        ),
        UnderlyingModel("XRP", 1.42, VolLevels(0.86, -0.06, 0.0, 0.80), 0.80, jump_size=0.0022, index_forward_days=2.0),
    )
}
"""What can be simulated, at prices of the autumn of 2026."""

# Per factor of `Factors`, then the basis: deviation of one day's move, and mean reversion per day. The fast factor alone
# moves one-day volatility by about a tenth a day and a year's by almost nothing.
_DAILY_MOVE = np.array([0.50, 0.12, 0.02, 0.35, 0.30, 0.25])
_REVERSION = np.array([0.35, 0.035, 0.010, 0.40, 0.40, 0.30])
_SPOT_CORRELATION = np.array([-0.5, -0.4, -0.3, 0.35, 0.0, 0.3])
_BOUNDS = np.array([*(getattr(FACTOR_BOUNDS, n) for n in Factors.__dataclass_fields__), 1.0])


CURRENCIES = ("USD", "USDC", "USDT")
"""In which indices, strikes and forwards are quoted."""
# Of ln(stablecoins per dollar): long-run mean, deviation of one day's move, mean reversion per day, and the largest distance
# from the mean. They wander by a few basis points and never lose their peg here.
_STABLE_MEAN = np.array([1.0e-4, 4.0e-4])
_STABLE_MOVE = 6.0e-4
_STABLE_REVERSION = 1.5
_STABLE_BOUND = 1.2e-3


class TruthSlice(msgspec.Struct, frozen=True):
    """The true smile of one expiry at one instant, at the strikes asked for."""

    underlying: str
    expiry_ns: int
    time_ns: int
    forward: float
    years: float
    atm_vol: float
    strikes: tuple[float, ...]
    vols: tuple[float, ...]
    svi: SviSlice | None = None


@dataclass(slots=True)
class _State:
    spot: float
    latent: FloatArray
    surface: SurfaceTruth
    basis: float


class Market:
    """Spots, forwards and volatility surfaces of some underlyings, moved by `advance(now_ns)`.

    There is one volatility at each log-moneyness, whatever the currency. Prices in USDC and USDT are those in dollars times
    the stablecoin's `rate`, so an index, a forward and the strike at a given log-moneyness all stand off by the same few
    basis points.

    Args:
        seed: of everything random.
        underlyings: names of `UNDERLYINGS`.
        truth: "svi" or "mixture".
        start_ns: ns UTC at which the path starts.
        step_ns: length of one step; with an accelerated clock take a longer one.
        activity: multiplies every deviation per step; 1 is a calm day.
    """

    def __init__(
        self,
        seed: int = 1,
        underlyings: Sequence[str] = ("BTC", "ETH", "SOL"),
        *,
        truth: str = "svi",
        start_ns: int,
        step_ns: int = 100_000_000,
        activity: float = 1.0,
    ) -> None:
        if truth not in TRUTHS:
            raise InputError(f"truth must be one of {sorted(TRUTHS)}, was {truth!r}")
        if unknown := [u for u in underlyings if u not in UNDERLYINGS]:
            raise InputError(f"underlyings that can be simulated are {sorted(UNDERLYINGS)}, was {unknown}")
        if step_ns <= 0:
            raise InputError(f"a step must be longer than 0 ns, was {step_ns}")
        self.seed = seed
        self.model = truth
        self.underlyings = tuple(underlyings)
        self.start_ns = start_ns
        self.step_ns = step_ns
        self.now_ns = start_ns
        self.steps = 0
        self._rng = np.random.default_rng([seed, 1])
        self._activity = activity
        # Random numbers of their own, so that the path of the surfaces is the same with and without them.
        self._stable_rng = np.random.default_rng([seed, 4])
        self._stable = 0.5 * _STABLE_MOVE * self._stable_rng.standard_normal(2)
        self._states = {name: self._first_state(UNDERLYINGS[name]) for name in self.underlyings}

    def __repr__(self) -> str:
        spots = ", ".join(f"{name} {state.spot:.6g}" for name, state in self._states.items())
        return f"Market({self.model}, seed {self.seed}, step {self.steps}, {spots})"

    def advance(self, now_ns: int) -> int:
        """Walk to the last step at or before `now_ns`; returns the number of steps. Time that runs back moves nothing."""
        target = (now_ns - self.start_ns) // self.step_ns
        walked = max(0, target - self.steps)
        for _ in range(walked):
            self._step()
        if walked:
            self.steps = target
            self.now_ns = self.start_ns + target * self.step_ns
        return walked

    def rate(self, currency: str) -> float:
        """Units of a currency per dollar."""
        if currency == "USD":
            return 1.0
        try:
            i = CURRENCIES.index(currency) - 1
        except ValueError:
            raise InputError(f"the market has {list(CURRENCIES)}, was asked for {currency!r}") from None
        return math.exp(_STABLE_MEAN[i] + _STABLE_BOUND * math.tanh(self._stable[i] / _STABLE_BOUND))

    def spot(self, underlying: str, currency: str = "USD") -> float:
        """The index."""
        return self._state(underlying).spot * self.rate(currency)

    def years(self, expiry_ns: npt.ArrayLike) -> FloatArray:
        """Time to expiry at the market's instant, years ACT/365."""
        return years_between(self.now_ns, np.asarray(expiry_ns, np.int64))

    def truth_forward(self, underlying: str, expiry_ns: npt.ArrayLike, currency: str = "USD") -> FloatArray:
        """Forward of each expiry."""
        state = self._state(underlying)
        years = np.maximum(self.years(expiry_ns), 0.0)
        on_index = years * _DAYS_PER_YEAR < UNDERLYINGS[underlying].index_forward_days
        return np.asarray(self.spot(underlying, currency) * np.exp(np.where(on_index, 0.0, state.basis * years)))

    def truth_vol(
        self, underlying: str, expiry_ns: npt.ArrayLike, strike: npt.ArrayLike, currency: str = "USD"
    ) -> FloatArray:
        """True implied volatility, a decimal; expiry and strike (in that currency) broadcast."""
        years = np.maximum(self.years(expiry_ns), 1e-7)
        k = np.log(np.asarray(strike, np.float64) / self.truth_forward(underlying, expiry_ns, currency))
        return np.asarray(np.sqrt(self._state(underlying).surface.total_variance(k, years) / years))

    def surface(self, underlying: str) -> SurfaceTruth:
        """The surface as a function of log-moneyness and maturity, frozen at the market's instant."""
        return self._state(underlying).surface

    def truth(self, underlying: str, chain: Mapping[int, npt.ArrayLike], currency: str = "USD") -> list[TruthSlice]:
        """True smiles at the strikes of a chain, `{expiry_ns: strikes}`, in order of expiry; expired ones are left out."""
        surface = self._state(underlying).surface
        slices = []
        for expiry_ns in sorted(chain):
            years = float(self.years(expiry_ns))
            if years <= 0:
                continue
            strikes = np.atleast_1d(np.asarray(chain[expiry_ns], np.float64))
            slices.append(
                TruthSlice(
                    underlying,
                    int(expiry_ns),
                    self.now_ns,
                    float(self.truth_forward(underlying, expiry_ns, currency)),
                    years,
                    math.sqrt(float(surface.total_variance(0.0, years)) / years),
                    tuple(strikes.tolist()),
                    tuple(self.truth_vol(underlying, expiry_ns, strikes, currency).tolist()),
                    surface.svi(years),
                )
            )
        return slices

    def _state(self, underlying: str) -> _State:
        try:
            return self._states[underlying]
        except KeyError:
            raise InputError(f"the market has {list(self.underlyings)}, was asked for {underlying!r}") from None

    def _first_state(self, model: UnderlyingModel) -> _State:
        # The factors start in their long-run distribution, so that two seeds differ from the first second on.
        spread = _DAILY_MOVE / np.sqrt(2.0 * _REVERSION)
        latent = spread * self._rng.standard_normal(len(spread)) * 0.7
        spot = model.spot * math.exp(0.03 * float(self._rng.standard_normal()))
        return _State(spot, latent, *self._observe(model, latent))

    def _observe(self, model: UnderlyingModel, latent: FloatArray) -> tuple[SurfaceTruth, float]:
        bounded = _BOUNDS * np.tanh(latent / _BOUNDS)
        return TRUTHS[self.model](model.levels, Factors(*bounded[:-1].tolist())), model.basis + 0.01 * float(
            bounded[-1]
        )

    def _step(self) -> None:
        days = self.step_ns / (NANOSECONDS_PER_YEAR / _DAYS_PER_YEAR)
        root_days = math.sqrt(days)
        normal = self._rng.standard_normal((len(self.underlyings) + 1, len(_DAILY_MOVE) + 2))
        uniform = self._rng.random(len(self.underlyings))
        decay = np.exp(-_REVERSION * days)
        diffusion = _DAILY_MOVE * np.sqrt(-np.expm1(-2.0 * _REVERSION * days) / (2.0 * _REVERSION))
        for i, (name, state) in enumerate(self._states.items()):
            model = UNDERLYINGS[name]
            common, own = normal[-1, 0], normal[i, 0]
            shock = model.market_beta * common + math.sqrt(1.0 - model.market_beta**2) * own
            daily = model.spot_vol / math.sqrt(_DAYS_PER_YEAR)
            move = self._activity * daily * root_days * shock - 0.5 * daily**2 * days
            if uniform[i] < -math.expm1(-model.jumps_per_day * days):
                move += self._activity * model.jump_size * normal[i, 1]
            state.spot *= math.exp(move)
            factor = _SPOT_CORRELATION * shock + np.sqrt(1.0 - _SPOT_CORRELATION**2) * normal[i, 2:]
            state.latent = state.latent * decay + self._activity * diffusion * factor
            state.surface, state.basis = self._observe(model, state.latent)
        stable = self._stable_rng.standard_normal(2)
        decay_of_stable = math.exp(-_STABLE_REVERSION * days)
        width = _STABLE_MOVE * math.sqrt(-math.expm1(-2.0 * _STABLE_REVERSION * days) / (2.0 * _STABLE_REVERSION))
        self._stable = self._stable * decay_of_stable + self._activity * width * stable
