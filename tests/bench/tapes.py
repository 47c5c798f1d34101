"""Simulated tapes through the core: how still and how quick the published surfaces are. `python -m tests.bench.tapes`.

The package's own simulated market is driven in virtual time, ten frames a second, its makers' quotes straight into a `Core`. The
truth is known, so what a curve does beyond what the truth did is noise, and what it does less is lag. One row per regime and
temporal filter; with `--seconds` and `--seed` for another length and path.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from volsurf.engine.core import Core, CoreRules
from volsurf.engine.frame import Frame
from volsurf.engine.log import Entry, FeedHealth, FeedStarted, FeedState, InstrumentsAdded, Tick
from volsurf.instruments import FloatArray
from volsurf.quotes import Field, QuoteBatch
from volsurf.sim._deribit_listing import DeribitListing
from volsurf.sim.listing import to_ns
from volsurf.sim.market import Market
from volsurf.sim.quoting import QuoteModel, QuoteRules

SECOND = 1_000_000_000
START_NS = to_ns(datetime(2026, 11, 24, 12, tzinfo=UTC))
PLACES = np.array([0.0, -2.0, 2.0])
"""Where curves are read, in standard deviations of the expiry: at the money and in either wing."""

Floats = npt.NDArray[np.float64]


class ShockedMarket(Market):
    """A market whose vols a test may scale."""

    vol_factor: float = 1.0

    def truth_vol(
        self, underlying: str, expiry_ns: npt.ArrayLike, strike: npt.ArrayLike, currency: str = "USD"
    ) -> FloatArray:
        return self.vol_factor * super().truth_vol(underlying, expiry_ns, strike, currency)

    def jump(self, factor: float) -> None:
        """Every spot moves by a factor."""
        for state in self._states.values():
            state.spot *= factor


class Tape:
    """One venue's quotes of a simulated market, and the core that reads them.

    Attributes:
        log: everything the core was told, ticks included. frame: the last one.
        silent: while set, the venue's quotes do not come through.
        hidden: expiries, ns UTC, whose quotes are pulled.
    """

    def __init__(
        self,
        underlyings: tuple[str, ...] = ("BTC", "ETH", "SOL"),
        *,
        seed: int = 1,
        start_ns: int = START_NS,
        step_ns: int = SECOND // 10,
        rules: CoreRules | None = None,
        quoting: QuoteRules | None = None,
        activity: float = 1.0,
    ) -> None:
        self.market = ShockedMarket(seed, underlyings, start_ns=start_ns, step_ns=step_ns, activity=activity)
        self.listing = DeribitListing(self.market)
        self.listing.update(start_ns)
        self.quotes = QuoteModel(self.market, self.listing.universe, quoting)
        self.core = Core(rules)
        self.log: list[Entry] = []
        self.frame: Frame
        self.now = start_ns
        self.step_ns = step_ns
        self.silent = False
        self.hidden: set[int] = set()
        self._told = 0
        self._number = 0
        self._apply(FeedStarted(0, "venue"))

    def step(self) -> Frame:
        """The market goes on by a step, its quotes reach the core, and the core makes a frame."""
        self.now += self.step_ns
        self.market.advance(self.now)
        self.listing.update(self.now)
        if len(self.listing.universe) > self._told:
            self._list()
        self.quotes.update()
        if not self.silent:
            self._apply(self._batch())
            self._apply(
                FeedHealth(feed=0, name="venue", time_ns=self.now, state=FeedState.READY, last_message_ns=self.now)
            )
        self.log.append(Tick(self.now))
        self.frame = self.core.frame(self.now)
        return self.frame

    def run(self, frames: int) -> list[Frame]:
        """That many steps."""
        return [self.step() for _ in range(frames)]

    def truth(self, underlying: str, expiry_ns: int, k: Floats) -> Floats:
        """True vols at log-moneyness k."""
        forward = float(self.market.truth_forward(underlying, expiry_ns))
        return np.asarray(self.market.truth_vol(underlying, expiry_ns, forward * np.exp(k)))

    def _list(self) -> None:
        universe = self.listing.universe
        new = list(range(self._told, len(universe)))
        self._told = len(universe)
        if new:
            rows = list(universe)
            self._apply(InstrumentsAdded(0, tuple(new), tuple(rows[i] for i in new)))

    def _batch(self) -> QuoteBatch:
        universe, quotes = self.listing.universe, self.quotes
        ids = np.flatnonzero(universe.active)
        hidden = np.isin(universe.expiry_ns[ids], list(self.hidden))
        names = universe.underlyings
        spot = np.array([self.market.spot(name) for name in names])[universe.underlying_id[ids]]
        self._number += 1
        return QuoteBatch(
            ids.astype(np.int32),
            int(Field.QUOTE | Field.MARK | Field.FORWARD | Field.INDEX),
            feed=0,
            number=self._number,
            time_ns=self.now,
            bid=np.where(hidden, np.nan, quotes.bid[ids]),
            ask=np.where(hidden, np.nan, quotes.ask[ids]),
            bid_size=quotes.bid_size[ids],
            ask_size=quotes.ask_size[ids],
            mark=quotes.mark[ids],
            forward=quotes.forward[ids],
            index=spot,
            venue_time_ns=self.now,
            receive_time_ns=self.now,
        )

    def _apply(self, entry: Entry) -> None:
        self.log.append(entry)
        self.core.apply(entry)


@dataclass
class Reading:
    """Curves and truth at `PLACES`, shape (frames, slices, 3), and what became of each slice, shape (frames, slices)."""

    fitted: list[Floats] = field(default_factory=list)
    true: list[Floats] = field(default_factory=list)
    certified: list[Floats] = field(default_factory=list)
    guarded: list[Floats] = field(default_factory=list)
    moved: list[Floats] = field(default_factory=list)
    jumped: list[Floats] = field(default_factory=list)
    steps: list[Floats] = field(default_factory=list)

    def take(self, tape: Tape) -> None:
        """Read the last frame."""
        rows: list[tuple[Floats, Floats, tuple[float, ...]]] = []
        for name, surface in tape.frame.surfaces.items():
            for smile in surface.smiles:
                fit = smile.fit
                assert fit is not None
                level = float(tape.truth(name, smile.expiry_ns, np.zeros(1))[0])
                k = PLACES * level * np.sqrt(smile.years)
                # SliceFit.enforcement and smoothed as the enums have them: 2 moved, 3 guarded; 2 jumped.
                state = (
                    fit.is_certified,
                    fit.enforcement == 3,
                    fit.enforcement >= 2,
                    fit.smoothed == 2,
                    fit.solver_steps,
                )
                rows.append((smile.fitted_vol(k), tape.truth(name, smile.expiry_ns, k), tuple(map(float, state))))
        self.fitted.append(np.array([row[0] for row in rows]))
        self.true.append(np.array([row[1] for row in rows]))
        states = np.array([row[2] for row in rows]).T
        for column, values in zip(
            (self.certified, self.guarded, self.moved, self.jumped, self.steps), states, strict=True
        ):
            column.append(values)

    @property
    def excess(self) -> Floats:
        """Fit less truth, shape (frames, slices, 3)."""
        return np.array(self.fitted) - np.array(self.true)

    def jitter_bp(self) -> tuple[float, float]:
        """Root mean square of a curve's moves beyond the truth's, frame to frame: median slice at the money, and in the wings."""
        moves = np.diff(self.excess, axis=0)
        size = 1e4 * np.sqrt((moves**2).mean(axis=0))
        return float(np.median(size[:, 0])), float(np.median(size[:, 1:]))

    def followed(self, frame: int) -> list[Floats]:
        """Share of a jump between `frame - 1` and `frame` that each slice's level has made after 1, 2, 3 frames."""
        fitted, true = np.array(self.fitted)[:, :, 0], np.array(self.true)[:, :, 0]
        size = true[frame] - true[frame - 1]
        return [(fitted[frame + i] - fitted[frame - 1]) / size for i in range(3)]


def measure(
    frames: int,
    smoothing_seconds: float,
    shock: Callable[[Tape, int], None] | None = None,
    *,
    seed: int = 1,
    activity: float = 1.0,
    warm_up: int = 15,
) -> Reading:
    """A tape of so many frames after a warm-up; `shock(tape, frame)` is called before each."""
    tape = Tape(seed=seed, rules=CoreRules(smoothing_seconds=smoothing_seconds), activity=activity)
    tape.run(warm_up)
    reading = Reading()
    for number in range(frames):
        if shock is not None:
            shock(tape, number)
        tape.step()
        reading.take(tape)
    return reading


def drift(tape: Tape, frame: int) -> None:
    """Vols rise by 1 % over two seconds, frames 10 to 29."""
    if 10 <= frame < 30:
        tape.market.vol_factor *= 1.01**0.05


def vol_jump(tape: Tape, frame: int) -> None:
    """Vols jump by 5 % before frame 10."""
    if frame == 10:
        tape.market.vol_factor *= 1.05


def forward_jump(tape: Tape, frame: int) -> None:
    """Spots and forwards jump by 3 % before frame 10."""
    if frame == 10:
        tape.market.jump(1.03)


def lag_seconds(reading: Reading, seconds_per_frame: float = 0.1) -> float:
    """How far behind a drift of frames 10 to 29 the median slice is at its end, beyond how far off it was before."""
    excess, true = reading.excess[:, :, 0], np.array(reading.true)[:, :, 0]
    behind = excess[:10].mean(axis=0) - excess[26:30].mean(axis=0)
    slope = (true[29] - true[9]) / (20 * seconds_per_frame)
    return float(np.median(behind / slope))


def main() -> None:
    """Run every regime with and without the filter and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    frames = max(40, round(10 * args.seconds))
    rows: list[dict[str, object]] = []
    for regime, shock, activity in (
        ("calm", None, 1.0),
        ("lively", None, 6.0),
        ("drift +1 % in 2 s", drift, 1.0),
        ("vols jump 5 %", vol_jump, 1.0),
        ("forwards jump 3 %", forward_jump, 1.0),
    ):
        for smoothing in (0.0, 0.5):
            reading = measure(frames, smoothing, shock, seed=args.seed, activity=activity)
            rows.append(_row(regime, smoothing, shock, reading))
    names = list(rows[0])
    print("  ".join(f"{name:>17}" for name in names))
    for row in rows:
        print(
            "  ".join(f"{row[name]:>17.3f}" if isinstance(row[name], float) else f"{row[name]:>17}" for name in names)
        )
    print(json.dumps({"tapes": rows}))


def _row(
    regime: str, smoothing: float, shock: Callable[[Tape, int], None] | None, reading: Reading
) -> dict[str, object]:
    atm, wing = reading.jitter_bp()
    first, second = float("nan"), float("nan")
    if shock is vol_jump:
        shares = reading.followed(10)
        first, second = (float(np.median(s)) for s in shares[:2])
    return {
        "regime": regime,
        "smoothing s": smoothing,
        "atm jitter bp": atm,
        "wing jitter bp": wing,
        "|atm - truth| bp": float(1e4 * np.median(np.abs(reading.excess[:, :, 0]))),
        "followed, 1 frame": first,
        "2 frames": second,
        "drift lag s": lag_seconds(reading) if shock is drift else float("nan"),
        "certified %": float(100 * np.mean(np.concatenate(reading.certified))),
        "guarded": int(np.sum(np.concatenate(reading.guarded))),
        "moved %": float(100 * np.mean(np.concatenate(reading.moved))),
        "gate open %": float(100 * np.mean(np.concatenate(reading.jumped))),
        "steps": float(np.mean(np.concatenate(reading.steps))),
    }


if __name__ == "__main__":
    main()
