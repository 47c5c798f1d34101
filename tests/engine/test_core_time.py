"""The core as time passes: the filter, expiries that settle and roll off, quotes that vanish, fits that end without a proof."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.tape import DAY_NS, SECOND, Market
from volsurf.engine import core as core_module
from volsurf.engine.core import Core, CoreRules
from volsurf.engine.frame import Frame
from volsurf.engine.log import FeedState, PolicyChange
from volsurf.engine.mirror import FrameMirror
from volsurf.quotes import Field, QuoteBatch
from volsurf.surface.smile import fit_columns
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Verdict

TENTH = SECOND // 10
WINDOW = CoreRules().quotes.settlement_window_ns


def started(market: Market, rules: CoreRules | None = None) -> tuple[Core, Frame]:
    core = Core(rules)
    for entry in market.beginning():
        core.apply(entry)
    return core, core.frame(market.start_ns)


def quoted(core: Core, market: Market, now_ns: int) -> Frame:
    """A frame with new quotes of everything."""
    core.apply(market.batch(now_ns))
    core.apply(market.health(now_ns))
    return core.frame(now_ns)


def assert_certified(surface: Surface) -> None:
    """What is published says that it is proved, and its doubles are, by themselves."""
    assert surface.certificate, surface.certificate.witness
    assert check_butterfly(surface.svi)
    for i in range(len(surface) - 1):
        assert check_calendar(surface.svi[i], surface.svi[i + 1])


@pytest.mark.parametrize("is_live", [True, False])
def test_an_expiry_leaves_when_it_begins_to_settle(is_live: bool) -> None:
    market = Market(underlyings=("BTC",))
    expiry_ns = market.start_ns + DAY_NS
    core, _ = started(market)
    before = quoted(core, market, expiry_ns - WINDOW - SECOND)
    assert len(before.surfaces["BTC"]) == 5
    second = before.surfaces["BTC"].smiles[1].fit
    assert second is not None
    assert np.isfinite(second.calendar_worst_k)
    now = expiry_ns - WINDOW
    if is_live:
        core.apply(market.batch(now))
    core.apply(market.health(now, FeedState.READY if is_live else FeedState.DISCONNECTED))
    frame = core.frame(now)
    surface = frame.surfaces["BTC"]
    assert len(surface) == 4
    assert expiry_ns not in frame.listed["BTC"]
    assert [(p.underlying, p.stage) for p in frame.problems] == [("BTC", "expiry")]
    assert "26NOV26 is settling" in frame.problems[0].sentence
    first = surface.smiles[0].fit
    assert first is not None
    assert (first.calendar_verdict, "first expiry" in first.calendar_sentence) == (Verdict.PROVED, True)
    if not is_live:
        # Not a bit of the curve itself is other than it was.
        assert (first.a, first.b, first.rho, first.m, first.sigma) == (
            second.a, second.b, second.rho, second.m, second.sigma,
        )  # fmt: skip
    assert_certified(surface)
    mirrored = FrameMirror().apply(frame.to_bytes())
    assert mirrored.hash == frame.hash
    assert_certified(mirrored.surfaces["BTC"])


def test_the_roll_at_expiry_is_seamless() -> None:
    market = Market(underlyings=("BTC",))
    expiry_ns = market.start_ns + DAY_NS
    core, _ = started(market)
    settling = quoted(core, market, expiry_ns - TENTH)
    rolled = quoted(core, market, expiry_ns)
    assert [p.stage for p in settling.problems] == ["expiry"]
    assert rolled.problems == ()
    assert rolled.listed["BTC"] == settling.listed["BTC"]
    assert_certified(rolled.surfaces["BTC"])
    np.testing.assert_allclose(rolled.surfaces["BTC"].atm_vol, settling.surfaces["BTC"].atm_vol, atol=1e-4)


def test_quotes_that_vanish_leave_their_curve() -> None:
    market = Market(underlyings=("BTC",))
    core, first = started(market)
    now = market.start_ns + TENTH
    gone = [i for i, row in enumerate(market.instruments) if row.expiry_ns == market.start_ns + 9 * DAY_NS]
    core.apply(QuoteBatch(gone, int(Field.QUOTE), number=2, receive_time_ns=now))
    core.apply(market.health(now))
    frame = core.frame(now)
    kept = frame.surfaces["BTC"].smiles[2]
    assert kept.fit is not None
    assert kept.fit.is_kept
    assert kept.atm_vol == pytest.approx(first.surfaces["BTC"].smiles[2].atm_vol, rel=1e-12)
    assert_certified(frame.surfaces["BTC"])
    back = quoted(core, market, now + TENTH).surfaces["BTC"].smiles[2]
    assert back.fit is not None
    assert back.fit.n_used > 10


def test_a_new_listing_with_three_quotes_does_not_move_its_neighbours() -> None:
    market = Market(underlyings=("BTC",))
    listed = [i for i, row in enumerate(market.instruments) if row.expiry_ns != market.start_ns + 9 * DAY_NS]
    new = [i for i in range(len(market.instruments)) if i not in listed]
    core = Core()
    start, added, *_ = market.beginning()
    for entry in (start, added, market.health(market.start_ns), market.batch(market.start_ns, ids=listed)):
        core.apply(entry)
    before = core.frame(market.start_ns).surfaces["BTC"]
    assert before.smiles[2].fit is not None
    assert before.smiles[2].fit.is_synthetic
    now = market.start_ns + TENTH
    near = sorted(new, key=lambda i: abs(market.instruments[i].strike / market.spot["BTC"] - 1))[:6]
    core.apply(market.batch(now, ids=sorted(near)))
    core.apply(market.health(now))
    after = core.frame(now).surfaces["BTC"]
    fit = after.smiles[2].fit
    assert fit is not None
    assert "fewer than 7" in fit.sentence
    others = [0, 1, 3, 4]
    k = np.linspace(-0.05, 0.05, 5)
    for i in others:
        np.testing.assert_allclose(after.smiles[i].fitted_vol(k), before.smiles[i].fitted_vol(k), atol=1e-4)
    assert after.smiles[2].atm_vol == pytest.approx(0.5, abs=0.02)
    assert_certified(after)


def test_the_filter_follows_a_small_move_slowly_and_is_there_after_a_second() -> None:
    still = Market(underlyings=("BTC",))
    core, first = started(still, CoreRules(smoothing_seconds=0.5))
    raw, _ = started(Market(underlyings=("BTC",)), CoreRules(smoothing_seconds=0.0))
    still.level["BTC"] *= 1.004
    now = still.start_ns + TENTH
    batch = still.batch(now)
    for one in (core, raw):
        one.apply(batch)
        one.apply(still.health(now))
    filtered, followed = core.frame(now).surfaces["BTC"], raw.frame(now).surfaces["BTC"]
    whole = followed.atm_vol - first.surfaces["BTC"].atm_vol
    share = (filtered.atm_vol - first.surfaces["BTC"].atm_vol) / whole
    assert (share < 0.5).all()
    assert all(smile.fit is not None and smile.fit.smoothed == 1 for smile in filtered.smiles)
    # Nothing more is heard but that the feed lives; the next refit is due a second after the last.
    core.apply(still.health(now + SECOND))
    settled = core.frame(now + SECOND).surfaces["BTC"]
    share = (settled.atm_vol - first.surfaces["BTC"].atm_vol) / whole
    assert (share > 0.6).all()


def test_a_jump_opens_the_gate() -> None:
    market = Market(underlyings=("BTC",))
    core, first = started(market)
    market.level["BTC"] *= 1.05
    jumped = quoted(core, market, market.start_ns + TENTH).surfaces["BTC"]
    np.testing.assert_allclose(jumped.atm_vol / first.surfaces["BTC"].atm_vol, 1.05, atol=0.003)
    assert all(smile.fit is not None and smile.fit.smoothed == 2 for smile in jumped.smiles)


def test_policy_changes_reach_the_fit() -> None:
    market = Market(underlyings=("BTC",))
    core, _ = started(market)
    core.apply(PolicyChange(enforce=False, smoothing_seconds=0.0))
    assert (core.rules.enforce, core.rules.smoothing_seconds) == (False, 0.0)
    assert core.rules.refit_after_ns == CoreRules().refit_after_ns
    market.level["BTC"] *= 1.002
    surface = quoted(core, market, market.start_ns + TENTH).surfaces["BTC"]
    states = [(s.fit.enforcement_label, s.fit.smoothed) for s in surface.smiles if s.fit is not None]
    assert states == [("off", 0)] * 5


@pytest.mark.parametrize("is_live", [True, False])
def test_switched_on_enforcement_leaves_nothing_that_can_be_arbitraged(is_live: bool) -> None:
    market = Market(underlyings=("BTC",))
    core, _ = started(market, CoreRules(enforce=False))
    # Later expiries far below the nearer ones: fitted as they are they cross.
    crossed = market.batch(market.start_ns + TENTH)
    market.level["BTC"] = 0.2
    far = [i for i, row in enumerate(market.instruments) if row.expiry_ns > market.start_ns + 5 * DAY_NS]
    core.apply(crossed)
    core.apply(market.batch(market.start_ns + TENTH, ids=far))
    market.level["BTC"] = 0.1
    core.apply(
        market.batch(
            market.start_ns + TENTH,
            ids=[i for i in far if market.instruments[i].expiry_ns > market.start_ns + 20 * DAY_NS],
        )
    )
    core.apply(market.health(market.start_ns + TENTH))
    assert not core.frame(market.start_ns + TENTH).surfaces["BTC"].certificate
    core.apply(PolicyChange(enforce=True))
    core.apply(market.health(market.start_ns + 2 * TENTH, FeedState.READY if is_live else FeedState.DISCONNECTED))
    frame = core.frame(market.start_ns + 2 * TENTH)
    assert frame.surfaces["BTC"].time_ns == frame.time_ns
    assert_certified(frame.surfaces["BTC"])


def test_a_first_fit_without_a_proof_is_not_published_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*args: Any, **options: Any) -> dict[str, Surface]:
        surface = fit_columns(*args, **options)["BTC"]
        first, *others = surface.smiles
        assert first.fit is not None
        bad = first.with_fit(replace(first.fit, butterfly_verdict=int(Verdict.UNDECIDED)))
        return {"BTC": replace(surface, smiles=(bad, *others))}

    monkeypatch.setattr(core_module, "fit_columns", spoilt)
    _, frame = started(Market(underlyings=("BTC",)))
    assert frame.surfaces == {}
    assert next(p.sentence for p in frame.problems).endswith("no surface yet")


def test_a_fit_that_ends_without_a_proof_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market()
    core, first = started(market)

    def spoilt(*args: Any, **options: Any) -> dict[str, Surface]:
        surfaces = fit_columns(*args, **options)
        *others, last = surfaces["BTC"].smiles
        assert last.fit is not None
        bad = last.with_fit(replace(last.fit, calendar_verdict=int(Verdict.UNDECIDED)))
        return surfaces | {"BTC": replace(surfaces["BTC"], smiles=(*others, bad))}

    monkeypatch.setattr(core_module, "fit_columns", spoilt)
    for name in market.underlyings:
        market.level[name] *= 1.1
    frame = quoted(core, market, market.start_ns + TENTH)
    assert frame.surfaces["BTC"] is first.surfaces["BTC"]
    assert frame.surfaces["ETH"] is not first.surfaces["ETH"]
    (problem,) = frame.problems
    assert (problem.underlying, problem.stage) == ("BTC", "fit")
    assert problem.sentence.startswith("the fit ended without a proof")
    assert problem.sentence.endswith("the surface of 0.1 s ago stays")
    assert sum(frame.ledger["BTC"].values()) == sum(i.underlying == "BTC" for i in market.instruments)
    later = core.frame(market.start_ns + 3 * TENTH)
    assert later.problems[0].sentence.endswith("the surface of 0.3 s ago stays")
    monkeypatch.undo()
    healed = quoted(core, market, market.start_ns + 2 * SECOND)
    assert healed.problems == ()
    np.testing.assert_allclose(healed.surfaces["BTC"].atm_vol, 0.55, atol=0.02)


def test_a_frame_says_what_a_slice_cost() -> None:
    market = Market()
    core, first = started(market)
    assert first.refitted == 10
    assert np.isnan(first.fit_us_per_slice)
    first.timings["fit"] = 2.0
    assert first.fit_us_per_slice == 200.0
    market.level["ETH"] *= 1.05
    core.apply(market.batch(market.start_ns + TENTH, underlyings=("ETH",)))
    second = core.frame(market.start_ns + TENTH)
    assert second.refitted == 5
    second.timings["fit"] = 2.0
    assert second.fit_us_per_slice == 400.0
    third = core.frame(market.start_ns + 2 * TENTH)
    third.timings["fit"] = 2.0
    assert (third.refitted, np.isnan(third.fit_us_per_slice)) == (0, True)
