"""The bytes of a panel's frame: fixed for ever by a golden file, and readable by what the browser runs."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tests.widgets import small_market as market
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.trouble import Trouble, attention
from volsurf.engine.frame import Frame
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.surface import Surface
from volsurf.svi._published import Enforcement
from volsurf.svi.certificate import Verdict
from volsurf.widgets._payload import (
    MARKET_REACH,
    encode,
    feed_age,
    frame_facts,
    smiles_payload,
    surface_payload,
)

GOLDEN = Path(__file__).parent / "golden"


def tiny_frame() -> Frame:
    """Two slices and five quotes, all numbers exact in binary, so that the bytes are the same everywhere."""
    fit = SliceFit(
        a=0.0078125,
        b=0.0625,
        rho=-0.25,
        m=0.0,
        sigma=0.125,
        result=0,
        cost=1.5,
        rms=0.5,
        inside=0.75,
        iterations=4,
        n_used=3,
        n_two_sided=2,
        atm_error=0.001,
        butterfly_verdict=1,
        butterfly_condition=0,
        butterfly_worst_k=0.5,
        butterfly_worst_value=0.25,
        calendar_verdict=2,
        calendar_condition=7,
        calendar_worst_k=-1.5,
        calendar_worst_value=-0.001,
        theta=0.015625,
        covariance=tuple(0.0625 if p == q else 0.0078125 for p in range(5) for q in range(p, 5)),
        enforcement=3,
        move=0.0078125,
    )
    nan = float("nan")

    def smile(expiry_ns: int, strikes: list[float], **columns: object) -> Smile:
        strike = np.array(strikes)
        return Smile(
            underlying="BTC", expiry_ns=expiry_ns, time_ns=market.START_NS, forward=100.0, years=0.25, strike=strike,
            log_moneyness=(strike - 100.0) / 128.0, vol=np.full(strike.size, 0.5), error=np.full(strike.size, 0.01),
            is_call=strike > 100, instrument_id=np.arange(strike.size, dtype=np.int32), forward_source=0, forward_error=0.0,
            mismatch_bp=0.0, forward_flagged=False, **columns,
        )  # fmt: skip

    near = smile(
        1_800_000_000_000_000_000,
        [84.0, 100.0, 116.0],
        bid_vol=np.array([nan, 0.5, 0.53125]),
        ask_vol=np.array([0.625, 0.5625, 0.5625]),
        side=np.array([1, 0, 0], np.int8),
        reason=np.array([QuoteReason.USED, QuoteReason.USED, QuoteReason.OUTLIER], np.uint8),
        fit=fit,
    )
    far = smile(
        1_810_000_000_000_000_000,
        [100.0, 108.0],
        bid_vol=np.array([0.5, 0.5]),
        ask_vol=np.array([0.625, nan]),
        side=np.array([0, -1], np.int8),
        reason=np.array([QuoteReason.USED, QuoteReason.TOO_WIDE], np.uint8),
    )
    return Frame(
        7,
        market.START_NS,
        {"BTC": Surface("BTC", market.START_NS, (near, far))},
        {"deribit": market.status(5, 2_500_000_000)},
    )


def read(payload: bytes) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """An independent reader, written from the module's description."""
    magic, length = struct.unpack_from("<4sI", payload)
    assert magic == b"VSP1"
    header = json.loads(payload[8 : 8 + length])
    at, columns = 8 + length, {}
    for name, kind, count in header["columns"]:
        dtype = np.dtype("i1" if kind == "i1" else f"<{kind}")
        columns[name] = np.frombuffer(payload, dtype, count, at)
        at += -(-count * dtype.itemsize // 8) * 8
    assert at == len(payload)
    return header, columns


@pytest.mark.parametrize(("kind", "build"), [("surface", surface_payload), ("smiles", smiles_payload)])
def test_the_bytes_are_those_of_the_golden_file(kind: str, build: object) -> None:
    frame = tiny_frame()
    payload = build(frame_facts(frame, "BTC"), frame.surfaces["BTC"])  # type: ignore[operator]
    golden = bytes.fromhex((GOLDEN / f"{kind}.hex").read_text())
    assert payload == golden, "the payload changed: the browser's decode() and the golden file must change with it"


def test_every_column_starts_on_a_multiple_of_eight() -> None:
    frame = tiny_frame()
    payload = smiles_payload(frame_facts(frame, "BTC"), frame.surfaces["BTC"])
    header, columns = read(payload)
    assert header["kind"] == "smiles"
    assert header["number"] == 7
    assert header["feed_age"] == 2.5
    assert columns["expiry_ms"].tolist() == [1_800_000_000_000.0, 1_810_000_000_000.0]
    assert columns["fitted"].tolist() == [1, 0]
    assert np.isnan(columns["a"][1])
    assert columns["calendar"].tolist() == [2, 0]
    assert columns["marks"].tolist() == [3, 2]
    assert columns["trouble"].tolist() == [Trouble.ARBITRAGE, Trouble.NONE]
    assert columns["move"][0] == 0.0078125
    assert columns["covariance"].size == 30
    assert columns["covariance"][:6].tolist() == [0.0625, *[0.0078125] * 4, 0.0625]
    assert np.isnan(columns["covariance"][15:]).all()
    assert columns["strike"].tolist() == [84, 100, 116, 100, 108]
    assert columns["excluded"].tolist() == [0, 0, 1, 0, 1]
    assert header["reasons"] == {
        str(int(r)): r.label for r in (QuoteReason.USED, QuoteReason.TOO_WIDE, QuoteReason.OUTLIER)
    }


def test_only_quotes_within_reach_are_sent() -> None:
    surface = market.surface("BTC", market.START_NS)
    frame = market.frame(1)
    _, columns = read(smiles_payload(frame_facts(frame, "BTC"), surface))
    starts = np.concatenate([[0], np.cumsum(columns["marks"])])
    for i, smile in enumerate(surface.smiles):
        unit = smile.atm_vol * np.sqrt(smile.years)
        k = np.log(columns["strike"][starts[i] : starts[i + 1]].astype(float) / smile.forward)
        assert np.abs(k).max() <= MARKET_REACH * unit + 1e-6
        # The range that counts as market is spanned by two-sided quotes, not by what stands alone in the wings.
        two_sided = np.asarray(smile.log_moneyness)[np.asarray(smile.side) == 0]
        assert columns["low"][i] == pytest.approx(two_sided.min(), rel=1e-6)
        assert columns["high"][i] == pytest.approx(two_sided.max(), rel=1e-6)


def test_a_far_quote_is_left_out() -> None:
    frame = tiny_frame()
    smile = frame.surfaces["BTC"].smiles[0]
    far = smile.with_fit(smile.fit)
    object.__setattr__(far, "log_moneyness", np.array([-9.0, 0.0, 0.125]))
    _, columns = read(smiles_payload(frame_facts(frame, "BTC"), Surface("BTC", market.START_NS, (far,))))
    assert columns["strike"].tolist() == [100, 116]


def test_no_surface_is_a_payload_without_slices() -> None:
    frame = tiny_frame()
    header, columns = read(smiles_payload(frame_facts(frame, "SOL"), None))
    assert header["underlying"] == "SOL"
    assert header["underlyings"] == ["BTC"]
    assert all(column.size == 0 for column in columns.values())


def test_the_feed_heard_of_last_decides_how_silent_the_venues_are() -> None:
    frame = tiny_frame()
    object.__setattr__(frame, "health", {"a": market.status(0, 9_000_000_000), "b": market.status(0, 1_000_000_000)})
    assert feed_age(frame) == 1.0
    object.__setattr__(frame, "health", {})
    assert feed_age(frame) == 0.0


def test_a_payload_shares_no_memory_with_its_arrays() -> None:
    column = np.arange(4.0)
    payload = encode({}, [("x", "f8", column)])
    column[:] = -1
    assert read(payload)[1]["x"].tolist() == [0, 1, 2, 3]


def test_a_frame_of_a_whole_chain_is_small() -> None:
    frame = market.frame(1)
    surface = frame.surfaces["BTC"]
    quotes = sum(len(s.strike) for s in surface.smiles)
    assert quotes > 600
    assert len(surface_payload(frame_facts(frame, "BTC"), surface)) < 2_800
    assert len(smiles_payload(frame_facts(frame, "BTC"), surface)) < 3_500 + 16 * quotes


def test_what_a_desk_should_not_quote_on_is_named_with_its_reason() -> None:
    told = attention(market.surface("BTC", market.START_NS).smiles)
    assert [text.split(": ")[0].split(" ", 2)[2] for text in told] == [
        "has arbitrage", "is guarded", "has arbitrage", "is not certified",
    ]  # fmt: skip
    assert all(text.endswith(": do not quote on it") for text in told)
    near, far = tiny_frame().surfaces["BTC"].smiles
    assert far.fit is None
    assert attention([far]) == []
    assert attention([near]) == ["15JAN27 has arbitrage: do not quote on it"]
    assert near.fit is not None
    clean = replace(near.fit, calendar_verdict=int(Verdict.PROVED), enforcement=int(Enforcement.MOVED))
    assert Trouble.of(clean) is Trouble.NONE
    assert Trouble.of(replace(clean, inside=0.4)) is Trouble.OFF_QUOTES
    assert Trouble.of(replace(clean, inside=float("nan"))) is Trouble.NONE
    assert Trouble.of(replace(clean, inside=float("nan"), rms=40.0)) is Trouble.OFF_QUOTES
    assert Trouble.of(replace(clean, enforcement=int(Enforcement.GUARDED), inside=0.4)) is Trouble.GUARDED
    assert Trouble.of(replace(clean, butterfly_verdict=int(Verdict.UNDECIDED))) is Trouble.UNDECIDED


def test_the_browsers_words_are_in_the_order_of_the_codes() -> None:
    text = files("volsurf.widgets").joinpath("live.js").read_text(encoding="utf-8")
    words = json.loads(re.search(r"const TROUBLES = (\[.*?\]);", text).group(1))  # type: ignore[union-attr]
    assert words == ["", "arbitrage", "undecided", "guarded", "off its quotes"]
    assert words == [t.label for t in Trouble]
    assert [t.name for t in Trouble] == ["NONE", "ARBITRAGE", "UNDECIDED", "GUARDED", "OFF_QUOTES"]
