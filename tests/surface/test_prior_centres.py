"""Centres of the priors stand still for a second at a time, whatever becomes of single expiries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.surface.quoted_market import NOW, Quoted, board_of
from tests.surface.test_kept_curves import SECOND, later, without_quotes
from volsurf.surface.prior_centres import PriorCentres
from volsurf.surface.quote_vols import quote_vols
from volsurf.surface.slices import Smile
from volsurf.surface.smile import build_smiles, fit_columns
from volsurf.surface.smile_columns import SmileColumns
from volsurf.surface.surface import Surface

TENTH = SECOND // 10


@pytest.fixture(scope="module")
def smiles() -> list[Smile]:
    return build_smiles(quote_vols(board_of(Quoted()), NOW))


def fitted(smiles: list[Smile], before: dict[str, Surface], centres: PriorCentres) -> dict[str, Surface]:
    return fit_columns(SmileColumns.of_smiles(smiles), before, centres=centres)


def held(smiles: list[Smile], centres: PriorCentres) -> list[bool]:
    return np.isfinite(centres.of(SmileColumns.of_smiles(smiles))[:, 0]).tolist()


def test_they_are_held_for_a_second(smiles: list[Smile]) -> None:
    centres = PriorCentres()
    surfaces = fitted(smiles, {}, centres)
    fitted(later(smiles, TENTH), surfaces, centres)
    assert held(later(smiles, 2 * TENTH), centres) == [True, True, True]
    first = centres.of(SmileColumns.of_smiles(later(smiles, 2 * TENTH)))
    np.testing.assert_array_equal(centres.of(SmileColumns.of_smiles(later(smiles, 9 * TENTH))), first)
    assert held(later(smiles, SECOND), centres) == [False, False, False]
    # The clock was set back.
    assert held(later(smiles, -SECOND), centres) == [False, False, False]


@pytest.mark.parametrize("elapsed_ns", [2 * TENTH, 5 * SECOND])
def test_an_expiry_whose_quotes_are_gone_does_not_set_the_others_free(smiles: list[Smile], elapsed_ns: int) -> None:
    centres = PriorCentres()
    surfaces = fitted(later(smiles, TENTH), fitted(smiles, {}, centres), centres)
    bare = without_quotes(later(smiles, elapsed_ns), 1)
    surfaces = fitted(bare, surfaces, centres)
    kept = surfaces["BTC"].smiles[1].fit
    assert kept is not None
    assert kept.is_kept
    assert held(later(bare, TENTH), centres)[::2] == [True, True]


def test_a_new_listing_asks_its_neighbours_and_leaves_theirs_alone(smiles: list[Smile]) -> None:
    centres = PriorCentres()
    two = [smiles[0], smiles[2]]
    surfaces = fitted(later(two, TENTH), fitted(two, {}, centres), centres)
    was = centres.of(SmileColumns.of_smiles(later(smiles, 2 * TENTH)))
    assert np.isfinite(was[:, 0]).tolist() == [True, False, True]
    surfaces = fitted(later(smiles, 2 * TENTH), surfaces, centres)
    now = centres.of(SmileColumns.of_smiles(later(smiles, 3 * TENTH)))
    np.testing.assert_array_equal(now[::2], was[::2])
    assert np.isfinite(now).all()


def test_underlyings_are_held_apart(smiles: list[Smile]) -> None:
    centres = PriorCentres()
    both = [*smiles, *(replace(s, underlying="ETH") for s in smiles)]
    fitted(later(both, TENTH), fitted(both, {}, centres), centres)
    columns = SmileColumns.of_smiles([*later(smiles, 2 * SECOND), *later(both, 2 * TENTH)[3:]])
    assert np.isfinite(centres.of(columns)[:, 0]).tolist() == [False] * 3 + [True] * 3
