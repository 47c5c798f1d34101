"""Raw SVI slices and their two other parametrisations, natural and jump-wings.

    w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))          k = ln(K/F),  w = vol^2 * years

Everything here is numpy on whole batches; nothing imports numba. Formulas are written in the wing slopes
U = b (1 + rho), L = b (1 - rho) and in t = x + sqrt(1 + x^2), x = (k - m)/sigma, where no term cancels:

    w = a + sigma/2 (U t + L/t)      w' = (U t - L/t) / (t + 1/t)      w'' = b / (sigma R^3),  R = (t + 1/t)/2

Sources: Gatheral (2004), *A parsimonious arbitrage-free implied volatility parameterization*; Gatheral and Jacquier (2014),
*Arbitrage-free SVI volatility surfaces*, Quantitative Finance 14(1), sections 3.1 to 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals
from volsurf.errors import InputError

if TYPE_CHECKING:
    from typing import Self

Array = npt.NDArray[np.float64]


def check_rows(k: Array, shape: tuple[int, ...]) -> None:
    """InputError unless log-moneynesses of this shape can be asked of slices of that one."""
    if shape and (k.ndim > 2 or (k.ndim == 2 and k.shape[0] != shape[0])):
        raise InputError(
            f"k has shape {k.shape}; for {shape[0]} slices it must be a number, one dimension (the same k for every slice) or "
            f"({shape[0]}, m) (a row of k for each)"
        )


def _refuse(bad: npt.NDArray[np.bool_], name: str, values: Array, rule: str) -> None:
    """Raise for the first slice where `bad`, naming parameter, value, slice and rule."""
    if not np.any(bad):
        return
    index = int(np.argmax(np.atleast_1d(bad)))
    where = "" if bad.ndim == 0 else f" of slice {index}"
    raise InputError(f"{name}{where} was {float(np.atleast_1d(values)[index])!r}; {rule}")


def _broadcast_fields(instance: object) -> dict[str, Array]:
    """Turn the fields of a frozen dataclass into read-only float64 arrays of one common shape, () or (n,)."""
    names = [f.name for f in fields(instance)]  # type: ignore[arg-type]
    given = {name: as_reals(name, getattr(instance, name)) for name in names}
    try:
        shape = np.broadcast_shapes(*(value.shape for value in given.values()))
    except ValueError as error:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in given.items())
        raise InputError(
            f"the parameters of a batch of slices must broadcast together, shapes were {shapes}"
        ) from error
    if len(shape) > 1:
        raise InputError(f"a batch of slices is one-dimensional; the parameters broadcast to shape {shape}")
    for name, value in given.items():
        # A contiguous copy: kernels read it, and a later write by the caller must not change a certified slice.
        owned = np.array(value if value.shape == shape else np.broadcast_to(value, shape), np.float64, order="C")
        owned.flags.writeable = False
        given[name] = owned
        object.__setattr__(instance, name, owned)
    return given


def _years(years: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    value = as_reals("years", years)
    _refuse(~(np.isfinite(value) & (value > 0)), "years", value, "time to expiry must be positive and finite")
    try:
        return np.broadcast_to(value, shape)
    except ValueError as error:
        raise InputError(f"years has shape {value.shape}, the slices have shape {shape}") from error


@dataclass(frozen=True, slots=True, eq=False)
class JumpWings:
    """SVI in trader's numbers (Gatheral and Jacquier 2014, definition 3.3); arrays of one shape.

    They depend on the time to expiry only weakly, so slices of one surface can be compared.
    """

    v: Array
    """At-the-money-forward variance per year, w(0)/years."""
    psi: Array
    """At-the-money skew of the total vol, d sqrt(w) / dk at k = 0."""
    p: Array
    """Slope of the left (put) wing, L / sqrt(w(0))."""
    c: Array
    """Slope of the right (call) wing, U / sqrt(w(0))."""
    v_min: Array
    """Lowest variance per year over all strikes."""

    if TYPE_CHECKING:
        # The fields are arrays; given may be anything that becomes one.
        def __init__(
            self, v: npt.ArrayLike, psi: npt.ArrayLike, p: npt.ArrayLike, c: npt.ArrayLike, v_min: npt.ArrayLike
        ) -> None: ...

    def __post_init__(self) -> None:
        _broadcast_fields(self)


@dataclass(frozen=True, slots=True, eq=False)
class NaturalSVI:
    """SVI as w = delta + omega/2 (1 + zeta rho (k - mu) + sqrt((zeta (k - mu) + rho)^2 + 1 - rho^2)); arrays of one shape.

    (Gatheral and Jacquier 2014, equation 3.2.) It exists for |rho| < 1 only.
    """

    delta: Array
    mu: Array
    rho: Array
    omega: Array
    zeta: Array

    if TYPE_CHECKING:
        # The fields are arrays; given may be anything that becomes one.
        def __init__(
            self, delta: npt.ArrayLike, mu: npt.ArrayLike, rho: npt.ArrayLike, omega: npt.ArrayLike, zeta: npt.ArrayLike
        ) -> None: ...

    def __post_init__(self) -> None:
        _broadcast_fields(self)


@dataclass(frozen=True, slots=True, eq=False)
class RawSVI:
    """A batch of raw SVI slices: five float64 arrays of one shape, (n,) or () for a single slice.

    Scalars and arrays broadcast. NaN is allowed and marks a slice that has no fit: every result of it is NaN and its certificate
    says INVALID. A slice may hold negative `a`, slopes of 2 and more or even negative variance, since those are for
    `check_butterfly` to judge; but what is no hyperbola at all is refused.

    Raises:
        InputError: b < 0, |rho| > 1, sigma <= 0, an infinity, or shapes that do not broadcast to one dimension.
    """

    a: Array
    """Level of total variance."""
    b: Array
    """Mean of the two wing slopes, >= 0."""
    rho: Array
    """Tilt, -1 to 1."""
    m: Array
    """Log-moneyness of the hyperbola's centre."""
    sigma: Array
    """Width of the smile's bottom in log-moneyness, > 0."""

    if TYPE_CHECKING:
        # The fields are arrays; given may be anything that becomes one.
        def __init__(
            self, a: npt.ArrayLike, b: npt.ArrayLike, rho: npt.ArrayLike, m: npt.ArrayLike, sigma: npt.ArrayLike
        ) -> None: ...

    def __post_init__(self) -> None:
        given = _broadcast_fields(self)
        # One look at everything first: a surface is made of slices at every frame, and hardly ever of bad ones.
        bad = np.isinf([*given.values()]).any(axis=0) | (self.b < 0) | (np.abs(self.rho) > 1) | (self.sigma <= 0)
        if not bad.any():
            return
        for name, value in given.items():
            _refuse(np.isinf(value), name, value, "it must be finite (NaN marks a slice without a fit)")
        _refuse(self.b < 0, "b", self.b, "the slopes' mean b must not be negative")
        _refuse(np.abs(self.rho) > 1, "rho", self.rho, "rho must lie in [-1, 1]")
        _refuse(self.sigma <= 0, "sigma", self.sigma, "sigma must be positive")

    @property
    def shape(self) -> tuple[int, ...]:
        """() for a single slice, (n,) for a batch."""
        return self.a.shape

    @property
    def right_slope(self) -> Array:
        """U = b (1 + rho): slope of w as k goes to plus infinity. Lee's bound is U < 2."""
        return np.asarray(self.b * (1.0 + self.rho))

    @property
    def left_slope(self) -> Array:
        """L = b (1 - rho): minus the slope of w as k goes to minus infinity. Lee's bound is L < 2."""
        return np.asarray(self.b * (1.0 - self.rho))

    @property
    def minimum_total_variance(self) -> Array:
        """Infimum of w over all k: a + b sigma sqrt(1 - rho^2)."""
        return np.asarray(self.a + self.b * self.sigma * np.sqrt((1.0 - self.rho) * (1.0 + self.rho)))

    def total_variance(self, k: npt.ArrayLike) -> Array:
        """Total variance w at log-moneyness `k`.

        A single slice answers in the shape of k. A batch of n answers shape (n,) to a scalar, (n, m) to m log-moneynesses common
        to all slices, and (n, m) to a k of shape (n, m), one row for each slice.
        """
        a, _, u, l, sigma, t, t_inverse, _, _ = self._terms(k)
        return np.asarray(a + 0.5 * sigma * (u * t + l * t_inverse))

    def vol(self, k: npt.ArrayLike, years: npt.ArrayLike) -> Array:
        """Implied vol at log-moneyness `k` (shapes as `total_variance`; `years` scalar or one a slice).

        NaN where total variance is negative, which a slice that `check_butterfly` proved never is.
        """
        w = self.total_variance(k)
        years_ = _years(years, self.shape)
        if w.ndim > len(self.shape) and self.shape:
            years_ = years_[:, None]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(w / years_))

    def g(self, k: npt.ArrayLike) -> Array:
        """Durrleman's function at `k` (shapes as `total_variance`); the density of ln(S/F) is g phi(d2)/sqrt(w).

        g = (1 - k w'/(2w))^2 - w'^2/4 (1/w + 1/4) + w''/2. It is negative exactly where butterflies cost less than nothing.
        """
        a, b, u, l, sigma, t, t_inverse, radius, k_ = self._terms(k)
        w = a + 0.5 * sigma * (u * t + l * t_inverse)
        slope = (u * t - l * t_inverse) / (2.0 * radius)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            curvature = b / (sigma * radius**3)
            return np.asarray((1.0 - 0.5 * k_ * slope / w) ** 2 - 0.25 * slope**2 * (1.0 / w + 0.25) + 0.5 * curvature)

    def _terms(self, k: npt.ArrayLike) -> tuple[Array, ...]:
        """(a, b, U, L, sigma, t, 1/t, R, k), broadcast against each other by the rule of `total_variance`."""
        k_ = as_reals("k", k)
        a, b, u, l, m, sigma = self.a, self.b, self.right_slope, self.left_slope, self.m, self.sigma
        check_rows(k_, self.shape)
        if self.shape and k_.ndim:
            a, b, u, l, m, sigma = (value[:, None] for value in (a, b, u, l, m, sigma))
        x = (k_ - m) / sigma
        radius = np.hypot(1.0, x)
        large = radius + np.abs(x)  # t or 1/t, whichever exceeds one: a sum, so nothing cancels
        t = np.where(x >= 0, large, 1.0 / large)
        t_inverse = np.where(x >= 0, 1.0 / large, large)
        return a, b, u, l, sigma, t, t_inverse, radius, k_

    def to_jump_wings(self, years: npt.ArrayLike) -> JumpWings:
        """Jump-wings numbers of the slices for time to expiry `years` (scalar or one a slice).

        Raises:
            InputError: total variance at the money is not positive.
        """
        years_ = _years(years, self.shape)
        a, _, u, l, sigma, t, t_inverse, radius, _ = self._terms(0.0)
        w0 = a + 0.5 * sigma * (u * t + l * t_inverse)
        _refuse(w0 <= 0, "total variance at k = 0", w0, "jump-wings need it positive")
        root = np.sqrt(w0)
        slope = (u * t - l * t_inverse) / (2.0 * radius)
        return JumpWings(w0 / years_, 0.5 * slope / root, l / root, u / root, self.minimum_total_variance / years_)

    @classmethod
    def from_jump_wings(cls, jump_wings: JumpWings, years: npt.ArrayLike) -> Self:
        """Raw slices of jump-wings numbers at time to expiry `years`.

        Written in t0 = t(k=0) rather than as lemma 3.2 of Gatheral and Jacquier, whose formula has a special case at m = 0 and
        cancels near |rho| = 1:  t0^2 = (p + 2 psi)/(c - 2 psi)  and  (v - v_min) years = sigma/(2 t0) (sqrt(U) t0 - sqrt(L))^2.

        Raises:
            InputError: numbers of no slice (v <= 0, p or c < 0, psi outside (-p/2, c/2), v_min > v), or the lowest point of the
                smile exactly at the money, where jump-wings do not determine sigma.
        """
        jw = jump_wings
        years_ = _years(years, jw.v.shape)
        _refuse(jw.v <= 0, "v", jw.v, "at-the-money variance must be positive")
        _refuse(jw.p < 0, "p", jw.p, "wing slopes must not be negative")
        _refuse(jw.c < 0, "c", jw.c, "wing slopes must not be negative")
        _refuse((jw.psi <= -0.5 * jw.p) | (jw.psi >= 0.5 * jw.c), "psi", jw.psi, "the skew must lie inside (-p/2, c/2)")
        _refuse(jw.v_min > jw.v, "v_min", jw.v_min, "the lowest variance must not exceed v")
        root = np.sqrt(jw.v * years_)
        u, l = jw.c * root, jw.p * root
        t0 = np.sqrt((jw.p + 2.0 * jw.psi) / (jw.c - 2.0 * jw.psi))
        # sqrt(U) t0 - sqrt(L), written as the difference of squares over the sum: that difference is 2 psi (p + c)/(c - 2 psi).
        gap = np.sqrt(root) * 2.0 * jw.psi * (jw.p + jw.c) / (jw.c - 2.0 * jw.psi)
        gap = gap / (np.sqrt(jw.c) * t0 + np.sqrt(jw.p))
        flat = (jw.psi == 0) | (jw.v_min == jw.v)
        _refuse(
            flat, "psi", jw.psi, "with the smile's lowest point at the money (v_min = v) jump-wings do not fix sigma"
        )
        sigma = 2.0 * t0 * (jw.v - jw.v_min) * years_ / gap**2
        m = 0.5 * sigma * (1.0 / t0 - t0)
        a = jw.v_min * years_ - sigma * np.sqrt(u * l)
        return cls(a, 0.5 * (u + l), (jw.c - jw.p) / (jw.c + jw.p), m, sigma)

    def to_natural(self) -> NaturalSVI:
        """Natural parameters.

        Raises:
            InputError: |rho| = 1, where they do not exist.
        """
        _refuse(np.abs(self.rho) == 1, "rho", self.rho, "natural parameters need |rho| < 1")
        cosine = np.sqrt((1.0 - self.rho) * (1.0 + self.rho))
        omega = 2.0 * self.b * self.sigma / cosine
        return NaturalSVI(
            self.a - 0.5 * omega * cosine**2,
            self.m + self.rho * self.sigma / cosine,
            self.rho,
            omega,
            cosine / self.sigma,
        )

    @classmethod
    def from_natural(cls, natural: NaturalSVI) -> Self:
        """Raw slices of natural parameters.

        Raises:
            InputError: |rho| >= 1, omega < 0 or zeta <= 0.
        """
        n = natural
        _refuse(np.abs(n.rho) >= 1, "rho", n.rho, "natural parameters need |rho| < 1")
        _refuse(n.omega < 0, "omega", n.omega, "omega must not be negative")
        _refuse(n.zeta <= 0, "zeta", n.zeta, "zeta must be positive")
        cosine2 = (1.0 - n.rho) * (1.0 + n.rho)
        return cls(
            n.delta + 0.5 * n.omega * cosine2,
            0.5 * n.omega * n.zeta,
            n.rho,
            n.mu - n.rho / n.zeta,
            np.sqrt(cosine2) / n.zeta,
        )

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single slice has no length")
        return self.shape[0]

    def __getitem__(self, index: int | slice | npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Self:
        if not self.shape:
            raise TypeError("a single slice cannot be indexed")
        return type(self)(self.a[index], self.b[index], self.rho[index], self.m[index], self.sigma[index])

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Bit-identical parameters (NaN equal to NaN)."""
        if not isinstance(other, RawSVI):
            return NotImplemented
        return self.shape == other.shape and all(
            getattr(self, f.name).tobytes() == getattr(other, f.name).tobytes() for f in fields(self)
        )

    def _repr_html_(self) -> str:
        """A table of at most 24 slices."""
        names = [f.name for f in fields(self)]
        rows = np.column_stack([np.atleast_1d(getattr(self, name)) for name in names])
        head = "".join(f"<th>{name}</th>" for name in ["", *names])
        body = "".join(
            f"<tr><th>{i}</th>" + "".join(f"<td>{value:.6g}</td>" for value in row) + "</tr>"
            for i, row in enumerate(rows[:24])
        )
        more = f"<p>and {len(rows) - 24} more</p>" if len(rows) > 24 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
