"""One step of fifth order on the logarithm of the price."""

from __future__ import annotations

from volsurf._jit import helper
from volsurf.iv._elementary import CONTRACT

CERTIFIED = 1e-3
"""A relative step up to this leaves a relative error below 1e-14 (3e-3 leaves 1e-13, 1e-2 leaves 6e-11)."""

CERTIFIED_WARM = 4e-3
"""Limit for a warm step, which leaves a relative error of v below 2e-13 up to v = 1, 2e-12 up to 3, 6e-12 up to 5 and 2e-10 up
to 16, where the range of a warm step ends. It is largest at the inflexion, h = v²/2."""


@helper(fastmath=CONTRACT)
def householder(d: float, rho: float, h: float, v: float, s: float) -> tuple[float, float]:
    """Relative correction e of v (v ← v + e v), and the size that certifies it; s = 1/v.

    d = ln(target/model) and ρ = b/b' for b = c, or b = −(1 − c) above the inflexion. The derivatives of ρ are algebraic:
    with γ = b''/b' = u z/v, γ' = −3h²/v⁴ − 1/4 and γ'' = 12h²/v⁵,

        A = ρ' = 1 − ργ,   B = ρρ'' = −(A ργ + ρ²γ'),   G = ρ²ρ''' = −(B ργ + 2A ρ²γ' + ρ³γ''),
        dv = ρ d (1 − A d + (A²/3 − B/6) d²) / (1 − (3/2)A d + ((11/12)A² − B/3) d² + (A(B − A²)/4 − G/24) d³).

    The size is the largest of |e|, the Newton step and |d|/2000. Far from the root the fraction alone can come out small;
    and where ρ has been rounded to zero both steps vanish, but d is huge. At a root with a = 38, where the price leaves
    the doubles, a step of 1e-3 is a d of 1.4.
    """
    a = h * s
    t = 0.5 * v
    rs = rho * s
    g = (rs * (a - t)) * (a + t)
    m = a * rs
    m2 = m * m
    k1 = -0.25 * (rho * rho) - 3.0 * m2
    a1 = 1.0 - g
    b = -(a1 * g + k1)
    c = -(b * g + 2.0 * (a1 * k1) + (12.0 * m2) * rs)
    a2 = a1 * a1
    n2 = a2 * (1.0 / 3.0) - b * (1.0 / 6.0)
    d2 = a2 * (11.0 / 12.0) - b * (1.0 / 3.0)
    d3 = (0.25 * a1) * (b - a2) - c * (1.0 / 24.0)
    newton = rs * d
    above = 1.0 + d * (d * n2 - a1)
    below = 1.0 + d * (d * (d2 + d * d3) - 1.5 * a1)
    e = newton * above / below
    size = abs(e)
    size = size if size > abs(newton) else abs(newton)
    size = size if size > 5e-4 * abs(d) else 5e-4 * abs(d)
    return e, size
