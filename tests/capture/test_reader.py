"""Reading what was written, what is left of it, and what was never a capture."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec import structs

from tests.capture.recorded import FEED, QUICK, SETTINGS, Written, messages, read, records, until, write
from volsurf.capture.format import RecordKind
from volsurf.capture.reader import Capture, open_capture
from volsurf.capture.recorder import Record
from volsurf.capture.segments import Segment
from volsurf.capture.verify import verify
from volsurf.errors import InputError

BLOCKS = 12
PER_BLOCK = 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed capture of one segment with twelve blocks of twenty messages."""
    path = tmp_path_factory.mktemp("captures") / "finished"
    return write(path, (messages(PER_BLOCK, start=i * PER_BLOCK) for i in range(BLOCKS))).path


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """One of one's own to damage."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def segment(path: Path) -> Path:
    return path / f"{FEED}.000001.vscap"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=records, pieces=st.integers(1, 4))
def test_any_sequence_of_records_comes_back(
    rows: list[Record], pieces: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "capture"
    cut = -(-len(rows) // pieces)
    capture = write(path, (rows[i : i + cut] for i in range(0, len(rows), cut)))
    # The writer ends a stream itself; one that was put is a record like any other.
    assert read(capture) == [row for row in rows if row[2] != RecordKind.END]
    assert capture.lost == ()
    # What records say is anything here, and mostly cannot be; not so the bytes they lie in.
    assert not any(".vscap" in sentence for sentence in verify(capture).damage)


def test_streams_times_and_settings_are_told(finished: Path) -> None:
    capture = open_capture(finished)
    stream = capture.streams[FEED]
    assert list(capture.streams) == list(capture.feeds) == [FEED]
    assert (stream.venue, stream.feed, stream.settings) == ("deribit", 0, SETTINGS)
    assert stream.records == BLOCKS * PER_BLOCK + 1
    assert capture.start_ns == 0
    assert capture.manifest is not None
    assert capture.manifest.id == stream.segments[0].head.capture
    assert not capture.is_live
    assert "feed-0-deribit" in repr(capture)


def test_only_blocks_of_the_time_asked_for_are_read(finished: Path) -> None:
    blocks = list(open_capture(finished).blocks(FEED, 25_000_000, 61_000_000))
    assert [block.first for block in blocks] == [20, 40, 60]
    assert [block.first for block in open_capture(finished).blocks(FEED, end_ns=-1)] == []


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_file_cut_short_is_found_and_what_precedes_is_read(copy: Path, cut: int) -> None:
    whole = segment(copy).read_bytes()
    keep = len(whole) * (30 - cut) // 30
    segment(copy).write_bytes(whole[:keep])
    capture = open_capture(copy)
    found = read(capture)
    assert found == messages(len(found))
    # Nothing of a whole block is given up.
    ends = [entry.offset + entry.stored + 60 for entry in Segment(segment(copy)).index]
    assert len(found) == PER_BLOCK * sum(end <= keep for end in ends[:BLOCKS])
    verification = verify(capture)
    assert not verification.ok
    assert any(f"{len(whole):,} were written" in sentence for sentence in verification.damage)


def test_every_byte_that_is_changed_is_found_and_the_other_blocks_are_read(finished: Path, tmp_path: Path) -> None:
    whole = segment(finished).read_bytes()
    good = messages(BLOCKS * PER_BLOCK)
    rng = random.Random(1)
    path = Path(shutil.copytree(finished, tmp_path / "flipped"))
    for _ in range(150):
        bit = rng.randrange(8 * len(whole))
        if bit // 8 in (10, 11):  # the two bytes of the head that are zero and say nothing
            continue
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        segment(path).write_bytes(changed)
        capture = open_capture(path)
        found = read(capture)
        missing = [row for row in good if row not in set(found)]
        assert found == [row for row in good if row not in set(missing)], bit
        assert len(missing) in (0, PER_BLOCK), bit
        verification = verify(open_capture(path))
        assert not verification.ok, f"bit {bit} of {8 * len(whole)}"
        if missing:
            assert any("20 records" in sentence for sentence in capture.lost), capture.lost


def test_a_segment_without_its_footer_is_read_by_its_blocks(copy: Path) -> None:
    (copy / f"{FEED}.closed").unlink()
    data = segment(copy).read_bytes()
    at = data.rindex(b"VSIX")
    segment(copy).write_bytes(data[:at])
    capture = open_capture(copy)
    assert read(capture) == messages(BLOCKS * PER_BLOCK)
    (sentence,) = capture.lost
    assert "its process was ended while it wrote; what came after " in sentence
    # A process that was killed has damaged nothing.
    assert verify(capture).ok


def test_a_hole_in_a_file_costs_its_blocks_and_no_more(copy: Path) -> None:
    entry = Segment(segment(copy)).index[4]
    data = bytearray(segment(copy).read_bytes())
    # As the filesystem of a machine that lost its power leaves it: with zeros, and without the footer.
    data[entry.offset : entry.offset + 60 + entry.stored] = bytes(60 + entry.stored)
    segment(copy).write_bytes(data[:-20])
    capture = open_capture(copy)
    found = read(capture)
    assert found == messages(4 * PER_BLOCK) + messages(7 * PER_BLOCK, start=5 * PER_BLOCK)
    said = " ".join(capture.lost)
    assert f"{60 + entry.stored:,} bytes from byte {entry.offset:,} on are no block" in said
    assert "20 records before" in said


def test_a_segment_whose_head_is_damaged_is_read_by_its_blocks(copy: Path) -> None:
    data = bytearray(segment(copy).read_bytes())
    data[30] ^= 1
    segment(copy).write_bytes(data)
    capture = open_capture(copy)
    assert read(capture) == messages(BLOCKS * PER_BLOCK)
    assert any("head" in sentence for sentence in verify(capture).damage)


def test_a_capture_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    with Written(tmp_path / "live") as written:
        written.put(messages(30))
        capture = open_capture(written.path)
        assert capture.is_live
        assert read(capture) == messages(30)
        assert capture.lost == ()
        assert verify(capture).ok
    assert not open_capture(written.path).is_live


def test_a_stream_goes_on_with_its_next_process(tmp_path: Path) -> None:
    with Written(tmp_path / "two") as written:
        written.put(messages(5))
        written.writer.close()
        written.open_writer()
        written.put(messages(7))
    capture = open_capture(written.path)
    assert next((block.process, block.first, block.sequence) for block in capture.blocks(FEED)) == (1, 0, 1)
    assert capture.streams[FEED].processes == (1, 2)
    assert read(capture) == messages(5) + messages(7)
    assert capture.begin(FEED, 0) == 1
    assert capture.lost == ()


def test_missing_segments_are_named(tmp_path: Path) -> None:
    options = structs.replace(QUICK, segment_mb=0.0001)
    capture = write(tmp_path / "many", ([row] for row in messages(6)), options=options)
    assert len(capture.streams[FEED].segments) >= 5
    (capture.path / f"{FEED}.000003.vscap").unlink()
    missing = open_capture(capture.path)
    assert "feed-0-deribit: of its segments 3 to 3 are missing" in missing.lost
    assert not verify(missing).ok
    (capture.path / f"{FEED}.000001.vscap").unlink()
    (capture.path / f"{FEED}.000002.vscap").unlink()
    oldest_gone = open_capture(capture.path)
    assert oldest_gone.lost == ("feed-0-deribit: its first 3 segments were removed",)
    assert verify(oldest_gone).ok


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "it is a directory"), (tmp_path, "it holds no capture.json")):
        with pytest.raises(InputError, match=why):
            open_capture(path)
    with pytest.raises(InputError, match="no stream 'core'"):
        list(write(tmp_path / "one", [messages(1)]).blocks("core"))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_make_the_reader_fall_over(data: st.DataObject, finished: Path, tmp_path: Path) -> None:
    whole = segment(finished).read_bytes()
    shutil.copy(finished / "capture.json", tmp_path)
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=400))
    else:
        # Pieces of a segment in any order, with anything between them.
        cuts = data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 500)), max_size=6))
        content = b"".join(whole[at : at + length] + data.draw(st.binary(max_size=8)) for at, length in cuts)
    segment(tmp_path).write_bytes(content)
    capture = Capture(tmp_path)
    found = read(capture)
    assert set(found) <= set(messages(BLOCKS * PER_BLOCK))
    assert all(isinstance(sentence, str) for sentence in capture.lost)
    verify(capture)


def test_blocks_that_follow_a_snapshot_begin_a_segment(tmp_path: Path) -> None:
    options = structs.replace(QUICK, segment_mb=1e-6)
    with Written(tmp_path / "snapshots", options=options, snapshots=True) as written:
        recorder = written.writer.recorder
        for number in range(1, 4):
            written.put(messages(10, start=number * 100))
            written.put(messages(1, start=number * 100 + 50))
            until(lambda: recorder.wants_snapshot)
            recorder.wants_snapshot = False
            written.put([(number * 10**9, 0, int(RecordKind.SNAPSHOT), b"\0\0\0\0")])
    capture = open_capture(written.path)
    heads = [(s.head.sequence, s.head.is_snapshot, s.head.first) for s in capture.streams[FEED].segments]
    assert heads == [(1, False, 0), (2, True, 11), (3, True, 23), (4, True, 35)]
    now = capture.streams[FEED].segments[2].head.opened_ns
    assert capture.begin(FEED, now) == 3
    assert capture.begin(FEED, 0) == 1
    begun = list(capture.blocks(FEED, now, 2**62, from_snapshot=True))
    assert (begun[0].sequence, begun[0].kind[0]) == (3, RecordKind.SNAPSHOT)
