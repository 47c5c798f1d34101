"""`volsurf bench iv` on a few options: its keys, its accuracy, and that the last line of its output is the JSON object."""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
import pytest

from volsurf.cli import bench_iv
from volsurf.cli._iv_peers import installed_peers
from volsurf.cli._iv_sets import SETS, make_set
from volsurf.errors import InputError

KEYS = ("cold_ns", "warm_ns", "peer", "peer_ns", "max_rel_error", "failures")


def arguments(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_iv.add_arguments(parser)
    return parser.parse_args(flags)


def test_figures_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench_iv.run(arguments("--json", "--options", "1500", "--rounds", "1", "--sample", "120"))
    output = capsys.readouterr()
    assert json.loads(output.out.splitlines()[-1]) == figures
    assert "hard" in output.err
    assert figures["simd"] in ("avx2", "avx512") or figures["simd"] == bench_iv.simd()
    for name in SETS:
        assert all(f"{name}_{key}" in figures for key in KEYS)
        assert figures[f"{name}_max_rel_error"] <= 1e-14
        assert figures[f"{name}_warm_max_rel_error"] <= 1e-11
        assert figures[f"{name}_failures"] == 0
        assert figures[f"{name}_cold_ns"] > 0.0


def test_refuses_nonsense() -> None:
    with pytest.raises(InputError, match="--rounds must be at least 1, was 0"):
        bench_iv.run(arguments("--rounds", "0"))


def test_sets_are_what_they_say() -> None:
    ord_, live, hard = (make_set(name, 4000) for name in SETS)
    for options in (ord_, live, hard):
        assert np.array_equal(options.is_call, options.strike >= options.forward)
        assert np.all(options.price > 0.0)
    deviations = np.log(ord_.strike / ord_.forward) / (ord_.vol * np.sqrt(ord_.years))
    assert np.abs(deviations).max() <= 1.5 + 1e-9
    assert len(np.unique(live.years)) == 13
    assert np.all(hard.price > 1e-12 * hard.forward)
    assert hard.price.size < 4000


@pytest.mark.parametrize("name", SETS)
def test_peers_are_called_as_they_want(name: str) -> None:
    """A peer that was handed the wrong thing would be fast and wrong; QuantLib alone is loose by default."""
    options = make_set(name, 300)
    peers = installed_peers(options)
    if not peers:
        pytest.skip("no peer is installed")
    for peer, solve in peers.items():
        vol = solve()
        told = options.vol < 3.9 if name == "hard" else np.ones(options.vol.size, bool)
        assert np.abs(vol / options.vol - 1.0)[told].max() <= (3e-3 if peer == "QuantLib" else 1e-9), peer
        assert math.isfinite(vol.sum())
