"""`volsurf capture` and what it does with a recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import shared_path
from tests.engine.exchange import Exchange
from volsurf.capture.recording import Recording
from volsurf.cli import main


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    out: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return out


def test_recording_prints_its_figures(exchange: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--underlyings", "BTC", "--url", exchange.url, "--seconds", "0.6", "--out", str(tmp_path / "c"), "--books"]
    assert main(["capture", *flags, "--json"]) == 0
    figures = said(capsys)
    assert figures["path"] == str(tmp_path / "c")
    assert figures["messages"] == figures["deribit_messages"]
    assert figures["messages"] > 100  # type: ignore[operator]
    assert (figures["lost_records"], figures["trouble"]) == (0, "")
    assert main(["capture", *flags]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "c-2") in out
    assert "0 records lost" in out


def test_info_says_what_is_there(recording: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", "info", str(recording.path), "--json"]) == 0
    figures = said(capsys)
    assert figures["messages"] == recording.figures["messages"]
    assert figures["lost"] == []
    assert main(["capture", "info", str(recording.path)]) == 0
    assert "feed-0-deribit" in capsys.readouterr().out


def test_verify_names_the_damage_by_its_exit_status_too(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    assert main(["capture", "verify", str(recording.path)]) == 0
    assert "undamaged" in capsys.readouterr().out
    copy = Path(shutil.copytree(recording.path, tmp_path / "copy"))
    (segment, *_) = sorted(copy.glob("*.vscap"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert main(["capture", "verify", str(copy), "--json"]) == 1
    found = said(capsys)
    assert found["ok"] is False
    assert segment.name in str(found["damage"])
    assert main(["capture", "verify", str(copy)]) == 1
    assert "DAMAGED" in capsys.readouterr().out


def test_export_writes_parquet(recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "columns"
    assert main(["capture", "export", str(recording.path), "--out", str(out), "--every", "1s", "--json"]) == 0
    figures = said(capsys)
    assert figures["quotes_rows"] > 100  # type: ignore[operator]
    assert (out / "instruments.parquet").exists()
    assert main(["capture", "export", str(recording.path), "--out", str(out)]) == 1
    assert "not an empty directory" in capsys.readouterr().err


def test_import_takes_in_a_foreign_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_path("data", "real", "ws_captures_cryptofeed", "delta_20211129.ws.txt.gz")
    out = tmp_path / "ours"
    assert main(["capture", "import", str(path), "--venue", "delta", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "320 messages" in text
    assert "does not speak the protocol of delta" in text


def test_a_path_that_is_none_is_a_plain_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("info", "verify", "export"):
        assert main(["capture", action, str(tmp_path / "none")]) == 1
        assert "no capture" in capsys.readouterr().err
