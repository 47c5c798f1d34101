"""Flags from the environment and from one TOML file: what is set there is put in front of what was typed, which wins.

    VOLSURF_LIVE_URL=wss://test.deribit.com/ws/api/v2      is  volsurf live --url wss://test.deribit.com/ws/api/v2
    VOLSURF_DEMO_HEADLESS=1                                is  volsurf demo --headless

The file is `$VOLSURF_CONFIG`, else `~/.config/volsurf.toml` if there is one, with a table per command:

    [live]
    url = "wss://test.deribit.com/ws/api/v2"
    underlyings = ["BTC", "ETH"]

The parser sees all of it as arguments, so a wrong value is refused in the same words wherever it came from.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path

from volsurf.errors import ConfigError

_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def preset_arguments(words: tuple[str, ...], parser: argparse.ArgumentParser) -> list[str]:
    """Arguments of one command that the file and the environment give, the environment's last.

    Args:
        words: the command, e.g. `("live",)` or `("bench", "iv")`.
        parser: of the command; its optional flags are what can be set.

    Raises:
        ConfigError: the file cannot be read, sets what is no flag, or a switch is neither on nor off.
    """
    flags = {action.dest: action for action in parser._actions if action.option_strings and action.dest != "help"}
    prefix = "_".join(("VOLSURF", *words)).upper()
    arguments: list[str] = []
    for name, value in _table(words).items():
        if (known := flags.get(name.replace("-", "_"))) is None:
            raise ConfigError(
                f"{_path()}: [{'.'.join(words)}] has no setting {name!r}; there are {', '.join(sorted(flags)) or 'none'}"
            )
        arguments += _argument(f"{_path()}: {name}", known, value)
    for dest, action in flags.items():
        variable = f"{prefix}_{dest.upper()}"
        if variable in os.environ:
            arguments += _argument(variable, action, os.environ[variable])
    return arguments


def _path() -> Path:
    if named := os.environ.get("VOLSURF_CONFIG"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "volsurf.toml"


def _table(words: tuple[str, ...]) -> dict[str, object]:
    path = _path()
    if not path.is_file() and "VOLSURF_CONFIG" not in os.environ:
        return {}
    try:
        table: object = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    for word in words:
        table = table.get(word, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {'.'.join(words)} must be a table of settings, was {table!r}")
    return table


def _argument(where: str, action: argparse.Action, value: object) -> list[str]:
    flag = action.option_strings[-1]
    if action.nargs != 0:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        return [f"{flag}={text}"]
    text = str(value).lower()
    if text not in _YES + _NO:
        raise ConfigError(f"{where} must be on or off, was {value!r}")
    return [flag] if text in _YES else []
