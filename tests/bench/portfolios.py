"""An independent check of published surfaces: butterflies and calendars priced from their vols never cost less than nothing.

    python -m tests.bench.portfolios [--snapshots N] [--strikes N] [--simulated] [--json]

Nothing of the certificates is used: the vols are asked for as a user asks for them, and turned into prices by the Black formula
written here. Strikes are random, half of them within three standard deviations, half up to forty away and beyond every quote;
spacings go from a thousandth of a standard deviation to three of them; expiries are the listed ones, and any two times from a
third of the first expiry to nearly twice the last. In units of the forward, with the strikes' own distances,

    butterfly   [C(K1) (K3 - K2) - C(K2) (K3 - K1) + C(K3) (K2 - K1)] / (K3 - K1)
    calendar    C(T2, F2 e^k)/F2 - C(T1, F1 e^k)/F1

must not be below -1e-10. Doubles give both to a few 1e-16; the lowest hundred of each kind are priced again with 50 digits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

import volsurf as vs
from tests.bench.figures import Row, print_rows
from tests.bench.real_chains_data import Snapshot, snapshots
from volsurf.surface.smile import fit_all_smiles

Floats = npt.NDArray[np.float64]
LOWEST = -1e-10
AGAIN = 100


def call(k: Floats, vol: Floats, years: Floats) -> Floats:
    """Undiscounted price of a call over the forward, by Black's formula; in the money from the put, by parity."""
    root = vol * np.sqrt(years)
    d1 = -k / root + 0.5 * root
    d2 = d1 - root
    strike = np.exp(k)
    out = np.where(k >= 0.0, ndtr(d1) - strike * ndtr(d2), strike * ndtr(-d2) - ndtr(-d1))
    return np.asarray(np.where(k >= 0.0, out, out + (1.0 - strike)))


def call_exactly(k: float, vol: float, years: float) -> Any:
    """The same in the working precision of mpmath, of the doubles as they are."""
    import mpmath as mp

    root = mp.mpf(vol) * mp.sqrt(mp.mpf(years))
    d1 = -mp.mpf(k) / root + root / 2
    normal = lambda x: mp.erfc(-x / mp.sqrt(2)) / 2  # noqa: E731
    return normal(d1) - mp.exp(mp.mpf(k)) * normal(d1 - root)


def random_places(rng: np.random.Generator, root: Floats) -> Floats:
    """Log-moneyness: half within three standard deviations, half up to forty and at most a factor of e^8."""
    inside = rng.uniform(-3.0, 3.0, root.size)
    outside = rng.choice([-1.0, 1.0], root.size) * 10.0 ** rng.uniform(0.4, 1.6, root.size)
    return np.clip(np.where(rng.uniform(size=root.size) < 0.5, inside, outside) * root, -8.0, 8.0)


def butterflies(surface: vs.Surface, rng: np.random.Generator, years: Floats) -> tuple[Floats, Floats]:
    """Costs of one butterfly at each time; rows k1, vol1, k2, vol2, k3, vol3, years that give them."""
    root = surface.vol(k=0.0, years=years) * np.sqrt(years)
    middle = random_places(rng, root)
    low, high = (middle + s * root * 10.0 ** rng.uniform(-3.0, 0.5, root.size) for s in (-1.0, 1.0))
    k = np.stack((low, middle, high))
    vol = surface.vol(k=k, years=years)
    price, strike = call(k, vol, years), np.exp(k)
    width = strike[2] - strike[0]
    weights = np.stack(((strike[2] - strike[1]) / width, -np.ones(root.size), (strike[1] - strike[0]) / width))
    return (weights * price).sum(axis=0), np.column_stack(
        (*(x for pair in zip(k, vol, strict=True) for x in pair), years)
    )


def butterfly_exactly(row: Floats) -> float:
    """Cost of a row with 50 digits."""
    import mpmath as mp

    with mp.workdps(50):
        k, vol, years = row[[0, 2, 4]], row[[1, 3, 5]], float(row[6])
        a, b, c = (call_exactly(float(x), float(v), years) for x, v in zip(k, vol, strict=True))
        low, middle, high = (mp.exp(mp.mpf(float(x))) for x in k)
        return float((a * (high - middle) - b * (high - low) + c * (middle - low)) / (high - low))


def calendars(surface: vs.Surface, rng: np.random.Generator, near: Floats, far: Floats) -> tuple[Floats, Floats]:
    """Costs of one calendar between each two times; rows k, near vol, near years, far vol, far years that give them."""
    k = random_places(rng, surface.vol(k=0.0, years=far) * np.sqrt(far))
    vols = [surface.vol(k=k, years=years) for years in (near, far)]
    # Out of the money, where nothing cancels: the parity terms of the two are the same.
    prices = []
    for vol, years in zip(vols, (near, far), strict=True):
        price = call(k, vol, years)
        prices.append(np.where(k >= 0.0, price, price - (1.0 - np.exp(k))))
    return prices[1] - prices[0], np.column_stack((k, vols[0], near, vols[1], far))


def calendar_exactly(row: Floats) -> float:
    """Cost of a row with 50 digits."""
    import mpmath as mp

    k, near_vol, near, far_vol, far = (float(x) for x in row)
    with mp.workdps(50):
        return float(call_exactly(k, far_vol, far) - call_exactly(k, near_vol, near))


def real_surfaces(count: int) -> Iterator[vs.Surface]:
    """Of some snapshots of the validation data, evenly spread."""
    for path in snapshots(count):
        yield from fit_all_smiles(vs.build_smiles(Snapshot.of(path).quotes)).values()


def simulated_surfaces(count: int) -> Iterator[vs.Surface]:
    """The product's own simulated market, fitted."""
    from tests.bench.tapes import Tape

    for seed in range(max(1, count // 3)):
        tape = Tape(seed=seed, activity=4.0)
        for _ in range(5):
            frame = tape.step()
        yield from frame.surfaces.values()


def listed_times(surface: vs.Surface, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Two different listed expiries, nearer first, n times; half of the time neighbours."""
    count = len(surface.fitted)
    near = rng.integers(0, count - 1, n)
    far = np.where(rng.uniform(size=n) < 0.5, near + 1, rng.integers(near + 1, count))
    return surface.years[surface.fitted[near]], surface.years[surface.fitted[far]]


def any_times(surface: vs.Surface, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Any two times, nearer first, between a third of the first expiry and nearly twice the last."""
    low, high = np.log(surface.years[surface.fitted[0]] / 3), np.log(1.99 * surface.years[surface.fitted[-1]])
    times = np.sort(np.exp(rng.uniform(low, high, (2, n))), axis=0)
    return times[0], np.minimum(times[1], 1.999 * surface.years[-1])


def rows(surfaces: list[vs.Surface], strikes: int = 10_000) -> list[Row]:
    """Measured beside bar; `strikes` of each kind for all surfaces together, at least a hundred for each."""
    each = max(100, -(-strikes // len(surfaces)))
    rng = np.random.default_rng(4)
    table: list[Row] = []
    kinds: tuple[tuple[str, Callable[..., tuple[Floats, Floats]]], ...] = (
        ("listed expiries", listed_times),
        ("any times", any_times),
    )
    for name, times in kinds:
        for what, exactly in (("butterflies", butterfly_exactly), ("calendars", calendar_exactly)):
            costs, inputs = [], []
            for surface in surfaces:
                near, far = times(surface, rng, each)
                cost, row = (
                    butterflies(surface, rng, near) if what == "butterflies" else calendars(surface, rng, near, far)
                )
                costs.append(cost)
                inputs.append(row)
            cost, row = np.concatenate(costs), np.concatenate(inputs)
            lowest = np.argsort(cost)[:AGAIN]
            again = np.array([exactly(row[i]) for i in lowest])
            gap = float(np.abs(again - cost[lowest]).max())
            table += [
                Row("C8", f"{cost.size:,} {what}, {name}: lowest cost, forwards", float(cost.min()), ">=", LOWEST),
                Row("C8", f"… the lowest {lowest.size} with 50 digits", float(again.min()), ">=", LOWEST),
                Row("C8", "… doubles and 50 digits differ by", gap, "<=", 1e-13),
                Row("C8", "… finite, %", 100.0 * float(np.isfinite(cost).mean()), "==", 100.0),
            ]
    return table


def main() -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--snapshots", type=int, default=0, help="only N snapshots of the validation data, evenly spread"
    )
    parser.add_argument("--strikes", type=int, default=40_000, help="portfolios of each kind")
    parser.add_argument("--simulated", action="store_true", help="the simulated market, also where real chains are")
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    args = parser.parse_args()
    surfaces = [] if args.simulated else [s for s in real_surfaces(args.snapshots) if len(s.fitted) > 1]
    source = "real"
    if not surfaces:
        surfaces, source = list(simulated_surfaces(6)), "simulated"
    print(f"{len(surfaces)} {source} surfaces, {sum(len(s.fitted) for s in surfaces)} expiries")
    table = rows(surfaces, args.strikes)
    missed = print_rows(table)
    if args.json:
        print(json.dumps({f"{i} {row.what}": row.measured for i, row in enumerate(table)}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
