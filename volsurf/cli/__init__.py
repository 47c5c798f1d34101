"""The command `volsurf`.

Each subcommand is a module of this package with `HELP`, `add_arguments(parser)` and `run(args) -> int | dict`; it is imported
only when it is asked for, so that `volsurf --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from volsurf.errors import VolsurfError

COMMANDS = {
    "demo": "everything on this machine: a simulated exchange, the engine, and the dashboard in a browser",
    "live": "run an engine on live feeds and serve its stream",
    "capture": "record raw feeds; look at a recording, check it, export it",
    "replay": "make the frames of a capture again, as they were or at another pace; or serve it as the exchange it came from",
    "fit": "fit a static chain from a CSV file; print or write a report",
    "sim": "serve a simulated exchange on loopback",
    "dashboard": "serve the dashboard for an engine that is running",
    "bench": "measure; each benchmark prints figures beside a peer's in the same run",
    "compile": "compile the numerical kernels now instead of at first use",
}
BENCHMARKS = {
    "iv": "implied vol: cold and warm solves beside the best installed peer",
    "replay": "captures: raw messages to frames, columnar quotes to the board",
    "svi": "SVI: fit and certificates beside scipy and QuantLib",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a failure that was reported, 2 for wrong use."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser, module, arguments = _parser(arguments)
        args = parser.parse_args(arguments)
        if module is None:
            parser.print_help()
            return 2
        result = module.run(args)
    except VolsurfError as error:
        print(f"volsurf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `volsurf … | head`: the reader has gone. Standard output is replaced so that the interpreter's own flush
        # on exit does not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _parser(arguments: Sequence[str]) -> tuple[argparse.ArgumentParser, ModuleType | None, list[str]]:
    """The parser, the command's module, and the arguments with what the environment and the settings file add to them."""
    from volsurf import __version__
    from volsurf.cli._settings import preset_arguments

    parser = argparse.ArgumentParser(
        prog="volsurf", description="Live crypto-option feeds to an arbitrage-certified implied-volatility surface."
    )
    parser.add_argument("--version", action="version", version=f"volsurf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    words = [a for a in arguments if not a.startswith("-")]
    wanted = words[0] if words else None
    chosen: ModuleType | None = None
    presets: list[str] = []
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name != wanted:
            continue
        if name == "bench":
            benchmarks = sub.add_subparsers(title="benchmarks", metavar="NAME", dest="benchmark", required=True)
            for bench, bench_text in BENCHMARKS.items():
                bench_parser = benchmarks.add_parser(bench, help=bench_text, description=bench_text)
                if len(words) > 1 and words[1] == bench:
                    chosen = importlib.import_module(f"volsurf.cli.bench_{bench}")
                    chosen.add_arguments(bench_parser)
                    presets = preset_arguments((name, bench), bench_parser)
        else:
            chosen = importlib.import_module(f"volsurf.cli.{name}")
            chosen.add_arguments(sub)
            presets = preset_arguments((name,), sub)
    if not presets:
        return parser, chosen, list(arguments)
    # Behind the words of the command and in front of its flags, so that what was typed comes last and wins.
    at = arguments.index(words[1] if wanted == "bench" else words[0]) + 1
    return parser, chosen, [*arguments[:at], *presets, *arguments[at:]]
