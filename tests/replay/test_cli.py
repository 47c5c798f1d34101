"""`volsurf replay`, its server, and `volsurf bench replay`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.replay.sessions import Session
from volsurf.cli import bench_replay, replay as command
from volsurf.errors import ConfigError, InputError


def run(*arguments: str) -> int:
    """The command's exit status."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The object on the last line."""
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_the_engines_frames_again(calm: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(calm.path), "--verify", "--json") == 0
    first = figures(capsys)
    assert first["frames"] == first["verified"] == len(calm.hashes)
    assert run(str(calm.path), "--json") == 0
    assert figures(capsys)["hash"] == first["hash"]


def test_frames_of_ones_own(calm: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(calm.path), "--every", "500ms", "--from", "+1s", "--to", "+2s") == 0
    text = capsys.readouterr().out
    assert "frames  3" in text
    assert "verified  0" in text


def test_wrong_use(calm: Session, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--verify compares"):
        run(str(calm.path), "--verify", "--every", "1s")
    with pytest.raises(InputError, match="no capture"):
        run(str(tmp_path / "nowhere"), "--every", "1s")
    with pytest.raises(ConfigError, match="no meaning with it"):
        run(str(calm.path), "--serve", "--every", "1s")
    with pytest.raises(SystemExit):
        run(str(calm.path), "--speed", "fast")


def test_serving(calm: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(calm.path), "--serve", "--json", "--seconds", "0.1", "--speed", "10") == 0
    assert str(figures(capsys)["deribit_url"]).startswith("ws://127.0.0.1:")


def test_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from volsurf import _jit

    monkeypatch.setattr(_jit, "cache_directory", lambda: tmp_path / "kernels")
    monkeypatch.setattr("volsurf._jit.ensure_compiled", lambda *groups: None)
    parser = argparse.ArgumentParser()
    bench_replay.add_arguments(parser)
    arguments = ["--json", "--venues", "deribit", "--seconds", "2", "--rate", "2000", "--rounds", "1"]
    for _ in range(2):
        bench_replay.run(parser.parse_args(arguments))
        found = figures(capsys)
        assert found["raw_messages_per_second"] > 0  # type: ignore[operator]
        assert found["columnar_quotes_per_second"] > 0  # type: ignore[operator]
        assert str(found["composition"]).startswith("deribit ")
        assert found["frames"] == 2
    assert len(list((tmp_path / "captures").iterdir())) == 2, "the capture and its columns, made once"
