"""Arbitrage decided without rounding: Sturm sequences, in integers, on the exact polynomials of the exact doubles.

It is written from the definitions (w = P/2t, w' = V/Q, k = K/2t), not from the scale-free form the kernels use, so that the two
share no algebra. Positive factors are dropped throughout: only signs are asked for.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import gcd, lcm

Polynomial = list[int]
"""Coefficients, lowest degree first."""


def add(*terms: Polynomial) -> Polynomial:
    size = max(len(term) for term in terms)
    return [sum(term[i] for term in terms if i < len(term)) for i in range(size)]


def multiply(*factors: Polynomial) -> Polynomial:
    product = [1]
    for factor in factors:
        result = [0] * (len(product) + len(factor) - 1)
        for i, x in enumerate(product):
            for j, y in enumerate(factor):
                result[i + j] += x * y
        product = result
    return product


def scaled(number: int, polynomial: Polynomial) -> Polynomial:
    return [number * coefficient for coefficient in polynomial]


def sign_at(polynomial: Polynomial, t: Fraction) -> int:
    """An integer of the sign of the polynomial at t."""
    result, power = 0, 1
    for coefficient in reversed(polynomial):
        result = result * t.numerator + coefficient * power
        power *= t.denominator
    return result


def _integers(*groups: list[Fraction]) -> tuple[int, list[Polynomial]]:
    """A common denominator S, and every number times S."""
    denominator = lcm(*(number.denominator for group in groups for number in group))
    return denominator, [[int(number * denominator) for number in group] for group in groups]


def _primitive(polynomial: Polynomial) -> Polynomial:
    """Over the common divisor of its coefficients and over its power of t, which changes no sign for t > 0."""
    result = polynomial[:]
    while result and result[-1] == 0:
        result.pop()
    while result and result[0] == 0:
        result.pop(0)
    common = gcd(*result) or 1
    return [c // common for c in result]


def _remainder(dividend: Polynomial, divisor: Polynomial) -> Polynomial:
    """Remainder of dividend by divisor, times a positive integer."""
    rest = dividend[:]
    lead = divisor[-1]
    sign = 1 if lead > 0 else -1
    while len(rest) >= len(divisor):
        factor, shift = rest[-1], len(rest) - len(divisor)
        rest = [c * abs(lead) for c in rest]
        for i, c in enumerate(divisor):
            rest[shift + i] -= sign * factor * c
        while rest and rest[-1] == 0:
            rest.pop()
    common = gcd(*rest) or 1
    return [c // common for c in rest]


def sturm_chain(polynomial: Polynomial) -> list[Polynomial]:
    """Sturm's sequence of a polynomial (over its power of t)."""
    first = _primitive(polynomial)
    chain = [first, [i * c for i, c in enumerate(first)][1:]]
    while chain[-1]:
        chain.append([-c for c in _remainder(chain[-2], chain[-1])])
    return chain[:-1]


def _variations(values: list[int]) -> int:
    signs = [v > 0 for v in values if v != 0]
    return sum(x != y for x, y in pairwise(signs))


def roots_between(chain: list[Polynomial], low: Fraction, high: Fraction | None) -> int:
    """Number of distinct roots in (low, high], or (low, infinity) for None; neither may be a multiple root."""
    upper = [p[-1] for p in chain] if high is None else [sign_at(p, high) for p in chain]
    return _variations([sign_at(p, low) for p in chain]) - _variations(upper)


def cell_samples(polynomials: list[Polynomial]) -> list[Fraction]:
    """One point, at least, of each open interval into which the roots of the polynomials cut (0, infinity)."""
    chain = sturm_chain(multiply(*(p for p in polynomials if any(p))))
    zero = Fraction(0)
    total = roots_between(chain, zero, None)
    if total == 0:
        return [Fraction(1)]
    high = Fraction(1)
    while sign_at(chain[0], high) == 0 or roots_between(chain, zero, high) < total:
        high *= 2
    samples = {high}
    todo = [(zero, high, total)]
    while todo:
        left, right, count = todo.pop()
        if count <= 1:
            continue
        middle = (left + right) / 2
        while sign_at(chain[0], middle) == 0:
            middle = (middle + right) / 2
        samples.add(middle)
        below = roots_between(chain, left, middle)
        todo += [(left, middle, below), (middle, right, count - below)]
    first = min(samples)
    while roots_between(chain, zero, first) > 0:
        first /= 2
    return sorted(samples | {first})


def density_polynomial(a: float, b: float, rho: float, m: float, sigma: float) -> tuple[int, Polynomial]:
    """(S^5, S^5 * 16 sigma P^2 (1 + t^2)^3 g) as an integer and a polynomial in t, exactly."""
    level, mean, tilt, centre, width = (Fraction(float(v)) for v in (a, b, rho, m, sigma))
    right, left = mean * (1 + tilt), mean * (1 - tilt)
    one, (p, v, k, (sigma_, u)) = _integers(
        [width * left, 2 * level, width * right],
        [-left, Fraction(0), right],
        [-width, 2 * centre, width],
        [width, right + left],
    )
    q = [1, 0, 1]
    monotone = add(scaled(2 * one, multiply(p, q)), scaled(-1, multiply(k, v)))
    return one**5, add(
        scaled(4 * sigma_, multiply(q, monotone, monotone)),
        scaled(-sigma_, multiply(v, v, p, add(p, [0, 8 * one]), q)),
        scaled(32 * u * one**2, multiply([0, 0, 0, 1], p, p)),
    )


def positive_variance(a: float, b: float, rho: float, sigma: float) -> bool:
    """Whether a + b sigma sqrt(1 - rho^2) > 0."""
    level, mean, tilt, width = (Fraction(float(v)) for v in (a, b, rho, sigma))
    return level > 0 or level**2 < (mean * width) ** 2 * (1 - tilt * tilt)


def butterfly_free(a: float, b: float, rho: float, m: float, sigma: float) -> bool:
    """Whether the slice is free of butterfly arbitrage, decided without rounding."""
    mean, tilt = Fraction(float(b)), Fraction(float(rho))
    if max(mean * (1 + tilt), mean * (1 - tilt)) >= 2 or not positive_variance(a, b, rho, sigma):
        return False
    _, polynomial = density_polynomial(a, b, rho, m, sigma)
    return all(sign_at(polynomial, t) >= 0 for t in cell_samples([polynomial]))


def calendar_free(near: tuple[float, ...], far: tuple[float, ...]) -> bool:
    """Whether total variance of `far` is nowhere below `near`'s, decided without rounding. Both are (a, b, rho, m, sigma)."""
    a1, b1, rho1, m1, sigma1 = (Fraction(float(v)) for v in near)
    a2, b2, rho2, m2, sigma2 = (Fraction(float(v)) for v in far)
    gap = m1 - m2
    slope = b2 * rho2  # of the far slice's linear part
    _, (e, line, (twice,)) = _integers(
        [sigma1 * (b1 * (1 - rho1) + slope), 2 * (a1 - a2) - 2 * slope * gap, sigma1 * (b1 * (1 + rho1) - slope)],
        [-b2 * sigma1, 2 * b2 * gap, b2 * sigma1],
        [2 * b2 * sigma2],
    )
    h = add(multiply(line, line), [0, 0, twice**2], scaled(-1, multiply(e, e)))
    return not any(h) or all(sign_at(e, t) <= 0 or sign_at(h, t) >= 0 for t in cell_samples([e, h]))
