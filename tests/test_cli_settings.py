"""Flags that come from the environment or a file, and who wins."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from volsurf.cli import main
from volsurf.cli._settings import preset_arguments
from volsurf.errors import ConfigError


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("chain", nargs="?")
    parser.add_argument("--url")
    parser.add_argument("--stream-port", type=int)
    parser.add_argument("--underlyings", default="BTC")
    parser.add_argument("--headless", action="store_true")
    return parser


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("VOLSURF_CONFIG", raising=False)


def test_nothing_set_adds_nothing(parser: argparse.ArgumentParser) -> None:
    assert preset_arguments(("live",), parser) == []


def test_the_environment_beats_the_file_and_what_is_typed_beats_both(
    parser: argparse.ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "volsurf.toml").write_text(
        '[live]\nurl = "ws://file"\nstream-port = 1\nunderlyings = ["BTC", "ETH"]\nheadless = true\n[sim]\nseed = 2\n'
    )
    monkeypatch.setenv("VOLSURF_LIVE_URL", "ws://environment")
    monkeypatch.setenv("VOLSURF_SIM_URL", "ws://another-command")
    args = parser.parse_args([*preset_arguments(("live",), parser), "--stream-port", "3"])
    assert (args.url, args.stream_port, args.underlyings, args.headless) == ("ws://environment", 3, "BTC,ETH", True)


@pytest.mark.parametrize(("text", "on"), [("1", True), ("Yes", True), ("0", False), ("", False), ("off", False)])
def test_a_switch_is_on_or_off(
    text: str, on: bool, parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLSURF_LIVE_HEADLESS", text)
    assert preset_arguments(("live",), parser) == (["--headless"] if on else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[live]\nulr = 'x'", r"no setting 'ulr'; there are .*url"),
        ("[live]\nheadless = 'maybe'", "headless must be on or off, was 'maybe'"),
        ("live = 3", "must be a table"),
        ("[live", "is no TOML file"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    text: str, message: str, parser: argparse.ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    monkeypatch.setenv("VOLSURF_CONFIG", str(path))
    with pytest.raises(ConfigError, match=message) as raised:
        preset_arguments(("live",), parser)
    assert "mine.toml" in str(raised.value)


def test_a_file_that_is_named_must_be_there(parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOLSURF_CONFIG", "no-such.toml")
    with pytest.raises(ConfigError, match=r"no-such\.toml cannot be read"):
        preset_arguments(("live",), parser)


def test_the_command_takes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chain = str(Path(__file__).resolve().parents[1] / "data" / "chain_btc_simulated.csv")
    monkeypatch.setenv("VOLSURF_FIT_UNDERLYING", "DOGE")
    assert main(["fit", chain]) == 1
    assert "no underlying 'DOGE'" in capsys.readouterr().err
    assert main(["fit", chain, "--underlying", "BTC"]) == 0
    monkeypatch.setenv("VOLSURF_BENCH_IV_OPTIONS", "many")
    with pytest.raises(SystemExit) as usage:
        main(["bench", "iv"])
    assert usage.value.code == 2
    assert "--options: invalid int value: 'many'" in capsys.readouterr().err
    monkeypatch.setenv("VOLSURF_CONFIG", str(tmp_path / "none.toml"))
    assert main(["fit", chain]) == 1
    assert capsys.readouterr().err.startswith("volsurf: ")
