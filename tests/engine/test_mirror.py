from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from tests.engine.smiles import FrameMaker, State, still_frame
from volsurf.engine.mirror import FrameMirror
from volsurf.errors import StreamError

DAYS = (1, 2, 9, 30)
surface_states = st.tuples(st.integers(0, 2), st.dictionaries(st.sampled_from(DAYS), st.integers(0, 2), max_size=4))
states = st.dictionaries(st.sampled_from(("BTC", "ETH", "SOL")), surface_states, max_size=3)


@given(st.lists(states, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_mirror_equals_its_source(history: list[State]) -> None:
    maker, mirror = FrameMaker(), FrameMirror()
    before = None
    for state in history:
        frame = maker.make(state)
        copy = mirror.apply(frame.patch(before))
        assert copy.hash == frame.hash
        assert copy.to_bytes() == frame.to_bytes()
        assert copy.health == frame.health
        assert copy.problems == frame.problems
        before = frame


@given(history=st.lists(states, min_size=4, max_size=10), lost=st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_a_lost_patch_is_noticed_and_a_snapshot_mends_it(history: list[State], lost: int) -> None:
    lost = min(lost, len(history) - 2)
    maker, mirror = FrameMaker(), FrameMirror()
    frames = [maker.make(state) for state in history]
    for i, frame in enumerate(frames):
        if i < lost:
            mirror.apply(frame.patch(frames[i - 1] if i else None))
    last = mirror.frame
    for i in range(lost + 1, len(frames)):
        with pytest.raises(StreamError, match="patch of frame"):
            mirror.apply(frames[i].patch(frames[i - 1]))
        assert mirror.frame is last
        assert mirror.needs_snapshot
    assert mirror.apply(frames[-1].to_bytes()).hash == frames[-1].hash
    assert not mirror.needs_snapshot


@given(history=st.lists(states, min_size=2, max_size=8), data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_patch_may_span_any_number_of_frames(history: list[State], data: st.DataObject) -> None:
    # A slow client gets the newest frame against what it has, however long ago that was.
    maker = FrameMaker()
    frames = [maker.make(state) for state in history]
    base = data.draw(st.integers(0, len(frames) - 1))
    mirror = FrameMirror()
    mirror.apply(frames[base].to_bytes())
    assert mirror.apply(frames[-1].patch(frames[base])).to_bytes() == frames[-1].to_bytes()


@given(
    history=st.lists(states, min_size=2, max_size=6), want=st.sets(st.sampled_from(("BTC", "ETH", "XRP")), min_size=1)
)
@settings(max_examples=50, deadline=None)
def test_a_selection_is_a_stream_of_its_own(history: list[State], want: set[str]) -> None:
    maker, mirror = FrameMaker(), FrameMirror()
    before = None
    for state in history:
        frame = maker.make(state).select(want)
        copy = mirror.apply(frame.patch(before))
        assert set(copy.surfaces) == {name for name, (_, days) in state.items() if days and name in want}
        assert copy.to_bytes() == frame.to_bytes()
        before = frame


def test_what_did_not_change_is_the_same_object_and_is_not_sent() -> None:
    maker, mirror = FrameMaker(), FrameMirror()
    first = maker.make({"BTC": (0, dict.fromkeys(DAYS, 0)), "ETH": (0, dict.fromkeys(DAYS, 0))})
    one = mirror.apply(first.to_bytes())
    second = maker.make({"BTC": (1, {**dict.fromkeys(DAYS, 0), 9: 1}), "ETH": (0, dict.fromkeys(DAYS, 0))})
    patch = second.patch(first)
    two = mirror.apply(patch)
    assert two.surfaces["ETH"] is one.surfaces["ETH"]
    assert [a is b for a, b in zip(one.surfaces["BTC"].smiles, two.surfaces["BTC"].smiles, strict=True)] == [
        day != 9 for day in DAYS
    ]
    assert len(patch) < 0.3 * len(second.to_bytes())
    third = maker.make({"BTC": (1, {**dict.fromkeys(DAYS, 0), 9: 1}), "ETH": (0, dict.fromkeys(DAYS, 0))})
    assert third.hash == second.hash
    assert len(third.patch(second)) < 0.08 * len(third.to_bytes())


def test_a_snapshot_keeps_the_objects_that_did_not_change() -> None:
    maker, mirror = FrameMaker(), FrameMirror()
    one = mirror.apply(maker.make({"BTC": (0, {1: 0, 2: 0}), "ETH": (0, {1: 0})}).to_bytes())
    two = mirror.apply(maker.make({"BTC": (1, {1: 0, 2: 1}), "ETH": (0, {1: 0})}).to_bytes())
    assert two.surfaces["ETH"] is one.surfaces["ETH"]
    assert two.surfaces["BTC"] is not one.surfaces["BTC"]
    assert two.surfaces["BTC"].smiles[0] is one.surfaces["BTC"].smiles[0]


def test_a_patch_before_any_snapshot_is_refused() -> None:
    maker = FrameMaker()
    first, second = (maker.make({"BTC": (i, {1: i})}) for i in range(2))
    with pytest.raises(StreamError, match="before any snapshot"):
        FrameMirror().apply(second.patch(first))


def test_a_patch_that_is_applied_twice_is_refused() -> None:
    maker, mirror = FrameMaker(), FrameMirror()
    first, second = (maker.make({"BTC": (i, {1: i})}) for i in range(2))
    mirror.apply(first.to_bytes())
    mirror.apply(second.patch(first))
    with pytest.raises(StreamError, match="patch of frame 1 came, but the last frame here is 2"):
        mirror.apply(second.patch(first))


def test_a_patch_of_another_engine_does_not_hash() -> None:
    # Same numbers, other content: the base number alone would not tell.
    one, other = FrameMaker(), FrameMaker()
    mirror = FrameMirror()
    mirror.apply(one.make({"BTC": (0, {1: 0, 2: 0})}).to_bytes())
    base = other.make({"BTC": (0, {1: 1, 2: 0})})
    with pytest.raises(StreamError, match="does not hash"):
        mirror.apply(other.make({"BTC": (1, {1: 1, 2: 1})}).patch(base))


def test_is_patch() -> None:
    maker = FrameMaker()
    first, second = (maker.make({"BTC": (i, {1: i})}) for i in range(2))
    assert not FrameMirror.is_patch(first.to_bytes())
    assert FrameMirror.is_patch(second.patch(first))
    assert not FrameMirror.is_patch(b"nothing of the kind")


def test_hash_knows_nothing_of_number_time_health_and_timings() -> None:
    assert still_frame(1).hash == still_frame(7).hash
    assert still_frame(1, ("BTC",)).hash != still_frame(1).hash
