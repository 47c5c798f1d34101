"""Fits every coefficient of `volsurf/iv/_coefficients.py` from its definition, in 50-digit arithmetic.

    python tests/iv/refit_coefficients.py            # fit, and compare with the committed module
    python tests/iv/refit_coefficients.py --write    # fit, and write the module

Rational functions: Sanathanan-Koerner linearisation, (P − f Q)/(f Q_previous) → 0 in least squares, with Lawson's
re-weighting towards the minimax error. Polynomials are the same with Q = 1. Takes a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import mpmath as mp
import numpy as np
from mpmath import mpf

mp.mp.dps = 50

MODULE = Path(__file__).resolve().parents[2] / "volsurf" / "iv" / "_coefficients.py"

Function = Callable[[mpf], mpf]


def mills(z: mpf) -> mpf:
    """M(z) = Φ(−z)/φ(z)."""
    return mp.sqrt(mp.pi / 2) * mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2))


def atanh_series(q: mpf) -> mpf:
    """2 atanh(w)/w as a function of q = w²."""
    w = mp.sqrt(q)
    return 2 * mp.atanh(w) / w if q > 0 else mpf(2)


def sinh_squared(h2: mpf) -> mpf:
    """(2 sinh(h/2)/h)² as a function of h²."""
    h = mp.sqrt(h2)
    return (2 * mp.sinh(h / 2) / h) ** 2 if h2 > 0 else mpf(1)


def normal_variance(a: mpf) -> tuple[mpf, mpf]:
    """λ and H(λ) of the normal model, for a = |F − K| over the normal total vol.

    Price over |F − K| is β = φ(a)/a − Φ(−a), λ = ln(1 + 1/β), and the variance is (|F − K| + 2 price)² H.
    """
    beta = mp.npdf(a) / a - mp.ncdf(-a)
    return mp.log(1 + 1 / beta), 1 / (a * (1 + 2 * beta)) ** 2


def chebyshev(low: float, high: float, count: int, centre: float | None = None) -> list[mpf]:
    """Chebyshev nodes of [low, high]; with a centre, of its image under (z − centre)/(z + centre)."""
    angles = [mp.pi * (2 * i + 1) / (2 * count) for i in range(count)]
    if centre is None:
        return [mpf(low) + (mpf(high) - low) * (1 + mp.cos(angle)) / 2 for angle in angles]
    y0, y1 = ((mpf(z) - centre) / (mpf(z) + centre) for z in (low, high))
    ys = [y0 + (y1 - y0) * (1 + mp.cos(angle)) / 2 for angle in angles]
    return [centre * (1 + y) / (1 - y) for y in ys]


def polynomial(coefficients: Sequence[mpf], x: mpf) -> mpf:
    value = mpf(0)
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def fit_rational(
    xs: Sequence[mpf], fs: Sequence[mpf], p_degree: int, q_degree: int, sweeps: int = 14
) -> tuple[list[mpf], list[mpf], mpf]:
    """P and Q (with Q(0) = 1) of f ≈ P/Q by relative error, and the largest error at the nodes."""
    weight = [mpf(1)] * len(xs)
    q_previous = [mpf(1)] * len(xs)
    unknowns = p_degree + 1 + q_degree
    best: tuple[list[mpf], list[mpf], mpf] | None = None
    for _ in range(sweeps):
        normal = mp.zeros(unknowns)
        right = mp.zeros(unknowns, 1)
        for x, f, w, previous in zip(xs, fs, weight, q_previous, strict=True):
            powers = [mpf(1)]
            while len(powers) <= max(p_degree, q_degree):
                powers.append(powers[-1] * x)
            scale = 1 / (f * previous)
            row = [p * scale for p in powers[: p_degree + 1]] + [-f * p * scale for p in powers[1 : q_degree + 1]]
            target = f * scale
            for i in range(unknowns):
                weighted = w * row[i]
                right[i] += weighted * target
                for j in range(i, unknowns):
                    normal[i, j] += weighted * row[j]
        for i in range(unknowns):
            for j in range(i):
                normal[i, j] = normal[j, i]
        solution = list(mp.lu_solve(normal, right))
        p, q = solution[: p_degree + 1], [mpf(1), *solution[p_degree + 1 :]]
        q_previous = [polynomial(q, x) for x in xs]
        errors = [abs(polynomial(p, x) / y / f - 1) for x, f, y in zip(xs, fs, q_previous, strict=True)]
        worst = max(errors)
        if best is None or worst < best[2]:
            best = p, q, worst
        weight = [w * mp.sqrt(e / worst + mpf("0.02")) for w, e in zip(weight, errors, strict=True)]
        mean = sum(weight) / len(weight)
        weight = [w / mean for w in weight]
    assert best is not None
    return best


def normal_implied(c: mpf, h: mpf, v: mpf) -> mpf:
    """N: the variance, in units of log-moneyness, at which the normal model gives the price c over min(F, K)."""
    if h == 0:
        return 2 * mp.pi * c * c
    r1 = mp.expm1(h)
    distance = 2 * mp.sinh(h / 2)
    a = distance / v
    # Newton on ln β(a) = ln(c/r1) in ln a, where β' = −φ(a)/a²; the Black v is a close start.
    for _ in range(12):
        beta = mp.npdf(a) / a - mp.ncdf(-a)
        a *= mp.exp(mp.log(beta * r1 / c) * a * beta / mp.npdf(a))
    return (h / a) ** 2


def black(h: mpf, v: mpf) -> mpf:
    """c: out-of-the-money price over min(F, K)."""
    return mp.ncdf(v / 2 - h / v) - mp.exp(h) * mp.ncdf(-v / 2 - h / v)


def bridge_terms(n: np.ndarray, h2: np.ndarray) -> np.ndarray:
    return np.stack([n**0, n, h2, n * h2, n**2, h2**2, n**3, n**2 * h2], axis=1)


def fit_bridge(sweeps: int = 60) -> tuple[list[mpf], mpf]:
    """κ = 1/N − 1/v² as a polynomial in N and h², and the largest relative error of v."""
    rows = []
    for v in np.geomspace(0.05, 2.6, 36):
        for h in np.linspace(0.0, 3.0, 25):
            if h / v > 8.0:
                continue
            h_, v_ = mpf(float(h)), mpf(float(v))
            n = normal_implied(black(h_, v_), h_, v_)
            rows.append((float(n), float(h) ** 2, float(1 / n - 1 / v_**2), float(v)))
    n, h2, kappa, v = np.array(rows).T
    slope = 0.5 * v * v  # d ln v/dκ
    terms = bridge_terms(n, h2) * slope[:, None]
    weight = np.ones(len(v))
    best: tuple[np.ndarray, float] | None = None
    for _ in range(sweeps):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(terms * root, kappa * slope * root[:, 0], rcond=None)[0]
        error = np.abs(terms @ solution - kappa * slope)
        if best is None or error.max() < best[1]:
            best = solution, float(error.max())
        weight *= np.sqrt(error / error.max() + 0.02)
        weight /= weight.mean()
    assert best is not None
    return [mpf(float(x)) for x in best[0]], mpf(best[1])


def fit_all() -> tuple[dict[str, list[float]], dict[str, float]]:
    """Coefficients by name, and the largest relative error of each approximation before rounding to doubles."""
    coefficients: dict[str, list[float]] = {}
    errors: dict[str, float] = {}

    def keep(name: str, values: Sequence[mpf]) -> None:
        coefficients[name] = [float(x) for x in values]

    def rational(name: str, xs: Sequence[mpf], fs: Sequence[mpf], p_degree: int, q_degree: int) -> None:
        p, q, errors_ = fit_rational(xs, fs, p_degree, q_degree)
        errors[name] = float(errors_)
        keep(f"{name}_P", p)
        if q_degree:
            keep(f"{name}_Q", q)

    zs = chebyshev(0, 48, 260, centre=4)
    rational("MILLS", zs, [mills(z) for z in zs], 9, 10)
    zs = chebyshev(0, 16, 160, centre=4)
    rational("MILLS_SHORT", zs, [mills(z) for z in zs], 8, 9)
    qs = chebyshev(0, 0.0403, 60)
    rational("ATANH", qs, [atanh_series(q) for q in qs], 7, 0)
    rational("ATANH_COARSE", qs, [atanh_series(q) for q in qs], 2, 0)
    rs = chebyshev(-0.347, 0.347, 80)
    rational("EXP", rs, [mp.exp(r) for r in rs], 11, 0)
    hs = chebyshev(0, 9, 60)
    rational("SEED_SINH", hs, [sinh_squared(h) for h in hs], 4, 0)
    pairs = [normal_variance(a) for a in chebyshev(1e-6, 9, 160)]
    rational("SEED_NORMAL", [x for x, _ in pairs], [f for _, f in pairs], 3, 4)
    bridge, error = fit_bridge()
    errors["SEED_BRIDGE"] = float(error)
    keep("SEED_BRIDGE", bridge)
    # A polynomial has no denominator to tell it from.
    for name in ("ATANH", "ATANH_COARSE", "EXP", "SEED_SINH"):
        coefficients[name] = coefficients.pop(f"{name}_P")
    return coefficients, errors


DESCRIPTIONS = {
    "MILLS_P": "Numerator of the Mills ratio on [0, 48].",
    "MILLS_Q": "Denominator of the Mills ratio on [0, 48].",
    "MILLS_SHORT_P": "Numerator of the Mills ratio on [0, 16], for warm steps.",
    "MILLS_SHORT_Q": "Denominator of the Mills ratio on [0, 16], for warm steps.",
    "ATANH": "2 atanh(w)/w in w², w² ≤ 0.0403.",
    "ATANH_COARSE": "The same for the seed.",
    "EXP": "e^r for |r| ≤ 0.347.",
    "SEED_SINH": "(2 sinh(h/2)/h)² in h², h² ≤ 9.",
    "SEED_NORMAL_P": "Numerator of the normal model's variance over the squared straddle, in λ = ln(1 + |F − K|/price).",
    "SEED_NORMAL_Q": "Denominator of the same.",
    "SEED_BRIDGE": "κ of 1/v² = 1/N − κ in 1, N, h², N h², N², h⁴, N³, N² h².",
}


def module_text(coefficients: dict[str, list[float]]) -> str:
    lines = [
        '"""Coefficients of the approximations in the implied-volatility kernels, in ascending powers.',
        "",
        "Written by `tests/iv/refit_coefficients.py`, which says how they are fitted; not to be edited by hand.",
        '"""',
        "",
        "from __future__ import annotations",
    ]
    for name, description in DESCRIPTIONS.items():
        lines += ["", f"{name} = (", *(f"    {value!r}," for value in coefficients[name]), ")", f'"""{description}"""']
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the module instead of comparing with it")
    arguments = parser.parse_args()
    coefficients, errors = fit_all()
    for name, error in errors.items():
        print(f"{name:12s} largest relative error {error:.2e}")
    if arguments.write:
        MODULE.write_text(module_text(coefficients), encoding="utf-8")
        print(f"wrote {MODULE}")
        return
    from volsurf.iv import _coefficients

    for name, values in coefficients.items():
        committed = getattr(_coefficients, name)
        worst = max(abs(a / b - 1) for a, b in zip(values, committed, strict=True))
        print(f"{name:14s} differs from the committed one by {worst:.1e} relative")


if __name__ == "__main__":
    main()
