"""Chains: every way a table can be written, and every way a row can be bad."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import volsurf as vs
from tests.surface.quoted_market import DAY, NOW, Quoted, chain_frame
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.surface.chain import Chain, fit_surface, fit_surfaces
from volsurf.surface.columns import REQUIRED

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return chain_frame(Quoted())


@pytest.fixture(scope="module")
def surface(frame: pl.DataFrame) -> vs.Surface:
    return fit_surface(Chain.from_polars(frame))


def same(one: vs.Surface, other: vs.Surface) -> None:
    np.testing.assert_array_equal(one.expiries, other.expiries)
    np.testing.assert_allclose(one.atm_vol, other.atm_vol, rtol=1e-12)


def reason_of(frame: pl.DataFrame) -> list[QuoteReason]:
    return [QuoteReason(int(code)) for code in Chain.from_polars(frame).reason]


def test_chain_to_surface_in_one_call(surface: vs.Surface) -> None:
    assert len(surface) == 3
    assert surface.certificate
    assert vs.fit_surface is fit_surface


def test_csv_in_plain_and_gzip(frame: pl.DataFrame, surface: vs.Surface, tmp_path: Path) -> None:
    plain, packed = tmp_path / "chain.csv", tmp_path / "chain.csv.gz"
    frame.write_csv(plain)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    same(fit_surface(Chain.from_csv(plain)), surface)
    same(fit_surface(Chain.from_csv(str(packed))), surface)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_pandas(frame: pl.DataFrame, surface: vs.Surface, missing: float | None) -> None:
    table = pd.DataFrame({name: frame[name].to_list() for name in frame.columns if name not in ("expiry", "time")})
    table["expiry"] = pd.to_datetime(frame["expiry"].cast(pl.Int64).to_list(), utc=True)
    table["time"] = pd.Timestamp(NOW, tz="Asia/Tokyo")
    same(fit_surface(Chain.from_pandas(table)), surface)
    table.loc[0, "bid"] = missing
    table["venue"] = missing
    assert Chain.from_pandas(table).quote_vols().ledger().rows == frame.height


TIMES = {
    "integer ns": lambda ns: ns,
    "datetime": lambda ns: EPOCH + timedelta(microseconds=ns // 1000),
    "naive datetime": lambda ns: (EPOCH + timedelta(microseconds=ns // 1000)).replace(tzinfo=None),
    "other zone": lambda ns: (EPOCH + timedelta(microseconds=ns // 1000)).astimezone(timezone(timedelta(hours=-5))),
    "ISO text": lambda ns: (EPOCH + timedelta(microseconds=ns // 1000)).isoformat(),
    "ISO text, Z": lambda ns: (EPOCH + timedelta(microseconds=ns // 1000)).isoformat().replace("+00:00", "Z"),
    "ns as text": lambda ns: str(ns),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_can_be_written_as(kind: str, frame: pl.DataFrame, surface: vs.Surface) -> None:
    written = [TIMES[kind](ns) for ns in frame["expiry"].cast(pl.Int64).to_list()]
    same(fit_surface(Chain.from_polars(frame.with_columns(pl.Series("expiry", written)))), surface)


def test_words_are_read_in_any_case(frame: pl.DataFrame, surface: vs.Surface) -> None:
    words = frame.with_columns(
        pl.col("option_type").replace({"call": " C", "put": "Put"}), pl.col("settlement").str.to_uppercase()
    )
    same(fit_surface(Chain.from_polars(words)), surface)


def test_forward_may_be_null_or_absent(frame: pl.DataFrame, surface: vs.Surface) -> None:
    for table in (
        frame.drop("forward"),
        frame.with_columns(forward=pl.lit(None)),
        frame.with_columns(forward=pl.lit(np.nan)),
    ):
        inferred = fit_surface(Chain.from_polars(table))
        np.testing.assert_allclose(inferred.atm_vol, surface.atm_vol, atol=1e-4)
        assert {s.forward_sentence for s in inferred.smiles} == {"put-call parity of the quotes"}


def test_linear_premiums_and_discount() -> None:
    market = Quoted("SOL", Settlement.LINEAR, spot=140.0)
    plain = chain_frame(market)
    discounted = plain.with_columns(pl.col("bid") * 0.98, pl.col("ask") * 0.98, discount=pl.lit(0.98))
    one, other = fit_surface(Chain.from_polars(plain)), fit_surface(Chain.from_polars(discounted))
    np.testing.assert_allclose(one.atm_vol, other.atm_vol, rtol=1e-9)


def test_extra_columns_are_kept_and_explained(frame: pl.DataFrame) -> None:
    table = frame.with_columns(note=pl.lit("mine"))
    chain = Chain.from_polars(table)
    explained = chain.explain(chain.quote_vols())
    assert explained.columns == [*table.columns, "reason", "bid_vol", "ask_vol", "log_moneyness"]
    assert explained.select(table.columns).equals(table)
    itm = (explained["option_type"] == "call") & (explained["strike"] < explained["forward"] * 0.9)
    assert set(explained.filter(itm)["reason"]) == {"in the money"}
    used = explained.filter(pl.col("reason") == "used")
    assert (used["ask_vol"] > used["bid_vol"]).all()


def test_venues_own_vols_are_read(frame: pl.DataFrame) -> None:
    chain = Chain.from_polars(
        frame.with_columns(mark_vol=pl.when(pl.int_range(pl.len()) % 2 == 0).then(0.5).otherwise(-1.0))
    )
    said = chain.quote_vols().venue_quotes.mark_vol
    # What cannot be a vol is as good as absent.
    assert (said == 0.5).sum() == np.isnan(said).sum() == len(frame) // 2


def test_bad_rows_become_reasons_and_their_neighbours_live(frame: pl.DataFrame, surface: vs.Surface) -> None:
    rows = frame.rows(named=True)
    base = rows[40]
    spoilt = [
        (base | {"strike": 0.0}, QuoteReason.BAD_STRIKE),
        (base | {"strike": -5.0}, QuoteReason.BAD_STRIKE),
        (base | {"strike": float("nan")}, QuoteReason.BAD_STRIKE),
        (base | {"strike": None}, QuoteReason.BAD_STRIKE),
        (base | {"strike": float("inf")}, QuoteReason.BAD_STRIKE),
        (base | {"option_type": "straddle"}, QuoteReason.BAD_TYPE),
        (base | {"option_type": None}, QuoteReason.BAD_TYPE),
        (base | {"settlement": "physical"}, QuoteReason.BAD_SETTLEMENT),
        (base | {"underlying": None}, QuoteReason.BAD_UNDERLYING),
        (base | {"expiry": None}, QuoteReason.BAD_EXPIRY),
        (base | {"expiry": EPOCH - timedelta(days=3)}, QuoteReason.BAD_EXPIRY),
        (rows[3], QuoteReason.USED),
    ]
    table = pl.DataFrame([*rows, *(row for row, _ in spoilt)], schema=frame.schema)
    chain = Chain.from_polars(table)
    found = [QuoteReason(int(code)) for code in chain.reason]
    assert found[len(rows) :] == [why for _, why in spoilt]
    assert found[3] is QuoteReason.DUPLICATE
    ledger = chain.quote_vols().ledger()
    assert ledger.rows == len(table)
    assert sum(ledger.counts.values()) == len(table)
    assert ledger.counts[QuoteReason.BAD_STRIKE] == 5
    same(fit_surface(chain), surface)


def test_quotes_that_are_bad_become_reasons(frame: pl.DataFrame) -> None:
    rows = frame.rows(named=True)
    expected = {}
    for i, (changes, why) in enumerate(
        [
            ({"bid": float("nan"), "ask": float("nan")}, QuoteReason.NO_QUOTE),
            ({"bid": None, "ask": None}, QuoteReason.NO_QUOTE),
            ({"bid": 0.5, "ask": 0.4}, QuoteReason.CROSSED),
            ({"bid": -1.0}, QuoteReason.BAD_PRICE),
            ({"ask": float("inf")}, QuoteReason.BAD_PRICE),
            ({"expiry": EPOCH + timedelta(microseconds=(NOW - DAY) // 1000)}, QuoteReason.EXPIRED),
        ]
    ):
        rows[2 * i] |= changes
        expected[2 * i] = why
    chain = Chain.from_polars(pl.DataFrame(rows, schema=frame.schema))
    explained = chain.explain(chain.quote_vols())
    assert {i: explained["reason"][i] for i in expected} == {i: why.label for i, why in expected.items()}
    assert len(fit_surface(chain)) == 3


def test_text_that_is_no_number_is_a_bad_price(frame: pl.DataFrame, tmp_path: Path) -> None:
    lines = frame.write_csv().splitlines()
    header = lines[0].split(",")
    row = lines[1].split(",")
    row[header.index("bid")] = "abc"
    lines[1] = ",".join(row)
    row = lines[2].split(",")
    row[header.index("ask")] = ""
    lines[2] = ",".join(row)
    row = lines[3].split(",")
    row[header.index("expiry")] = "tomorrow"
    lines[3] = ",".join(row)
    path = tmp_path / "chain.csv"
    path.write_text("\n".join(lines))
    chain = Chain.from_csv(path)
    explained = chain.explain(chain.quote_vols())
    assert explained["reason"][0] == "bad price"
    assert explained["reason"][2] == "bad expiry"
    assert len(fit_surface(chain)) == 3


def test_of_duplicates_the_newest_stays(frame: pl.DataFrame) -> None:
    newer = frame[0].with_columns(
        bid=pl.lit(0.001), time=(pl.col("time") + timedelta(seconds=1)).cast(frame.schema["time"])
    )
    assert reason_of(pl.concat([newer, frame]))[:2] == [QuoteReason.USED, QuoteReason.DUPLICATE]
    assert reason_of(pl.concat([frame, newer]))[0] is QuoteReason.DUPLICATE


@pytest.mark.parametrize("types", [("call", "put"), ("call",)])
def test_one_strike_only(frame: pl.DataFrame, types: tuple[str, ...]) -> None:
    month = frame.filter(pl.col("expiry").cast(pl.Int64) == NOW + 30 * DAY)
    strikes = month["strike"].unique().sort()
    above = strikes.filter(strikes > month["forward"][0])[0]
    one = month.filter((pl.col("strike") == above) & pl.col("option_type").is_in(types))
    surface = fit_surface(Chain.from_polars(one))
    assert len(surface) == 1
    smile = surface.smiles[0]
    assert surface.vol(strike=above, expiry=surface.expiries[0]) == pytest.approx(float(smile.vol[-1]), abs=0.005)
    if len(types) == 2:
        without = fit_surface(Chain.from_polars(one.with_columns(forward=pl.lit(None))))
        assert without.smiles[0].forward == pytest.approx(smile.forward, rel=1e-3)
        assert without.smiles[0].forward_flagged


def test_rows_of_different_times_age(frame: pl.DataFrame) -> None:
    ages = pl.Series([timedelta(minutes=6) if i < 50 else timedelta(seconds=i % 7) for i in range(frame.height)])
    chain = Chain.from_polars(frame.with_columns(time=pl.col("time") - ages))
    assert chain.time_ns == NOW
    assert chain.quote_vols().ledger().counts[QuoteReason.STALE] == 50
    assert Chain.from_polars(frame.with_columns(time=pl.when(pl.int_range(pl.len()) > 0).then("time"))).time_ns == NOW


def test_several_underlyings(frame: pl.DataFrame) -> None:
    other = chain_frame(Quoted("SOL", Settlement.LINEAR, spot=140.0))
    chain = Chain.from_polars(pl.concat([frame, other]))
    assert chain.underlyings == ("BTC", "SOL")
    with pytest.raises(
        InputError,
        match=r"2 underlyings \(BTC, SOL\): use fit_surfaces\(chain\), or fit_surface\(chain.select\('BTC'\)\)",
    ):
        fit_surface(chain)
    both = fit_surfaces(chain)
    assert list(both) == ["BTC", "SOL"]
    same(fit_surface(chain.select("SOL")), both["SOL"])
    with pytest.raises(InputError, match="no underlying 'ETH'; it has BTC, SOL"):
        chain.select("ETH")


@pytest.mark.parametrize("column", REQUIRED)
def test_missing_column_is_named(frame: pl.DataFrame, column: str) -> None:
    with pytest.raises(InputError, match=f"lacks the column {column}; it has .*"):
        Chain.from_polars(frame.drop(column))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("strike", pl.lit(True), "strike must hold numbers, was Boolean"),
        ("underlying", pl.lit(1.0), "underlying must hold text, was Float64"),
        ("expiry", pl.lit(1.5), "expiry must hold datetimes"),
        ("expiry", pl.lit(1_780_000_000_000), "nanoseconds since 1970, the largest was 1780000000000"),
        ("expiry", pl.lit("2026-12-25"), "with the time of day, was '2026-12-25'"),
        ("expiry", pl.lit(datetime(2026, 12, 25).date()), "with a time of day, .* was Date"),
        ("time", pl.lit(None), "time holds no time"),
    ],
)
def test_column_of_a_wrong_kind_is_named(frame: pl.DataFrame, column: str, values: pl.Expr, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Chain.from_polars(frame.with_columns(values.alias(column)))


def test_wrong_objects_and_files(frame: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes a polars DataFrame, was dict"):
        Chain.from_polars({})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes a pandas DataFrame, was DataFrame"):
        Chain.from_pandas(frame)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no file"):
        Chain.from_csv(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        Chain.from_csv(tmp_path / "empty.csv")
    (tmp_path / "noise.csv").write_bytes(np.random.default_rng(1).bytes(4000))
    with pytest.raises(InputError):
        Chain.from_csv(tmp_path / "noise.csv")
    with pytest.raises(InputError, match="the chain has no rows"):
        Chain.from_polars(frame.head(0))


def test_nothing_that_can_be_fitted_says_why(frame: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="of 150 rows 150 no quote"):
        fit_surface(Chain.from_polars(frame.with_columns(bid=pl.lit(None), ask=pl.lit(None))))
    with pytest.raises(InputError, match="of 150 rows 150 bad strike"):
        fit_surface(Chain.from_polars(frame.with_columns(strike=pl.lit(0.0))))


def test_rows_of_which_none_is_an_option_are_explained(frame: pl.DataFrame) -> None:
    chain = Chain.from_polars(frame.with_columns(option_type=pl.lit("straddle")))
    explained = chain.explain(chain.quote_vols())
    assert explained["reason"].unique().to_list() == ["bad type"]
    assert explained["bid_vol"].is_nan().all()


def test_spaces_around_an_underlying_lose_no_rows(frame: pl.DataFrame) -> None:
    spaced = frame.with_columns(
        underlying=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit(" BTC")).otherwise("underlying")
    )
    assert len(Chain.from_polars(spaced).select("BTC")) == frame.height


@pytest.mark.parametrize(("separator", "point"), [(";", "."), (";", ","), ("\t", ".")])
def test_spreadsheets_separate_otherwise(
    separator: str, point: str, frame: pl.DataFrame, surface: vs.Surface, tmp_path: Path
) -> None:
    path = tmp_path / "chain.csv"
    times = pl.col("expiry", "time").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    frame.with_columns(times).write_csv(path, separator=separator, decimal_comma=point == ",")
    same(fit_surface(Chain.from_csv(path)), surface)


def test_a_day_among_times_is_a_bad_expiry(frame: pl.DataFrame) -> None:
    """Midnight is eight hours before the venue's expiry."""
    text = pl.col("expiry").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    first = pl.int_range(pl.len()) == 0
    mixed = frame.with_columns(expiry=pl.when(first).then(text.str.slice(0, 10)).otherwise(text))
    reasons = reason_of(mixed)
    assert reasons[0] is QuoteReason.BAD_EXPIRY
    assert QuoteReason.BAD_EXPIRY not in reasons[1:]


def test_column_named_twice_is_refused(frame: pl.DataFrame) -> None:
    table = pd.DataFrame(frame.to_dicts())
    with pytest.raises(InputError, match="the columns bid more than once"):
        Chain.from_pandas(pd.concat((table, table[["bid"]]), axis=1))


@pytest.mark.parametrize(
    ("venue", "underlying", "prices", "tick"),
    [
        ("chain", "BTC", [0.0123, 0.0004, 0.0500], 1e-4),
        ("chain", "SOL", [1.25, 0.05, 3.4], 0.05),
        ("chain", "SOL", [10.0, 255.0, 30.0], 5.0),
        ("deribit", "BTC", [0.0125, 0.05, 0.1], 1e-4),
    ],
)
def test_tick_is_the_venues_or_the_coarsest_that_fits(
    frame: pl.DataFrame, venue: str, underlying: str, prices: list[float], tick: float
) -> None:
    few = frame.head(3).with_columns(
        venue=pl.lit(venue), underlying=pl.lit(underlying), bid=pl.Series(prices), ask=pl.Series(prices)
    )
    chain = Chain.from_polars(few)
    assert chain.universe.tick_size.tolist() == [tick] * 3
    if venue == "deribit":
        assert chain.universe[0].tick_at(0.01) == 5e-4
    assert Chain.from_polars(few.with_columns(tick_size=pl.lit(0.25))).universe.tick_size.tolist() == [0.25] * 3


def test_repr(frame: pl.DataFrame) -> None:
    assert repr(Chain.from_polars(frame)) == "Chain(150 rows at 2026-05-28T20:26:40Z, underlyings BTC)"
