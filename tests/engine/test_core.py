from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.engine.tape import DAY_NS, SECOND, Market, moving_log
from volsurf.engine import core as core_module
from volsurf.engine.core import Core, CoreRules, frames_of
from volsurf.engine.frame import Frame
from volsurf.engine.log import (
    ClockStep,
    FeedState,
    InstrumentsRetired,
    PolicyChange,
    Tick,
    log_from_bytes,
    log_to_bytes,
)
from volsurf.quotes import Field, QuoteBatch
from volsurf.surface.smile import fit_columns
from volsurf.surface.smile_columns import SmileColumns
from volsurf.surface.surface import Surface

TENTH = SECOND // 10

REPLAY = """
import sys
from pathlib import Path
from volsurf.engine.core import Core, frames_of
from volsurf.engine.log import log_from_bytes
for frame in frames_of(Core(), log_from_bytes(Path(sys.argv[1]).read_bytes())):
    print(frame.hash.hex())
"""


def started(market: Market) -> tuple[Core, Frame]:
    core = Core()
    for entry in market.beginning():
        core.apply(entry)
    return core, core.frame(market.start_ns)


def test_the_same_log_gives_the_same_hashes_here_and_in_another_process(tmp_path: Path) -> None:
    log = moving_log(Market(), frames=12)
    hashes = [frame.hash.hex() for frame in frames_of(Core(), log)]
    assert hashes == [frame.hash.hex() for frame in frames_of(Core(), log)]
    assert len(set(hashes)) > 6
    path = tmp_path / "log"
    path.write_bytes(log_to_bytes(log))
    for seed in ("1", "2"):
        # Another hash seed each time: an iteration over a set of names would show here.
        other = subprocess.run(
            [sys.executable, "-c", REPLAY, str(path)],
            capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert other.stdout.split() == hashes


def test_a_log_read_back_from_bytes_gives_the_same_hashes() -> None:
    log = moving_log(Market(), frames=6)
    again = log_from_bytes(log_to_bytes(log))
    assert [f.hash for f in frames_of(Core(), log)] == [f.hash for f in frames_of(Core(), again)]


def test_every_listed_expiry_is_fitted_to_the_market() -> None:
    market = Market()
    _, frame = started(market)
    assert list(frame.surfaces) == ["BTC", "ETH"]
    for name, surface in frame.surfaces.items():
        assert tuple(surface.expiries) == frame.listed[name]
        assert np.abs(surface.atm_vol - 0.5).max() < 0.02
        assert all(smile.fit is not None and smile.fit.rms < 1 for smile in surface.smiles)
    assert frame.feed_numbers == {"venue": market.number}
    assert frame.problems == ()


def test_the_ledger_adds_up_to_the_options_listed() -> None:
    market = Market()
    _, frame = started(market)
    for name, counts in frame.ledger.items():
        assert sum(counts.values()) == sum(i.underlying == name for i in market.instruments)


def test_what_did_not_change_is_not_made_again() -> None:
    market = Market()
    core, first = started(market)
    second = core.frame(market.start_ns + TENTH)
    assert second.surfaces["BTC"] is first.surfaces["BTC"]
    assert second.number == first.number + 1
    market.level["ETH"] *= 1.05
    core.apply(market.batch(market.start_ns + 2 * TENTH, underlyings=("ETH",)))
    third = core.frame(market.start_ns + 2 * TENTH)
    assert third.surfaces["BTC"] is first.surfaces["BTC"]
    assert abs(third.surfaces["ETH"].atm_vol / first.surfaces["ETH"].atm_vol - 1.05).max() < 0.005


def test_the_same_quotes_again_are_no_change() -> None:
    market = Market()
    core, first = started(market)
    again = market.batch(market.start_ns)
    core.apply(again)
    assert core.frame(market.start_ns + TENTH).surfaces["BTC"] is first.surfaces["BTC"]


def test_a_move_far_inside_the_error_bar_is_not_fitted_but_its_sum_is() -> None:
    market = Market(underlyings=("BTC",))
    core, first = started(market)
    now, frames = market.start_ns, []
    for _ in range(9):
        # Half a basis point of vol a frame, against error bars of some 30.
        market.level["BTC"] *= 1.0001
        now += SECOND // 20
        core.apply(market.batch(now))
        frames.append(core.frame(now))
    same = [frame.surfaces["BTC"] is first.surfaces["BTC"] for frame in frames]
    assert same[0]
    assert not same[-1]


def test_time_alone_makes_a_surface_again_after_a_second() -> None:
    market = Market()
    core, first = started(market)
    late = core.frame(market.start_ns + SECOND - 1)
    core.apply(market.health(market.start_ns + SECOND))
    later = core.frame(market.start_ns + SECOND)
    assert late.surfaces["BTC"] is first.surfaces["BTC"]
    assert later.surfaces["BTC"].time_ns == market.start_ns + SECOND
    assert later.surfaces["BTC"].years[0] < first.surfaces["BTC"].years[0]


def test_a_policy_change_is_an_entry_of_the_log() -> None:
    market = Market()
    core, first = started(market)
    core.apply(PolicyChange(refit_after_ns=3 * SECOND))
    core.apply(market.health(market.start_ns + 2 * SECOND))
    assert core.frame(market.start_ns + 2 * SECOND).surfaces["BTC"] is first.surfaces["BTC"]


def test_an_expiry_that_passes_leaves_and_its_ids_stay() -> None:
    market = Market()
    core, first = started(market)
    now = market.start_ns + DAY_NS
    market.messages += 1
    core.apply(market.health(now, FeedState.DISCONNECTED))
    frame = core.frame(now)
    # The feed is down, so nothing is fitted; even so nothing that has expired is shown.
    assert [len(s.smiles) for s in frame.surfaces.values()] == [4, 4]
    assert all(len(expiries) == 4 for expiries in frame.listed.values())
    assert len(core.universe) == len(market.instruments)
    assert first.surfaces["BTC"].smiles[0].expiry_ns == now
    assert core.frame(market.start_ns + 200 * DAY_NS).surfaces == {}


def test_a_delisted_expiry_leaves() -> None:
    market = Market()
    core, _ = started(market)
    gone = tuple(i for i, row in enumerate(market.instruments) if row.expiry_ns == market.start_ns + 9 * DAY_NS)
    core.apply(InstrumentsRetired(0, gone))
    core.apply(market.batch(market.start_ns + TENTH))
    market.level["BTC"] *= 1.1
    core.apply(market.batch(market.start_ns + SECOND))
    frame = core.frame(market.start_ns + SECOND)
    assert len(frame.listed["BTC"]) == len(frame.surfaces["BTC"].smiles) == 4


def failing_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(columns: SmileColumns, *args: Any, **options: Any) -> dict[str, Surface]:
        if name in columns.underlying:
            raise FloatingPointError("a slice went wrong")
        return fit_columns(columns, *args, **options)

    monkeypatch.setattr(core_module, "fit_columns", fit)


def test_one_underlying_that_fails_leaves_the_others_alone_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market()
    core, first = started(market)
    failing_for("BTC", monkeypatch)
    for name in market.underlyings:
        market.level[name] *= 1.1
    core.apply(market.batch(market.start_ns + TENTH))
    frame = core.frame(market.start_ns + TENTH)
    assert frame.surfaces["BTC"] is first.surfaces["BTC"]
    assert frame.surfaces["ETH"] is not first.surfaces["ETH"]
    (problem,) = frame.problems
    assert (problem.underlying, problem.stage) == ("BTC", "fit")
    assert "a slice went wrong" in problem.sentence
    assert problem.sentence.endswith("the surface of 0.1 s ago stays")
    # Still said, with the age it has by then, in a frame in which nothing was tried, and gone once it works again.
    (later,) = core.frame(market.start_ns + 2 * TENTH).problems
    assert later.sentence == problem.sentence.replace("0.1 s", "0.2 s")
    monkeypatch.undo()
    core.apply(market.health(market.start_ns + 2 * SECOND))
    healed = core.frame(market.start_ns + 2 * SECOND)
    assert healed.problems == ()
    assert healed.surfaces["BTC"] is not first.surfaces["BTC"]


def test_quotes_that_cannot_be_read_are_a_problem_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market()
    core, first = started(market)
    market.level["BTC"] *= 1.1
    core.apply(market.batch(market.start_ns + TENTH))

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(core_module, "quote_vols", broken)
    frame = core.frame(market.start_ns + TENTH)
    assert [p.stage for p in frame.problems] == ["quotes"]
    assert frame.surfaces["BTC"] is first.surfaces["BTC"]
    monkeypatch.undo()
    healed = core.frame(market.start_ns + 2 * TENTH)
    assert healed.problems == ()
    assert healed.surfaces["BTC"] is not first.surfaces["BTC"]


def test_garbage_quotes_cost_their_own_expiry_only() -> None:
    market = Market()
    core, first = started(market)
    bad = [
        i
        for i, row in enumerate(market.instruments)
        if row.underlying == "BTC" and row.expiry_ns < market.start_ns + 2 * DAY_NS
    ]
    rng = np.random.default_rng(3)
    junk = rng.choice([np.nan, -1.0, 0.0, 1e300, np.inf, 0.01], (2, len(bad)))
    core.apply(
        QuoteBatch(bad, int(Field.QUOTE), bid=junk[0], ask=junk[1], number=9, receive_time_ns=market.start_ns + TENTH)
    )
    frame = core.frame(market.start_ns + TENTH)
    assert frame.surfaces["ETH"] is first.surfaces["ETH"]
    later = frame.surfaces["BTC"].atm_vol[1:]
    assert np.abs(later - first.surfaces["BTC"].atm_vol[1:]).max() < 0.02


def test_a_feed_that_is_down_leaves_the_last_surface_and_recovers() -> None:
    market = Market()
    core, first = started(market)
    now = market.start_ns + 2 * SECOND
    core.apply(QuoteBatch(market.ids, int(Field.QUOTE), number=7, receive_time_ns=now))
    core.apply(market.health(now, FeedState.DISCONNECTED))
    frame = core.frame(now)
    assert frame.surfaces["BTC"] is first.surfaces["BTC"]
    assert (frame.health["venue"].state, frame.health["venue"].is_live) == ("disconnected", False)
    core.apply(market.batch(now + SECOND))
    core.apply(market.health(now + SECOND))
    healed = core.frame(now + SECOND)
    assert healed.surfaces["BTC"].time_ns == now + SECOND
    assert healed.health["venue"].is_live


def test_a_feed_that_falls_silent_is_named_and_its_surfaces_stay() -> None:
    market = Market()
    core, first = started(market)
    frame = core.frame(market.start_ns + 6 * SECOND)
    status = frame.health["venue"]
    assert (status.state, status.is_live, status.silent_ns) == ("silent", False, 6 * SECOND)
    assert "nothing heard for 6 s" in status.sentence
    assert frame.surfaces["BTC"] is first.surfaces["BTC"]
    core.apply(market.health(market.start_ns + 7 * SECOND))
    assert core.frame(market.start_ns + 7 * SECOND).health["venue"].state == "ready"


def test_a_feed_that_restarts_with_other_ids_finds_its_instruments_again() -> None:
    market = Market()
    core, first = started(market)
    before = len(core.universe)
    again = Market()
    again.number = 100
    order = np.random.default_rng(1).permutation(len(again.instruments))
    again.instruments = [
        again.instruments[i] for i in order if again.instruments[i].expiry_ns > again.start_ns + DAY_NS
    ]
    again.ids = tuple(range(len(again.instruments)))
    log = again.beginning(market.start_ns + 2 * SECOND, FeedState.SUBSCRIBING)
    core.apply(log[0])
    # The old process's quotes are not live: they are cleared, and the surface is held meanwhile.
    assert np.isnan(core.board.bid).all()
    for entry in log[1:]:
        core.apply(entry)
    waiting = core.frame(market.start_ns + 2 * SECOND)
    assert waiting.surfaces["BTC"] is first.surfaces["BTC"]
    assert len(waiting.listed["BTC"]) == 5
    core.apply(again.health(market.start_ns + 3 * SECOND))
    frame = core.frame(market.start_ns + 3 * SECOND)
    assert len(core.universe) == before
    # What it did not list again has gone.
    assert len(frame.listed["BTC"]) == len(frame.surfaces["BTC"].smiles) == 4
    assert np.abs(frame.surfaces["BTC"].atm_vol - first.surfaces["BTC"].atm_vol[1:]).max() < 0.01
    assert frame.feed_numbers == {"venue": 101}


def test_two_feeds_with_the_same_ids_do_not_mix() -> None:
    one, other = Market(underlyings=("BTC",), name="one"), Market(underlyings=("ETH",), feed=1, name="two")
    other.level["ETH"] = 0.8
    core = Core()
    for entry in (*one.beginning(), *other.beginning()):
        core.apply(entry)
    frame = core.frame(one.start_ns)
    assert frame.surfaces["BTC"].atm_vol[2] == pytest.approx(0.5, abs=0.02)
    assert frame.surfaces["ETH"].atm_vol[2] == pytest.approx(0.8, abs=0.03)
    assert set(frame.health) == {"one", "two"}
    core.apply(other.health(one.start_ns + SECOND, FeedState.DISCONNECTED))
    core.apply(one.health(one.start_ns + SECOND))
    later = core.frame(one.start_ns + SECOND)
    assert later.surfaces["ETH"] is frame.surfaces["ETH"]
    assert later.surfaces["BTC"] is not frame.surfaces["BTC"]


def test_quotes_of_unknown_instruments_are_counted_and_said_once() -> None:
    market = Market()
    core, _ = started(market)
    core.apply(QuoteBatch([len(market.ids) + 5, -3], int(Field.QUOTE), bid=1.0, ask=1.0))
    frame = core.frame(market.start_ns + TENTH)
    assert [(p.stage, p.sentence.split()[0]) for p in frame.problems] == [("feed", "2")]
    assert core.frame(market.start_ns + 2 * TENTH).problems == ()
    core.apply(QuoteBatch([0], int(Field.QUOTE), feed=7, bid=1.0, ask=1.0))
    assert [p.stage for p in core.frame(market.start_ns + 3 * TENTH).problems] == ["feed"]


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_that_is_set_keeps_ages_and_is_said(hours: int) -> None:
    market = Market(days=(2.0, 9.0))
    core, first = started(market)
    step = hours * 3600 * SECOND
    now = market.start_ns + TENTH + step
    # One batch came after the step and before the core noticed it.
    core.apply(market.batch(now, underlyings=("ETH",)))
    core.apply(ClockStep(now, step))
    core.apply(market.health(now))
    frame = core.frame(now)
    assert [p.stage for p in frame.problems] == ["clock"]
    assert f"{step / SECOND:+.3f} s" in frame.problems[0].sentence
    assert np.abs(core.board.receive_time_ns - now).max() <= TENTH
    # Nothing is stale, and the new time is believed: the surfaces are of it.
    assert frame.ledger == first.ledger
    assert frame.surfaces["BTC"].time_ns == now
    assert core.frame(now + 61 * SECOND).problems == ()


def test_a_tick_is_not_applied() -> None:
    with pytest.raises(TypeError, match="call frame"):
        Core().apply(Tick(0))


def test_a_core_without_feeds_makes_empty_frames() -> None:
    frame = Core().frame(5)
    assert (frame.number, frame.surfaces, frame.health, frame.problems) == (1, {}, {}, ())


def test_the_steps_of_a_frame_are_told_to_whoever_has_a_clock() -> None:
    market = Market(underlyings=("BTC",))
    core = Core(CoreRules())
    for entry in market.beginning():
        core.apply(entry)
    steps: list[str] = []
    core.frame(market.start_ns, steps.append)
    assert steps == ["board", "vols", "smiles", "fit"]
