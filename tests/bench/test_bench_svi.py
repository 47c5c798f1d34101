"""`volsurf bench svi` runs, prints its figures as one line of JSON, and its bars hold with simulated quotes too."""

from __future__ import annotations

import argparse
import json

import pytest

from volsurf.cli import bench_svi
from volsurf.cli._svi_slices import simulated_slices

KEYS = (
    "slices cold_us fit_certificate_us certified_us enforced_surfaces_certified guarded warm_us warm_frame_ms "
    "warm_frame_p95_ms warm_frame_iv_ms warm_frame_fit_ms warm_frame_enforce_ms warm_frame_certificate_ms certificate_us "
    "certificate_verdict_us scipy_us quantlib_us scipy_ratio quantlib_ratio machine"
)


def test_figures_and_bars(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    bench_svi.add_arguments(parser)
    figures = bench_svi.run(parser.parse_args(["--json", "--simulated", "--peer-slices", "24"]))
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == figures
    assert set(KEYS.split()) <= printed.keys()
    assert printed["slices"] == 144
    assert printed["enforced_surfaces_certified"] == printed["enforced_surfaces"] == 12
    assert printed["guarded"] == 0
    # The made-up expiries know nothing of each other, so now and then a surface of one of the 200 frames takes the guard.
    assert printed["warm_frames_guarded_slices"] <= 36
    assert printed["warm_frame_slices"] == 36
    assert printed["warm_frames_certified"] == f"{bench_svi.FRAMES} of {bench_svi.FRAMES}"
    assert printed["scipy_ratio"] >= 100
    assert printed["cost_above_scipy_max"] <= 1e-3
    if printed["quantlib_us"] is not None:
        assert printed["quantlib_ratio"] >= 500


def test_simulated_slices_are_the_same_every_time() -> None:
    one, two = simulated_slices(), simulated_slices()
    assert (one.vol == two.vol).all()
    assert (simulated_slices(seed=8).vol[:10] != one.vol[:10]).all()


def test_quantlib_missing_is_said_and_not_fatal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_svi, "time_quantlib", lambda slices: None)
    parser = argparse.ArgumentParser()
    bench_svi.add_arguments(parser)
    figures = bench_svi.run(parser.parse_args(["--simulated", "--peer-slices", "2"]))
    assert figures["quantlib_us"] is None
    assert figures["quantlib_ratio"] is None
    assert "not installed" in capsys.readouterr().out
