"""The smile of a surface at any one time, with what is proved about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray
from volsurf.surface._rows import labels_of
from volsurf.surface.interpolation import (
    INTERVAL,
    NOTHING,
    THEOREM,
    Late,
    durrleman,
    forward_at,
    forward_variance,
    late_rule,
    require_fit,
    rules,
    scale_slices,
    shift,
    variance_derivatives,
    vol_of,
)
from volsurf.svi.certificate import EXACT_POLYNOMIAL, Verdict
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface


@dataclass(frozen=True, slots=True)
class SliceCertificate:
    """What is proved about the smile at one time: butterflies, and calendars against the expiries around it."""

    verdict: Verdict
    evidence: str
    """exact-polynomial, interval (bounds on boxes that cover all strikes and the whole interval), theorem, or none."""
    sentence: str

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PROVED


@dataclass(frozen=True, slots=True, eq=False)
class SliceView:
    """The smile at one time."""

    surface: Surface
    years: float
    forward: float
    kind: str
    """listed, scaled (before the first expiry or past the last), blend, mixture (of prices), shifted or held."""
    after: str
    """Last fitted expiry at or before this time; empty before the first."""
    before: str
    """First fitted expiry at or after this time; empty past the last."""
    svi: RawSVI | None
    """The slice, where the smile is one; its doubles are what the certificate is about."""
    certificate: SliceCertificate

    @property
    def is_extrapolated(self) -> bool:
        """Before the first fitted expiry or past the last."""
        return not (self.after and self.before)

    def total_variance(self, k: npt.ArrayLike) -> FloatArray:
        """w at log-moneyness k, in its shape."""
        if self.svi is not None:
            return self.svi.total_variance(k)
        return variance_derivatives(self.surface, np.asarray(k, np.float64), np.array(self.years))[0]

    def vol(self, k: npt.ArrayLike) -> FloatArray:
        """Implied vol at log-moneyness k, in its shape; NaN where a slice that is not certified has negative variance."""
        return vol_of(self.total_variance(k), self.years)

    def g(self, k: npt.ArrayLike) -> FloatArray:
        """Durrleman's function at k: the density over a lognormal one, negative exactly where there is butterfly arbitrage."""
        if self.svi is not None:
            return self.svi.g(k)
        k_ = np.asarray(k, np.float64)
        return durrleman(k_, *variance_derivatives(self.surface, k_, np.array(self.years)))

    def __repr__(self) -> str:
        return f"SliceView({self.surface.underlying}, {self.years:.6g} years, {self.kind}, {self.certificate.sentence})"


def slice_at(surface: Surface, years: float) -> SliceView:
    """The smile at a time within the horizon."""
    require_fit(surface)
    forward = float(forward_at(surface, np.array(years)))
    kind, after, before, svi, certificate = place_of(surface, years)
    if kind == "listed":
        svi = surface.svi[int(np.searchsorted(surface.years, years))]
    return SliceView(
        surface, years, forward, kind, after, before, None if years > surface.event_years else svi, certificate
    )


def place_of(surface: Surface, years: float) -> tuple[str, str, str, RawSVI | None, SliceCertificate]:
    """Kind, expiry after which and before which, slice (outside the expiries) and certificate of the smile at a time."""
    times = surface.years[surface.fitted]
    place = int(np.searchsorted(times, years))
    labels = labels_of(surface)
    listed = place < len(times) and times[place] == years
    earlier = place if listed else place - 1
    after = labels[surface.fitted[earlier]] if earlier >= 0 else ""
    before = labels[surface.fitted[place]] if place < len(times) else ""
    svi: RawSVI | None = None
    if listed:
        kind, certificate = "listed", _listed(surface, int(surface.fitted[place]))
    elif place == 0:
        first = surface.svi[int(surface.fitted[0])]
        kind, svi = "scaled", scale_slices(first, years / float(times[0]))
        certificate = _exact(svi, first, False, before)
    elif place == len(times):
        last = surface.svi[int(surface.fitted[-1])]
        late = late_rule(surface)
        kind = late.name.lower()
        if late is Late.SHIFTED:
            svi = shift(last, forward_variance(surface) * (years - float(times[-1])))
        else:
            svi = last if late is Late.HELD else scale_slices(last, years / float(times[-1]))
        certificate = _exact(svi, last, True, after)
    else:
        found = rules(surface)
        kind = "mixture" if found.mixed[place - 1] else "blend"
        certificate = _between(found.evidence[place - 1], after, before)
    if years > surface.event_years:
        certificate = SliceCertificate(
            certificate.verdict,
            THEOREM if certificate else certificate.evidence,
            f"{certificate.sentence}; the event's jump, independent of it, keeps that",
        )
    return kind, after, before, svi, certificate


def _listed(surface: Surface, index: int) -> SliceCertificate:
    fit = surface.smiles[index].fit
    assert fit is not None
    verdicts = {fit.butterfly_verdict, fit.calendar_verdict}
    gravest = next((v for v in (Verdict.INVALID, Verdict.VIOLATED, Verdict.UNDECIDED) if v in verdicts), Verdict.PROVED)
    sentence = fit.failure_sentence or "free of butterfly and calendar arbitrage at every strike"
    return SliceCertificate(gravest, EXACT_POLYNOMIAL, sentence)


def _exact(svi: RawSVI, neighbour: RawSVI, is_later: bool, name: str) -> SliceCertificate:
    """Of a slice that stands for a time outside the expiries, by its doubles and those of the nearest expiry."""
    from volsurf.svi.arbitrage import check_butterfly
    from volsurf.svi.calendar import check_calendar

    butterfly = check_butterfly(svi)
    if not butterfly:
        return SliceCertificate(Verdict(int(butterfly.verdict)), EXACT_POLYNOMIAL, butterfly.sentence())
    calendar = check_calendar(neighbour, svi) if is_later else check_calendar(svi, neighbour)
    free = f"free of butterfly arbitrage at every strike, and of calendar arbitrage against {name}"
    if calendar:
        return SliceCertificate(Verdict.PROVED, EXACT_POLYNOMIAL, free)
    if calendar.verdict == Verdict.UNDECIDED and check_butterfly(neighbour):
        # A hair from the expiry the rounding of the doubles is as large as the gain; that w rises with the scale is a theorem.
        return SliceCertificate(Verdict.PROVED, THEOREM, free)
    return SliceCertificate(Verdict(int(calendar.verdict)), EXACT_POLYNOMIAL, calendar.sentence())


def _between(evidence: str, after: str, before: str) -> SliceCertificate:
    if evidence == NOTHING:
        return SliceCertificate(
            Verdict.UNDECIDED,
            NOTHING,
            f"not certified, because {after} and {before} are not, or not against each other",
        )
    how = (
        "proved on boxes that cover every strike and the whole interval"
        if evidence == INTERVAL
        else "prices between two free of it are, too"
    )
    return SliceCertificate(
        Verdict.PROVED, evidence, f"free of butterfly and calendar arbitrage between {after} and {before}: {how}"
    )
