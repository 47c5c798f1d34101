"""Parquet of a capture: what the venues said, in columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.capture.recorded import FEED, messages, write
from volsurf.capture.export import MANIFEST, SCHEMA_VERSION, TABLES, ExportManifest, export
from volsurf.capture.recording import Recording
from volsurf.errors import InputError
from volsurf.quotes import VALUES, Field


@pytest.fixture(scope="module")
def exported(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportManifest]:
    out = tmp_path_factory.mktemp("export") / "columns"
    return out, export(recording.open(), out, every_ns=50_000_000, rows_per_file=1500)


def table(exported: tuple[Path, ExportManifest], name: str) -> pl.DataFrame:
    return pl.read_parquet(exported[0] / name / "**" / "*.parquet", hive_partitioning=True)


def test_every_table_has_the_rows_that_are_told(exported: tuple[Path, ExportManifest], recording: Recording) -> None:
    out, manifest = exported
    assert {name: len(table(exported, name)) for name in TABLES} == manifest.rows
    assert manifest.rows["trades"] == recording.figures["trades"] > 0
    assert manifest.rows["books"] == recording.figures["book_events"]
    assert manifest.messages == recording.figures["messages"]
    assert (manifest.schema, manifest.lost, manifest.skipped) == (SCHEMA_VERSION, (), ())
    assert '"schema": 1' in (out / MANIFEST).read_text()
    # Bounded memory is bounded files.
    files = sorted((out / "quotes" / "venue=deribit").glob("date=*/part-*.parquet"))
    assert len(files) >= 2
    assert len(pl.read_parquet(files[0])) < 1500 + 900


def test_rows_name_instruments_and_lie_in_time(exported: tuple[Path, ExportManifest]) -> None:
    listed = pl.read_parquet(exported[0] / "instruments.parquet")
    assert listed["instrument_id"].to_list() == list(range(len(listed)))
    assert set(listed["kind"].unique()) >= {"option", "future"}
    for name in TABLES:
        rows = table(exported, name)
        assert rows["time_ns"].is_sorted()
        joined = rows.join(listed, on="instrument_id", suffix="_listed")
        assert len(joined) == len(rows)
        assert (joined["symbol"] == joined["symbol_listed"]).all()
        assert set(rows["venue"]) == {"deribit"}


def test_quotes_are_those_of_the_boards_and_a_lost_connection_leaves_none(
    exported: tuple[Path, ExportManifest], recording: Recording
) -> None:
    rows = table(exported, "quotes")
    assert {*VALUES, "fields", "batch", "sequence", "venue_time_ns", "receive_time_ns"} <= set(rows.columns)
    quoted = rows.filter(pl.col("bid").is_finite() & pl.col("ask").is_finite())
    assert len(quoted) > 500
    assert (quoted["bid"] < quoted["ask"]).all()
    assert (quoted["receive_time_ns"] <= quoted["time_ns"]).all()
    # The recording ended with its connection: whoever reads on must not see its prices live.
    last = rows.group_by("instrument_id", maintain_order=True).last().filter(pl.col("fields") & int(Field.QUOTE) != 0)
    assert not np.isfinite(last["bid"].to_numpy()).any()
    assert recording.open().streams[FEED].records > len(quoted)


def test_books_are_whole(exported: tuple[Path, ExportManifest]) -> None:
    rows = table(exported, "books")
    first = rows.group_by("instrument_id", maintain_order=True).first()
    assert first["is_snapshot"].all()
    levels = rows.select(pl.col("bid_price").list.len() - pl.col("bid_size").list.len())
    assert (levels.to_series() == 0).all()
    changes = rows.filter(~pl.col("is_snapshot")).sort("instrument_id", "sequence")
    gaps = changes.with_columns(pl.col("sequence").shift(1).over("instrument_id").alias("before")).drop_nulls("before")
    assert (gaps["previous_sequence"] == gaps["before"]).all()


def test_a_part_of_the_time_can_be_exported(recording: Recording, tmp_path: Path) -> None:
    capture = recording.open()
    middle = capture.streams[FEED].segments[2].head.opened_ns
    manifest = export(capture, tmp_path / "part", start_ns=middle, end_ns=middle + 300_000_000)
    rows = pl.read_parquet(tmp_path / "part" / "quotes" / "**" / "*.parquet")
    assert 0 < manifest.rows["quotes"] == len(rows)
    assert rows["time_ns"].min() > middle  # type: ignore[operator]
    assert rows["time_ns"].max() <= middle + 400_000_000  # type: ignore[operator]


def test_what_cannot_be_exported_is_refused(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    with pytest.raises(InputError, match="is not an empty directory"):
        export(recording.open(), tmp_path)
    with pytest.raises(InputError, match="a millisecond or more"):
        export(recording.open(), tmp_path / "x", every_ns=1)
    core = write(tmp_path / "core-only", [messages(1)], stream="core")
    with pytest.raises(InputError, match="holds no feed"):
        export(core, tmp_path / "y")
