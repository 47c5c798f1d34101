"""Live behaviour, F1 to F7, and C1 on the engine: figures of the simulated market driven through a core, and their bars.

The tapes are those of `tests.bench.tapes`: BTC, ETH and SOL, 33 expiries, ten frames a second in virtual time. The bars of
jitter and jumps (F2, F3) were set after measuring these tapes, which `python -m tests.bench.tapes` prints. Their noise is mild
and lasts: a maker looks at a fifth of the books a frame, so the quotes themselves lag a drift by 0.4 s, and a filter can take
away less of it than of white noise. `python -m tests.acceptance` prints every figure beside its bar.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.acceptance.figures import Row
from tests.bench.tapes import SECOND, START_NS, Tape, drift, forward_jump, lag_seconds, measure, vol_jump
from tests.engine.tape import Market
from volsurf.engine.core import Core, CoreRules
from volsurf.engine.log import Tick, log_from_bytes, log_to_bytes
from volsurf.engine.mirror import FrameMirror
from volsurf.sim.listing import listed_expiries
from volsurf.surface.slices import Smile
from volsurf.surface.smile import fit_columns
from volsurf.surface.smile_columns import SmileColumns
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.blend import check_blend
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Verdict

Floats = npt.NDArray[np.float64]
DEFAULT = CoreRules().smoothing_seconds


def is_proved(surface: Surface) -> bool:
    """Whether the doubles of a surface are free of arbitrage, looked at afresh."""
    svi = surface.svi
    pairs = (check_calendar(svi[i], svi[i + 1]) for i in range(len(surface) - 1))
    return bool(check_butterfly(svi)) and all(map(bool, pairs))


def places(smile: Smile) -> Floats:
    """Log-moneyness of -2 to 2 standard deviations, as far as there are quotes."""
    k = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) * smile.atm_vol * np.sqrt(smile.years)
    used = smile.log_moneyness[smile.used]
    return k[(k >= used.min()) & (k <= used.max())] if used.size else k[:0]


def half_spread(smile: Smile, k: Floats) -> Floats:
    """Error bars of the quotes, at k."""
    return np.asarray(np.interp(k, smile.log_moneyness[smile.used], smile.error[smile.used]))


@functools.cache
def _warm_and_cold() -> dict[bool, tuple[Floats, Floats]]:
    """With and without enforcement: |warm - cold| in vol and in error bars, at the places of every slice of 12 instants."""
    found: dict[bool, list[tuple[Floats, Floats]]] = {True: [], False: []}
    tape = Tape(seed=3, activity=3.0)
    warm: dict[bool, dict[str, Surface]] = {True: {}, False: {}}
    for frame in range(24):
        tape.step()
        if frame % 2:
            continue
        assert tape.core.quotes is not None
        columns = SmileColumns.of(tape.core.quotes)
        for enforce in (True, False):
            cold = fit_columns(columns, enforce=enforce)
            warm[enforce] = fit_columns(columns, warm[enforce], enforce=enforce)
            if frame < 4:
                continue
            for name, surface in cold.items():
                for one, other in zip(surface.smiles, warm[enforce][name].smiles, strict=True):
                    k = places(one)
                    gap = np.abs(one.fitted_vol(k) - other.fitted_vol(k))
                    found[enforce].append((gap, gap / half_spread(one, k)))
    return {
        enforce: (np.concatenate([g for g, _ in rows]), np.concatenate([h for _, h in rows]))
        for enforce, rows in found.items()
    }


def f1_warm_equals_cold() -> list[Row]:
    """F1: where a fit starts does not show."""
    gap, bars = _warm_and_cold()[False]
    certified, certified_bars = _warm_and_cold()[True]
    return [
        Row("F1", "fit to quotes alone, warm - cold, median bp", 1e4 * float(np.median(gap)), "<=", 0.1),
        Row("F1", "the same, p99 in half-spreads", float(np.percentile(bars, 99)), "<=", 0.1),
        Row("R14", "certified, warm - cold, p95 bp", 1e4 * float(np.percentile(certified, 95)), "<=", 5.0),
        Row("R14", "certified, warm - cold, largest, half-spreads", float(certified_bars.max()), "<=", 0.5),
    ]


def f2_jitter() -> list[Row]:
    """F2: the filter stills what the quotes' noise moves."""
    atm, wing = measure(60, 0.0).jitter_bp()
    filtered_atm, filtered_wing = measure(60, DEFAULT).jitter_bp()
    return [
        Row("F2", "jitter at the money, unfiltered over filtered", atm / filtered_atm, ">=", 2.0),
        Row("F2", "jitter in the wings, unfiltered over filtered", wing / filtered_wing, ">=", 2.0),
        Row("F2", "jitter at the money, filtered, bp a frame", filtered_atm, "<=", 1.0),
    ]


def f3_jumps_and_drift() -> list[Row]:
    """F3: a jump is followed in its frame, a drift within the filter's time."""
    filtered, bare = measure(20, DEFAULT, vol_jump), measure(20, 0.0, vol_jump)
    # Against what the quotes alone show: makers of the shortest expiries leave quotes that still hold the new vol where they are.
    after, alone = (np.array(reading.fitted)[:, :, 0] for reading in (filtered, bare))
    made = 1.0 + (after[10] - alone[10]) / (alone[10] - alone[9])
    shown = np.array(bare.followed(10)[0])
    calm = measure(40, DEFAULT, activity=1.0)
    extra = lag_seconds(measure(40, DEFAULT, drift)) - lag_seconds(measure(40, 0.0, drift))
    return [
        Row("F3", "slices with 95 % of a 5 % vol jump after 1 frame", float(np.mean(made >= 0.95)), ">=", 0.95),
        Row("F3", "share of it that the median slice's quotes show", float(np.median(shown)), ">=", 0.98),
        Row("F3", "overshoot, largest, share of it", float(made.max() - 1.0), "<=", 0.05),
        Row("F3", "gate open in a calm market, share of slices", float(np.mean(np.array(calm.jumped))), "<=", 0.001),
        Row("F3", "lag behind a drift of 1 % in 2 s that the filter adds, s", extra, "<=", DEFAULT + 0.1),
    ]


def f4_forward_jump() -> list[Row]:
    """F4: forwards jump by 3 %, vols of a log-moneyness do not."""
    reading = measure(20, DEFAULT, forward_jump)
    excess, true = np.abs(reading.excess[:, :, 0]), np.array(reading.true)[:, :, 0]
    return [
        Row("F4", "error at the money the frame after, median bp", 1e4 * float(np.median(excess[10])), "<=", 5.0),
        Row(
            "F4",
            "what the jump adds to it, p95 bp",
            1e4 * float(np.percentile(excess[10] - excess[:10].max(axis=0), 95)),
            "<=",
            5.0,
        ),
        Row("F4", "overshoot, largest, share of the vol", float((excess[10:13] / true[10:13]).max()), "<=", 0.02),
    ]


def f7_dirty_refits() -> list[Row]:
    """F7: leaving alone what did not change gives what a refit of everything does."""
    worst = 0.0
    market = Market(underlyings=("BTC", "ETH"), days=(1.0, 9.0, 30.0, 121.0))
    lazy = Core(CoreRules(smoothing_seconds=0.0))
    eager = Core(CoreRules(smoothing_seconds=0.0, refit_after_ns=0))
    rng = np.random.default_rng(2)
    for entry in market.beginning():
        lazy.apply(entry)
        eager.apply(entry)
    now, made = market.start_ns, 0
    last = {name: market.batch(now, underlyings=(name,)) for name in market.underlyings}
    for frame in range(60):
        now += SECOND // 10
        name = market.underlyings[frame % 2]
        market.level[name] *= float(np.exp(5e-3 * rng.standard_normal()))
        last[name] = market.batch(now, underlyings=(name,))
        for batch in last.values():
            # The venue repeats the tickers whose quotes stand: error bars grow with the age of a quote.
            again = copy.copy(batch)
            again.receive_time_ns = np.full(len(batch), now)
            for core in (lazy, eager):
                core.apply(again)
        for core in (lazy, eager):
            core.apply(market.health(now))
        one, other = lazy.frame(now), eager.frame(now)
        made += sum(surface.time_ns == now for surface in one.surfaces.values())
        for name, surface in one.surfaces.items():
            for a, b in zip(surface.smiles, other.surfaces[name].smiles, strict=True):
                k = places(a)
                worst = max(worst, float(np.abs(a.fitted_vol(k) - b.fitted_vol(k)).max()))
    return [
        Row("F7", "refit of what changed against refit of all, largest bp", 1e4 * worst, "<=", 0.05),
        Row("F7", "share of the refits that were made", made / 120, "<=", 0.6),
    ]


def c1_every_frame_is_proved(frames: int = 200) -> list[Row]:
    """C1: three underlyings, two hundred frames, every slice, pair and time between proved anew from the published doubles."""
    tape = Tape(seed=2, activity=3.0)
    failures = slices = 0
    for frame in range(frames):
        if frame == 60:
            tape.market.vol_factor *= 1.08
        if frame == 120:
            tape.market.jump(0.97)
        for surface in tape.step().surfaces.values():
            between = check_blend(surface.svi[:-1], surface.svi[1:]).verdict == Verdict.PROVED
            certificate = surface.certificate
            failures += not (bool(certificate) and is_proved(surface))
            failures += certificate.blended != np.count_nonzero(between)
            slices += len(surface)
    return [
        Row("C1", "surfaces not proved", failures, "<=", 0),
        Row("C1", "slices looked at", slices, ">=", 33 * frames),
    ]


FIGURES: tuple[Callable[[], list[Row]], ...] = (
    f1_warm_equals_cold,
    f2_jitter,
    f3_jumps_and_drift,
    f4_forward_jump,
    f7_dirty_refits,
    c1_every_frame_is_proved,
)


@pytest.mark.parametrize("figures", FIGURES, ids=lambda f: f.__name__)
def test_figures(figures: Callable[[], list[Row]]) -> None:
    assert [row for row in figures() if not row.holds] == []


def test_f5_a_gap_of_ten_seconds_then_everything_at_once() -> None:
    tape = Tape(seed=4)
    tape.run(15)
    before = tape.frame
    tape.silent = True
    tape.run(100)
    held = tape.frame
    assert not held.health["venue"].is_live
    for name, surface in held.surfaces.items():
        # The feed counts as live for five seconds; from then on the last certified surface stays.
        assert 4.0 <= (held.time_ns - surface.time_ns) / SECOND <= 6.0
        assert is_proved(surface)
        assert len(surface) == len(before.surfaces[name])
    tape.market.vol_factor = 1.03
    tape.silent = False
    after = tape.step()
    assert after.problems == ()
    for name, surface in after.surfaces.items():
        assert surface.time_ns == after.time_ns
        assert is_proved(surface)
        truth = np.array([tape.truth(name, smile.expiry_ns, np.zeros(1))[0] for smile in surface.smiles])
        assert float(np.median(np.abs(surface.atm_vol - truth))) < 10e-4


def test_f5_the_last_half_hour_and_the_roll_at_eight() -> None:
    first = min(listed_expiries(START_NS))
    tape = Tape(("BTC",), seed=5, start_ns=first - 31 * 60 * SECOND, step_ns=10 * SECOND)
    lengths: list[int] = []
    for _ in range(32 * 6):
        frame = tape.step()
        surface = frame.surfaces["BTC"]
        assert is_proved(surface), frame
        assert surface.certificate
        settling = 0 <= first - frame.time_ns <= 30 * 60 * SECOND and frame.time_ns < first
        assert [p.stage for p in frame.problems] == (["expiry"] if settling else [])
        assert all(smile.expiry_ns > frame.time_ns + 30 * 60 * SECOND for smile in surface.smiles)
        lengths.append(len(surface))
    # Gone when it begins to settle; a new daily is listed when it has expired, and is fitted at once.
    assert lengths[0] == lengths[-1] == lengths[20] + 1


def test_f6_a_replayed_log_gives_the_same_bytes_also_by_way_of_a_mirror() -> None:
    tape = Tape(seed=6, activity=4.0)
    hashes = []
    for number in range(25):
        if number == 12:
            tape.market.vol_factor *= 1.06
        tape.hidden = {min(listed_expiries(START_NS))} if 16 <= number < 20 else set()
        hashes.append(tape.step().hash)
    states = {(s.fit.smoothed, s.fit.is_kept) for u in tape.frame.surfaces.values() for s in u.smiles if s.fit}
    assert states == {(1, False)}
    assert len(set(hashes)) == len(hashes)
    replayed, passed_on, mirror = Core(), Core(), FrameMirror()
    replay, mirrored = [], []
    before = None
    for entry in log_from_bytes(log_to_bytes(tape.log)):
        if not isinstance(entry, Tick):
            replayed.apply(entry)
            passed_on.apply(entry)
            continue
        replay.append(replayed.frame(entry.now_ns).hash)
        frame = passed_on.frame(entry.now_ns)
        copy = mirror.apply(frame.patch(before))
        before = frame
        mirrored.append(copy.hash)
        # What a client holds is as good to continue from as what the engine made.
        for name, surface in copy.surfaces.items():
            passed_on._known[name].surface = surface
    assert replay == hashes
    assert mirrored == hashes


def test_a9_published_doubles_are_the_certified_ones_through_the_stream() -> None:
    tape = Tape(seed=7, activity=4.0)
    mirror, before = FrameMirror(), None
    for _ in range(6):
        frame = tape.step()
        copied = mirror.apply(frame.patch(before))
        before = frame
    assert copied.to_bytes() == frame.to_bytes()
    for surface in copied.surfaces.values():
        butterfly = check_butterfly(surface.svi)
        for i, smile in enumerate(surface.smiles):
            fit = smile.fit
            assert fit is not None
            proof = (int(butterfly.verdict[i]), float(butterfly.worst_k[i]), float(butterfly.worst_value[i]))
            assert proof == (fit.butterfly_verdict, fit.butterfly_worst_k, fit.butterfly_worst_value)
            if i:
                calendar = check_calendar(surface.svi[i - 1], surface.svi[i])
                pair = (int(calendar.verdict), float(calendar.worst_k), float(calendar.worst_value))
                assert pair == (fit.calendar_verdict, fit.calendar_worst_k, fit.calendar_worst_value)
