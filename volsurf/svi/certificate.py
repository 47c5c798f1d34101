"""The verdict of an arbitrage check: one per slice or per pair of slices, with the worst point and the kind of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing import Self

EXACT_POLYNOMIAL = "exact-polynomial"
"""Evidence: the sign of a polynomial on the whole half-line, with every rounding error bounded; no grid of strikes."""


class Verdict(IntEnum):
    """What a certificate says about one slice or one pair of slices."""

    UNDECIDED = 0
    """Within rounding error of the boundary, or the work limit was reached. Treat as not proved."""
    PROVED = 1
    """Free of arbitrage at every log-moneyness from minus to plus infinity."""
    VIOLATED = 2
    """Arbitrage exists; `worst_k` is a place where it does."""
    INVALID = 3
    """The parameters are no smile: NaN, b < 0, |rho| > 1, sigma <= 0, or total variance that is not positive everywhere."""


class Condition(IntEnum):
    """Which condition decided a verdict."""

    HOLDS = 0
    DENSITY = 1
    RIGHT_SLOPE = 2
    LEFT_SLOPE = 3
    VARIANCE = 4
    NOT_FINITE = 5
    NOT_A_SLICE = 6
    CROSSING = 7
    ROUNDING = 8
    WORK_LIMIT = 9
    SCALE = 10


_BUTTERFLY = {
    Condition.HOLDS: "no butterfly arbitrage at any strike; lowest g around the smile {value:.4g}, at k = {k:.4g}",
    Condition.DENSITY: "butterfly arbitrage: the density is negative at k = {k:.6g}, where g = {value:.4g}",
    Condition.RIGHT_SLOPE: "butterfly arbitrage in the right wing: slope b (1 + rho) is not below 2; "
    "g = {value:.4g} at k = {k:.6g}",
    Condition.LEFT_SLOPE: "butterfly arbitrage in the left wing: slope b (1 - rho) is not below 2; "
    "g = {value:.4g} at k = {k:.6g}",
    Condition.VARIANCE: "not a smile: total variance falls to {value:.4g}, at k = {k:.6g}, and must stay positive",
}
_CALENDAR = {
    Condition.HOLDS: "no calendar arbitrage at any strike; smallest gain of total variance {value:.4g}, at k = {k:.4g}",
    Condition.RIGHT_SLOPE: "calendar arbitrage in the right wing: the far slope is below the near one; "
    "far - near total variance is {value:.4g} at k = {k:.6g}",
    Condition.LEFT_SLOPE: "calendar arbitrage in the left wing: the far slope is below the near one; "
    "far - near total variance is {value:.4g} at k = {k:.6g}",
    Condition.CROSSING: "calendar arbitrage: far total variance is below near by {loss:.4g} at k = {k:.6g}",
}
_COMMON = {
    Condition.NOT_FINITE: "not a smile: a parameter is NaN or infinite",
    Condition.NOT_A_SLICE: "not a smile: it needs b >= 0, |rho| <= 1 and sigma > 0",
    Condition.ROUNDING: "undecided: within rounding error of the boundary (lowest value found {value:.4g}, at k = {k:.6g})",
    Condition.WORK_LIMIT: "undecided: the work limit was reached before a decision "
    "(lowest value found {value:.4g}, at k = {k:.6g})",
    Condition.SCALE: "undecided: the parameters are too far apart in scale for the error bounds",
}


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """Verdicts on a batch of slices (butterfly) or pairs of slices (calendar); arrays of shape (n,), or () for a single one.

    `bool(certificate)` is true when every one is proved.
    """

    kind: str
    """ "butterfly" or "calendar"."""
    verdict: npt.NDArray[np.int8]
    """`Verdict` of each."""
    condition: npt.NDArray[np.int8]
    """`Condition` that decided each verdict."""
    worst_k: npt.NDArray[np.float64]
    """Log-moneyness of `worst_value`; NaN for parameters that are no slice."""
    worst_value: npt.NDArray[np.float64]
    """Butterfly: the lowest Durrleman g that was found. Calendar: the smallest far minus near total variance that was found.

    Where the verdict is VIOLATED this is a true violation. Elsewhere it is the minimum over a reporting scan that is dense
    around the smile: it is there to show how much room is left, and the proof does not rest on it. Where total variance
    is not positive it is the lowest total variance.
    """
    nodes: npt.NDArray[np.int32]
    """Subdivision nodes that were examined; 0 where a condition on the parameters alone decided."""
    evidence: str = EXACT_POLYNOMIAL
    """Kind of evidence behind the verdicts."""

    @classmethod
    def of(cls, kind: str, outcome: Sequence[npt.NDArray[Any]], shape: tuple[int, ...]) -> Self:
        """Of the five columns that the kernels return."""
        verdict, condition, worst_k, worst_value, nodes = (column.reshape(shape) for column in outcome)
        return cls(kind, verdict, condition, worst_k, worst_value, nodes)

    @property
    def proved(self) -> npt.NDArray[np.bool_]:
        """True for each slice or pair that is proved free of arbitrage."""
        return np.asarray(self.verdict == Verdict.PROVED)

    def __bool__(self) -> bool:
        return bool(np.all(self.proved))

    def __len__(self) -> int:
        return int(self.verdict.size)

    def sentence(self, index: int = 0) -> str:
        """What the certificate says about slice or pair `index`, in words."""
        condition = Condition(int(self.condition.flat[index]))
        sentences = _COMMON | (_BUTTERFLY if self.kind == "butterfly" else _CALENDAR)
        value = float(self.worst_value.flat[index])
        return sentences[condition].format(k=float(self.worst_k.flat[index]), value=value, loss=-value)

    def _repr_html_(self) -> str:
        """The tally and the first 24 sentences."""
        counts = ", ".join(
            f"{int(np.sum(self.verdict == v))} {v.name.lower()}" for v in Verdict if np.any(self.verdict == v)
        )
        rows = "".join(
            f"<tr><th>{i}</th><td>{Verdict(int(self.verdict.flat[i])).name.lower()}</td><td>{_escape(self.sentence(i))}</td></tr>"
            for i in range(min(len(self), 24))
        )
        more = f"<p>and {len(self) - 24} more</p>" if len(self) > 24 else ""
        return f"<p>{self.kind}: {counts or 'nothing to check'} ({self.evidence})</p><table><tbody>{rows}</tbody></table>{more}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
