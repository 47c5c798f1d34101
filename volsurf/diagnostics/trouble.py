"""Which curves a desk should not quote on, and why: the one rule that reports, pages and panels share.

A notebook kernel that only shows an engine's frames asks it too, so nothing here loads a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import FloatArray
from volsurf.svi._published import Enforcement
from volsurf.svi.certificate import Verdict

if TYPE_CHECKING:
    from volsurf.surface.slices import SliceFit, Smile

HALF = 0.5
"""Share of the two-sided quotes that must hold a curve for it to be quoted on."""
FAR = 5.0
"""Residuals in error bars, root mean square, beyond which a curve does not follow its quotes however many hold it, or where none
has two sides. Of 574 real slices the largest was 1.8, and none was held by fewer than half of its quotes."""


class Trouble(IntEnum):
    """What keeps a desk from quoting on a curve; the gravest that applies. The browser's TROUBLES are in this order."""

    NONE = 0
    ARBITRAGE = 1
    UNDECIDED = 2
    GUARDED = 3
    OFF_QUOTES = 4
    """It does not follow its quotes, see `is_off_quotes`."""

    @classmethod
    def of(cls, fit: SliceFit) -> Trouble:
        """Of one slice."""
        verdicts = (fit.butterfly_verdict, fit.calendar_verdict)
        if Verdict.VIOLATED in verdicts or Verdict.INVALID in verdicts:
            return cls.ARBITRAGE
        if not fit.is_certified:
            return cls.UNDECIDED
        if fit.enforcement == Enforcement.GUARDED:
            return cls.GUARDED
        return cls.OFF_QUOTES if is_off_quotes(fit) else cls.NONE

    @property
    def label(self) -> str:
        """Three words at most, for a badge; empty where there is none."""
        return _LABELS[self]


_LABELS = {
    Trouble.NONE: "",
    Trouble.ARBITRAGE: "arbitrage",
    Trouble.UNDECIDED: "undecided",
    Trouble.GUARDED: "guarded",
    Trouble.OFF_QUOTES: "off its quotes",
}
_WHY = {
    Trouble.ARBITRAGE: "has arbitrage",
    Trouble.UNDECIDED: "is not certified",
    Trouble.GUARDED: "is guarded",
    Trouble.OFF_QUOTES: "is off its quotes",
}


def is_off_quotes(fit: SliceFit) -> bool:
    """Fewer than half of the two-sided quotes hold the curve, or it lies five error bars from them."""
    return fit.inside < HALF or fit.rms > FAR


def off_quotes_sentence(fit: SliceFit) -> str:
    """How far the curve is from its quotes, and what to do; for a slice that `is_off_quotes`."""
    held = f"{fit.inside:.0%} of {fit.n_two_sided} two-sided quotes hold it" if fit.n_two_sided else ""
    apart = f"it lies {fit.rms:,.3g} error bars from them (rms)"
    return f"the curve does not follow its quotes: {', '.join(filter(None, (held, apart)))}; do not quote on it"


def attention(smiles: Sequence[Smile]) -> list[str]:
    """The expiries a desk should not quote on, with the reason."""
    found = [(smile.expiry_label, Trouble.of(smile.fit)) for smile in smiles if smile.fit is not None]
    return [f"{label} {_WHY[trouble]}: do not quote on it" for label, trouble in found if trouble]


def contradictions(smiles: Sequence[Smile], index: int) -> list[str]:
    """Expiries whose quotes cannot be free of calendar arbitrage together with those of smile `index`, in sentences.

    Two expiries contradict each other at a log-moneyness where the nearer one's bid has more total variance than the farther
    one's ask, the latter read between its strikes.
    """
    found = []
    for other in range(len(smiles)):
        if other == index:
            continue
        near, far = sorted((smiles[index], smiles[other]), key=lambda smile: smile.years)
        crossed, compared = _crossed(near, far)
        if crossed:
            label = smiles[other].expiry_label
            found.append(
                f"its quotes and those of {label} contradict each other: at {crossed} of {compared} strikes the bid of "
                f"{near.expiry_label} has more total variance than the ask of {far.expiry_label}"
            )
    return found


def _crossed(near: Smile, far: Smile) -> tuple[int, int]:
    """Strikes of the nearer smile at which the quotes cross, of how many that lie between the farther one's strikes."""
    (k, bid), (k_far, ask) = _variances(near, near.bid_vol), _variances(far, far.ask_vol)
    if not len(k) or not len(k_far):
        return 0, 0
    within = (k >= k_far[0]) & (k <= k_far[-1])
    return int((bid[within] > np.interp(k[within], k_far, ask)).sum()), int(within.sum())


def _variances(smile: Smile, vol: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log-moneyness, rising, and total variance of the used quotes that have this side."""
    there = np.isfinite(vol) & ((smile.reason == QuoteReason.USED) | (smile.reason == QuoteReason.OUTLIER))
    k, w = smile.log_moneyness[there], vol[there] ** 2 * smile.years
    order = np.argsort(k, kind="stable")
    return k[order], w[order]
