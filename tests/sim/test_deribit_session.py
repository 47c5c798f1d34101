"""What the simulated Deribit answers: every rule of the protocol that a client has to live with."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.sim.venue import JUST_BEFORE_EIGHT, SECOND, START, TICK, Client, exchange, of_channel
from volsurf.sim.deribit import DeribitExchange
from volsurf.sim.market import Market

NAME = re.compile(
    r"(?P<base>[A-Z]+)(?:_(?P<quote>USDC))?-(?P<d>[1-9]\d?)(?P<mon>[A-Z]{3})(?P<yy>\d\d)-(?P<k>\d+(?:d\d+)?)-(?P<cp>[CP])"
)


@pytest.fixture
def client() -> Client:
    return Client(exchange())


def names_of(client: Client, currency: str = "BTC", kind: str = "option") -> list[str]:
    return [
        row["instrument_name"] for row in client.ask("public/get_instruments", currency=currency, kind=kind)["result"]
    ]


def test_replies_carry_the_id_with_its_type_and_microseconds(client: Client) -> None:
    for identifier in (7, "seven"):
        (reply,) = client.say(json.dumps({"jsonrpc": "2.0", "id": identifier, "method": "public/test"}))
        assert reply["id"] == identifier
        assert reply["result"] == {"version": "1.2.26"}
        assert reply["usDiff"] == reply["usOut"] - reply["usIn"] > 0
        assert reply["usIn"] == START // 1000
        assert reply["testnet"] is False


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", -32700),
        (b"\xff\xfe", -32700),
        ("[]", -32600),
        ("3", -32600),
        ('{"id":1}', -32600),
        ('{"id":1,"method":"public/test","params":[1]}', -32600),
        ('{"id":1,"method":"public/nothing"}', -32601),
        ('{"id":1,"method":"private/get_positions"}', 13009),
        ('{"id":1,"method":"public/set_heartbeat","params":{}}', -32602),
        ('{"id":1,"method":"public/set_heartbeat","params":{"interval":true}}', -32602),
        ('{"id":1,"method":"public/get_instruments","params":{"currency":"SOL"}}', -32602),
        ('{"id":1,"method":"public/get_instruments","params":{"currency":"BTC","kind":"bond"}}', -32602),
        ('{"id":1,"method":"public/subscribe","params":{"channels":"ticker"}}', -32602),
        ('{"id":1,"method":"public/subscribe","params":{"channels":[1]}}', -32602),
        ('{"id":1,"method":"public/ticker","params":{"instrument_name":"BTC-1JAN20-1-C"}}', 13020),
        ('{"id":1,"method":"public/get_index_price","params":{"index_name":"eth_usd"}}', -32602),
    ],
)
def test_errors(client: Client, text: str | bytes, code: int) -> None:
    (reply,) = client.say(text)
    assert reply["error"]["code"] == code
    assert "result" not in reply
    assert reply["error"]["message"]
    assert client.session.closing is None
    assert client.ask("public/test")["result"], "the connection lives on"


def test_short_heartbeats_are_refused_in_the_venues_words(client: Client) -> None:
    error = client.ask("public/set_heartbeat", interval=5)["error"]
    assert error == {
        "code": -32602,
        "message": "Invalid params",
        "data": {"reason": "value must be >= 10", "param": "interval"},
    }


def test_bitcoin_is_listed_as_deribit_lists_it(client: Client) -> None:
    rows = client.ask("public/get_instruments", currency="BTC", kind="option", expired=False)["result"]
    assert len(rows) >= 800
    expiries = {row["expiration_timestamp"] for row in rows}
    assert len(expiries) >= 11
    for row in rows:
        match = NAME.fullmatch(row["instrument_name"])
        assert match
        assert float(match["k"].replace("d", ".")) == row["strike"]
        assert row["option_type"] == {"C": "call", "P": "put"}[match["cp"]]
        assert row["expiration_timestamp"] % 86_400_000 == 8 * 3_600_000
        assert row["tick_size"] == 0.0001
        assert row["tick_size_steps"] == [{"above_price": 0.005, "tick_size": 0.0005}]
        assert row["creation_timestamp"] < START // 1_000_000
    futures = names_of(client, kind="future")
    assert "BTC-PERPETUAL" in futures
    assert "BTC-25DEC26" in futures
    assert "BTC-25NOV26" not in futures, "dailies have no future"


def test_linear_options_come_under_usdc_with_decimal_strikes() -> None:
    client = Client(exchange(("BTC", "SOL", "XRP")))
    rows = client.ask("public/get_instruments", currency="USDC", kind="option")["result"]
    assert {row["base_currency"] for row in rows} == {"SOL", "XRP"}
    assert all(row["instrument_type"] == "linear" and row["quote_currency"] == "USDC" for row in rows)
    assert any(re.search(r"-\dd\d+-", row["instrument_name"]) for row in rows)
    assert all(NAME.fullmatch(row["instrument_name"]) for row in rows)
    everything = client.ask("public/get_instruments", currency="any")["result"]
    assert len({row["instrument_name"] for row in everything}) == len(everything) > 1500
    assert client.ask("public/get_instruments", currency="any", kind="option_combo")["result"] == []


def test_expirations(client: Client) -> None:
    one = client.ask("public/get_expirations", currency="BTC", kind="option")["result"]
    assert one["btc"]["option"][:4] == ["25NOV26", "26NOV26", "27NOV26", "28NOV26"]
    every = client.ask("public/get_expirations", currency="any", kind="option")["result"]
    assert every["option"] == one["btc"]["option"]


def test_time_is_the_markets(client: Client) -> None:
    client.now += 5 * SECOND
    assert client.ask("public/get_time")["result"] == (START + 5 * SECOND) // 1_000_000
    fast = Client(exchange(time_scale=60.0), now=2 * SECOND)
    assert fast.ask("public/get_time")["result"] == (START + 120 * SECOND) // 1_000_000


def test_unknown_channels_are_left_out_without_a_word(client: Client) -> None:
    option = names_of(client)[100]
    good = [f"ticker.{option}.100ms", "deribit_price_index.btc_usd", f"book.{option}.none.10.100ms"]
    bad = [
        "nonsense",
        "ticker.BTC-1JAN20-1-C.100ms",
        f"ticker.{option}.1s",
        f"ticker.{option}",
        f"book.{option}.none.7.100ms",
        f"book.{option}.3.10.100ms",
        "deribit_price_index.doge_usd",
        "instrument.state.option.DOGE",
        "trades.option.BTC.5ms",
    ]
    reply = client.ask("public/subscribe", channels=[*good, *bad, good[0]])
    assert sorted(reply["result"]) == sorted(good)
    assert client.session.channels == reply["result"]


def test_five_hundred_channels_a_message(client: Client) -> None:
    channels = [f"ticker.{name}.100ms" for name in names_of(client)]
    assert client.ask("public/subscribe", channels=channels[:501])["error"]["code"] == -32602
    assert len(client.ask("public/subscribe", channels=channels[:500])["result"]) == 500
    assert len(client.pushed) == 500, "each ticker says its whole state at once"


def test_raw_needs_a_login(client: Client) -> None:
    option = names_of(client)[0]
    reply = client.ask("public/subscribe", channels=[f"ticker.{option}.100ms", f"book.{option}.raw"])
    assert reply["error"] == {"code": 13778, "message": "raw_subscriptions_not_available_for_unauthorized"}
    assert client.session.channels == []


def test_the_eleventh_subscription_of_a_burst_ends_the_connection(client: Client) -> None:
    for _ in range(10):
        assert "result" in client.ask("public/subscribe", channels=["platform_state"])
    assert client.ask("public/subscribe", channels=["platform_state"])["error"] == {
        "code": 10028,
        "message": "too_many_requests",
    }
    assert client.session.closing == (1008, "too_many_requests")
    assert client.say('{"id":1,"method":"public/test"}') == [], "nobody is there any more"


def test_credits_come_back_with_time(client: Client) -> None:
    for _ in range(40):
        client.now += int(0.31 * SECOND)
        assert "result" in client.ask("public/subscribe", channels=["platform_state"])


def test_discovery_has_its_own_limit(client: Client) -> None:
    for _ in range(50):
        assert "result" in client.ask("public/get_instruments", currency="USDT")
    assert client.ask("public/get_instruments", currency="USDT")["error"]["code"] == 10028


def test_unsubscribing_ends_a_channel(client: Client) -> None:
    client.subscribe("deribit_price_index.btc_usd", "markprice.options.btc_usd", "platform_state")
    reply = client.ask("public/unsubscribe", channels=["deribit_price_index.btc_usd", "never.had"])
    assert reply["result"] == ["deribit_price_index.btc_usd"]
    said = client.run(20)
    assert of_channel(said, "markprice")
    assert not of_channel(said, "deribit_price_index")
    assert client.ask("public/unsubscribe_all")["result"] == "ok"
    assert client.run(20) == []
    assert client.exchange.table.feeds == {}


def test_probes_at_the_interval_and_answers() -> None:
    client = Client(exchange())
    assert client.ask("public/set_heartbeat", interval=10)["result"] == "ok"
    for _ in range(3):
        said = client.run(100)
        assert said == [
            {"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "heartbeat"}},
            {"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "test_request"}},
        ]
        assert client.ask("public/test")["result"]
    assert client.session.closing is None
    counters = client.exchange.counters
    assert (counters["heartbeats_probed"], counters["heartbeats_answered"], counters["heartbeats_missed"]) == (3, 3, 0)


def test_an_unanswered_probe_ends_the_connection() -> None:
    client = Client(exchange(), probe_seconds=1.0)
    client.ask("public/set_heartbeat", interval=30)
    client.run(20)
    assert client.session.closing is None
    client.run(2)
    assert client.session.closing == (1008, "test_request was not answered")
    assert client.exchange.counters["heartbeats_missed"] == 1


def test_an_answer_counts_when_this_process_was_held_up() -> None:
    """The client answered in time but the server slept: the late timer must not beat the waiting answer."""
    client = Client(exchange(), probe_seconds=1.0)
    client.ask("public/set_heartbeat", interval=30)
    client.run(11)
    client.now += 5 * SECOND
    client.session.timer(client.now)
    assert client.session.closing is None
    client.ask("public/test")
    client.run(8)
    assert client.session.closing is None
    assert client.exchange.counters["heartbeats_missed"] == 0


def test_heartbeats_can_be_stopped() -> None:
    client = Client(exchange(), probe_seconds=1.0)
    client.ask("public/set_heartbeat", interval=30)
    client.ask("public/disable_heartbeat")
    assert client.run(50) == []


def test_rolling_at_eight() -> None:
    """Expired options say goodbye and go, the next ones are announced and can be had."""
    client = Client(exchange(start=JUST_BEFORE_EIGHT))
    dying = [n for n in names_of(client) if n.startswith("BTC-27NOV26-")]
    living = next(n for n in names_of(client) if n.startswith("BTC-28NOV26-"))
    client.subscribe("instrument.state.option.BTC", "instrument.state.any.any", f"ticker.{dying[0]}.100ms")
    client.subscribe(f"ticker.{living}.100ms", f"book.{dying[1]}.100ms")
    said = client.run(15)
    states = of_channel(said, "instrument.state.option.BTC")
    settled = {s["instrument_name"] for s in states if s["state"] == "settlement"}
    opened = {s["instrument_name"] for s in states if s["state"] == "open"}
    assert settled == set(dying) == {s["instrument_name"] for s in states if s["state"] == "delivered"}
    assert {NAME.fullmatch(n)[0].split("-")[1] for n in opened} == {"1DEC26", "18DEC26", "26FEB27"}  # type: ignore[index]
    assert "BTC-27NOV26" in {s["instrument_name"] for s in of_channel(said, "instrument.state.any.any")}
    last = of_channel(said, f"ticker.{dying[0]}")[-1]
    assert last["state"] == "closed"
    assert last["estimated_delivery_price"] == "expired"
    assert last["delivery_price"] == pytest.approx(client.exchange.market.spot("BTC"), rel=0.01)
    assert (last["best_bid_price"], last["best_ask_amount"], last["bid_iv"]) == (0.0, 0.0, 0.0)
    assert client.session.channels[-1:] == [f"ticker.{living}.100ms"]
    assert not set(names_of(client)) & set(dying)
    assert opened <= set(names_of(client))
    expired = client.ask("public/get_instruments", currency="BTC", kind="option", expired=True)["result"]
    assert {row["instrument_name"] for row in expired} == set(dying)
    assert all(row["state"] == "closed" and row["is_active"] is False for row in expired)
    assert client.ask("public/subscribe", channels=[f"ticker.{dying[0]}.100ms"])["result"] == []
    (fresh,) = client.subscribe(f"ticker.{min(opened)}.100ms")
    assert "settlement_price" not in fresh["params"]["data"]


def test_platform_lock_is_told(client: Client) -> None:
    client.subscribe("platform_state")
    client.exchange.lock(True)
    assert of_channel(client.read(), "platform_state") == [{"price_index": "btc_usd", "locked": True}]
    assert client.ask("public/status")["result"] == {"locked": "true"}


def test_same_seed_same_bytes() -> None:
    """Two runs with the same requests at the same times say the same, byte for byte, over a roll and with every channel."""

    def session(seed: int) -> bytes:
        venue = exchange(("BTC", "SOL"), seed=seed, start=JUST_BEFORE_EIGHT)
        client = Client(venue)
        names = [n for n in venue.listing.names if n.startswith(("BTC-28NOV26", "BTC-27NOV26", "SOL_USDC-28NOV26"))][
            :60
        ]
        out = []
        for channels in (
            [f"ticker.{n}.100ms" for n in names],
            [f"book.{n}.100ms" for n in names],
            ["trades.option.any.100ms", "markprice.options.btc_usd", "instrument.state.any.any"],
        ):
            client.session.receive(
                json.dumps({"id": 1, "method": "public/subscribe", "params": {"channels": channels}}), client.now
            )
        for _ in range(30):
            client.now += TICK
            venue.advance(client.now)
            out += client.session.data_to_send()
        return b"\n".join(out)

    assert session(1) == session(1)
    assert session(1) != session(2)


@pytest.mark.parametrize("truth", ["svi", "mixture"])
def test_ten_days_of_rolls(truth: str) -> None:
    """Half an hour a step: expiries come and go, the chain stays as large as it was, and quotes go on bracketing the truth."""
    market = Market(2, ("BTC",), start_ns=START, truth=truth, step_ns=1800 * SECOND)
    venue = DeribitExchange(market, origin_ns=0, time_scale=18_000.0)
    client = Client(venue)
    client.subscribe("instrument.state.option.BTC", "trades.option.any.100ms", "markprice.options.btc_usd")
    universe, quotes = venue.listing.universe, venue.quotes
    for day in range(10):
        said = of_channel(client.run(48), "instrument.state")
        assert {s["state"] for s in said} == {"open", "settlement", "delivered"}, day
        options = universe.options("BTC")
        assert len(options) >= 800
        assert len(np.unique(universe.expiry_ns[options])) >= 11
        assert (universe.expiry_ns[options] > market.now_ns).all()
        live = options[np.isfinite(quotes.bid[options]) & np.isfinite(quotes.ask[options])]
        live = live[quotes.stale_until[live] <= market.now_ns]
        assert len(live) > 600
        assert ((quotes.bid[live] < quotes.mark[live]) & (quotes.mark[live] < quotes.ask[live])).all()
