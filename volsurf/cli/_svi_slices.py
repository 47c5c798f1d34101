"""The slices of `volsurf bench svi`: real chains where they are, else simulated quotes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from volsurf.svi.params import RawSVI

Floats = npt.NDArray[np.float64]

SNAPSHOTS = (
    "20260101T0918",  # calm
    "20260205T1551",  # crash, many books empty
    "20260205T2129",  # crash
    "20260206T0935",  # the day after
    "20260327T",  # a quarterly expiry
    "20260805T",  # low vol
)


@dataclass(frozen=True)
class Slices:
    """Flat quotes of many slices, as `fit_slices` takes them."""

    source: str
    k: Floats
    vol: Floats
    error: Floats
    side: npt.NDArray[np.int8]
    offsets: npt.NDArray[np.int64]
    years: Floats
    surface: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.years)

    def pick(self, chosen: npt.NDArray[np.int64]) -> Slices:
        """The chosen slices alone."""
        rows = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen])
        counts = np.diff(self.offsets)[chosen]
        return Slices(
            self.source, self.k[rows], self.vol[rows], self.error[rows], self.side[rows],
            np.concatenate(([0], np.cumsum(counts))), self.years[chosen], self.surface[chosen],
        )  # fmt: skip


def real_directory() -> Path:
    """Where the validation chains are kept, when they are: beside the repository or under $VOLSURF_SHARED."""
    base = Path(os.environ.get("VOLSURF_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    return base / "data" / "real" / "deribit_snapshots_2026"


def real_slices(directory: Path) -> Slices | None:
    """Slices of six snapshots of BTC and ETH, calm and crash, through the pipeline that fits chains; None without files."""
    paths = [path for stamp in SNAPSHOTS for path in sorted(directory.glob(f"*_{stamp}*.csv.gz"))[:1]]
    if not paths:
        return None
    import polars as pl

    from volsurf.surface.chain import Chain
    from volsurf.surface.smile import build_smiles

    columns: dict[str, list[Floats]] = {"k": [], "vol": [], "error": [], "side": []}
    years: list[float] = []
    surface: list[int] = []
    number = 0
    for path in paths:
        frame = pl.read_csv(path).select(
            "strike", "option_type", underlying="currency", expiry="expiry_datetime", bid="bid_price", ask="ask_price",
            forward="underlying", settlement=pl.lit("inverse"), time="timestamp", venue=pl.lit("deribit"), mark="mark_price",
        )  # fmt: skip
        smiles = build_smiles(Chain.from_polars(frame).quote_vols())
        for underlying in sorted({smile.underlying for smile in smiles}):
            for smile in (s for s in smiles if s.underlying == underlying):
                used = np.isfinite(smile.error)
                # QuantLib needs five quotes for its five parameters; leaving out thinner slices keeps the batches equal.
                if np.count_nonzero(used & (smile.side == 0)) >= 5:
                    for name, column in columns.items():
                        column.append(getattr(smile, "log_moneyness" if name == "k" else name)[used])
                    years.append(smile.years)
                    surface.append(number)
            number += 1
    return _joined(f"{len(paths)} real Deribit snapshots", columns, years, surface)


def simulated_slices(surfaces: int = 12, seed: int = 7) -> Slices:
    """Slices whose truth is SVI with the shapes found on real chains, quoted with noise, spreads and a few stale prices."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Floats]] = {"k": [], "vol": [], "error": [], "side": []}
    years: list[float] = []
    surface: list[int] = []
    for number in range(surfaces):
        level = rng.uniform(0.3, 0.9)
        # One shape at all expiries is free of calendar arbitrage: scaled copies. Each then goes its own way a little.
        shape = rng.uniform((0.5, 0.6, -0.5, 0.3), (1.2, 1.6, 0.6, 1.5))
        for days in (1, 2, 4, 9, 16, 30, 58, 93, 149, 184, 240, 330):
            time = days / 365
            theta = (level * rng.uniform(0.98, 1.02)) ** 2 * time
            root = np.sqrt(theta)
            up, low = root * shape[:2] * rng.uniform(0.97, 1.03, 2)
            m, width = root * (shape[2] + rng.uniform(-0.05, 0.05)), root * np.exp(shape[3] + rng.uniform(-0.05, 0.05))
            curve = RawSVI(0.0, 0.5 * (up + low), (up - low) / (up + low), m, width)
            a = theta - float(curve.total_variance(0.0))
            k = np.sort(rng.uniform(-3.5, 3.5, rng.integers(14, 48))) * root
            vol = np.sqrt((curve.total_variance(k) + a) / time)
            half = 0.006 * vol * (1.0 + 1.5 * (k / root) ** 2) * rng.uniform(0.6, 1.8, k.size)
            noise = rng.uniform(-0.8, 0.8, k.size) * half
            stale = rng.uniform(size=k.size) < 0.02
            columns["k"].append(k)
            columns["vol"].append(vol + noise + stale * rng.choice([-10.0, 10.0], k.size) * half)
            columns["error"].append(half)
            columns["side"].append(np.zeros(k.size))
            years.append(time)
            surface.append(number)
    return _joined("simulated quotes", columns, years, surface)


def _joined(source: str, columns: dict[str, list[Floats]], years: list[float], surface: list[int]) -> Slices:
    flat = {name: np.concatenate(pieces) for name, pieces in columns.items()}
    return Slices(
        source, flat["k"], flat["vol"], flat["error"], flat["side"].astype(np.int8),
        np.concatenate(([0], np.cumsum([len(piece) for piece in columns["k"]]))), np.array(years), np.array(surface),
    )  # fmt: skip
