"""`volsurf sim` with several venues of one market, with faults, and what it says of wrong flags."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from volsurf.cli import main
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES
from volsurf.sim.venues import SIMULATED, make_server, selected

LIMIT = 20.0


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "volsurf.cli", "sim", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline() or "{}"), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=LIMIT)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        return json.load(answer)


def test_several_venues_of_one_market_each_on_a_port_of_its_own() -> None:
    names = "BTC,XRP,ETH_USDT"
    with serving("--venue", "deribit,okx,bybit,binance", "--underlyings", names, "--faults", "at 0s disconnect") as (
        said,
        process,
    ):
        venues = said["venues"]
        assert list(venues) == ["deribit", "okx", "bybit", "binance"]
        assert len({v["port"] for v in venues.values()}) == 4
        truths = {name: get(v["truth_url"] + "?underlying=BTC") for name, v in venues.items()}
        # One market: within the seconds in which the pages were asked for, one spot.
        spots = [t["underlyings"]["BTC"]["spot"] for t in truths.values()]
        assert max(spots) / min(spots) - 1.0 < 1e-3
        assert {t["seed"] for t in truths.values()} == {1}
        chains = [len(t["underlyings"]["BTC"]["slices"]) for t in truths.values()]
        assert min(chains) >= 5
        assert len(set(chains)) > 1
        assert get(venues["okx"]["stats_url"])["clients"] == 0
        assert get(venues["bybit"]["faults_url"])["script"] == "at 0s disconnect"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert err == "deribit does not list ETH_USDT\nokx does not list XRP, ETH_USDT\n"


def test_processes_that_start_alike_share_one_market() -> None:
    origin = datetime.now(UTC).isoformat()
    same = ("--underlyings", "BTC", "--seed", "5", "--start", "2026-11-24T12:00", "--origin", origin)
    with (
        serving("--venue", "bybit", *same) as (one, _),
        serving(*same) as (two, _),
    ):
        pages = []
        for _ in range(40):
            pages = [get(said["truth_url"]) for said in (one, two)]
            if pages[0]["time_ns"] == pages[1]["time_ns"]:
                break
        assert pages[0]["time_ns"] == pages[1]["time_ns"]
        assert pages[0]["underlyings"]["BTC"]["spot"] == pages[1]["underlyings"]["BTC"]["spot"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--faults", "at 3 disconnect"], "fault 1 ('at 3 disconnect'): 'at': a duration is written like"),
        (["--faults", "random:x"], "--faults random:SEED needs a whole number"),
        (["--venue", "okx", "--underlyings", "XRP"], "none of okx lists any of XRP"),
        (["--underlyings", "DOGE"], "was ['DOGE']"),
        (["--mispricing", "-1"], "finite and not negative"),
    ],
)
def test_wrong_values_are_reported(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", *arguments]) == 1
    assert complaint in capsys.readouterr().err


def test_an_unknown_venue_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sim", "--venue", "deribit,nyse"])
    assert ended.value.code == 2
    assert "deribit, okx, bybit, binance" in capsys.readouterr().err


def test_a_script_may_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[fault]]\nkind = "gap"\nat = "12s"\n')
    assert main(["sim", "--faults", str(path)]) == 1
    assert "for how long?" in capsys.readouterr().err


@pytest.mark.parametrize("venue", SIMULATED)
def test_every_venue_has_a_server_and_a_profile(venue: str) -> None:
    profile, missing = selected(PROFILES[venue], ["BTC", "DOGE"])
    assert missing == ["DOGE"]
    assert {f.underlying for f in profile.families} == {"BTC"}
    server = make_server(venue, Market(1, ("BTC",), start_ns=1_800_000_000 * 10**9), profile=profile)
    assert server.exchange.listing.venue == venue
    assert len(server.exchange.chain("BTC")) >= 5


def test_families_are_chosen_by_their_suffix() -> None:
    def chosen(venue: str, *names: str) -> list[tuple[str, str, str]]:
        profile, missing = selected(PROFILES[venue], names)
        assert not missing
        return [(f.underlying, f.quote_currency, f.settlement.name) for f in profile.families]

    assert chosen("okx", "BTC_USD") == [("BTC", "USD", "INVERSE")]
    assert chosen("okx", "BTC_USD_UM") == [("BTC", "USD", "LINEAR")]
    assert chosen("bybit", "BTC_USDC") == [("BTC", "USDC", "LINEAR")]
    assert chosen("deribit", "SOL", "BTC") == [("BTC", "USD", "INVERSE"), ("SOL", "USDC", "LINEAR")]
