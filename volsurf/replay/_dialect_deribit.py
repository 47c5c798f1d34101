"""Deribit's side of a recording that is served."""

from __future__ import annotations

from typing import Any

import msgspec

from volsurf.replay._dialect import Client, Dialect, Keep, between

_PUSH = b'"params":{"channel":"'
_SHORTEST_SECONDS = 10
_HEARTBEAT = b'{"params":{"type":"heartbeat"},"method":"heartbeat","jsonrpc":"2.0"}'
_TEST = b'{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}'


class DeribitDialect(Dialect):
    """Listings and channels as the recorded connections were told of them; heartbeats of its own."""

    path = "/ws/api/v2"

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[tuple[int, int], tuple[str, dict[str, Any]]] = {}
        self._listings: dict[tuple[str, str], msgspec.Raw] = {}
        self._rows: dict[str, msgspec.Raw] = {}
        self._channels: set[str] = set()

    def learn_sent(self, connection: int, data: bytes) -> None:
        """Requests, by their ids."""
        try:
            request = msgspec.json.decode(data)
            self._asked[connection, request["id"]] = request["method"], request.get("params") or {}
        except (msgspec.DecodeError, LookupError, TypeError):
            return

    def learn_heard(self, connection: int, data: bytes) -> None:
        """Their answers."""
        try:
            reply = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            method, params = self._asked.pop((connection, int(reply["id"])))
            result = reply["result"]
        except (msgspec.DecodeError, LookupError, TypeError, ValueError):
            return
        if method == "public/get_instruments":
            self._listings[str(params.get("currency")), str(params.get("kind", "any"))] = result
            for raw in msgspec.json.decode(result, type=list[msgspec.Raw]):
                self._learn_row(raw)
        elif method == "public/get_instrument":
            self._learn_row(result)
        elif method == "public/subscribe":
            self._channels.update(msgspec.json.decode(result, type=list[str]))

    def hear(self, client: Client, data: bytes, now: int) -> None:
        """Answer a request; whoever subscribes is told only of channels that were granted then."""
        try:
            request = msgspec.json.decode(data)
            number, method, params = request["id"], request["method"], request.get("params") or {}
        except (msgspec.DecodeError, LookupError, TypeError):
            self._reply(client, None, now, error={"code": -32600, "message": "Invalid Request"})
            return
        if method == "public/subscribe":
            granted = [name for name in params.get("channels", ()) if name in self._channels]
            self._reply(client, number, now, granted)
            for name in granted:
                client.join(name)
        elif method == "public/unsubscribe":
            for name in params.get("channels", ()):
                client.leave(name)
            self._reply(client, number, now, params.get("channels", []))
        elif method == "public/set_heartbeat":
            client.scratch["period"] = max(_SHORTEST_SECONDS, int(params.get("interval", 30))) * 1_000_000_000
            client.scratch["due"] = now + client.scratch["period"]
            self._reply(client, number, now, "ok")
        elif method == "public/get_instruments":
            listed = self._listings.get((str(params.get("currency")), str(params.get("kind", "any"))))
            self._reply(client, number, now, [] if listed is None else listed)
        elif method == "public/get_instrument" and params.get("instrument_name") in self._rows:
            self._reply(client, number, now, self._rows[params["instrument_name"]])
        elif method in ("public/test", "public/hello"):
            self._reply(client, number, now, {"version": "1.2.26"})
        elif method == "public/get_time":
            self._reply(client, number, now, now // 1_000_000)
        elif method == "public/status":
            self._reply(client, number, now, {"locked": "false"})
        else:
            self._reply(client, number, now, error={"code": -32601, "message": "not in this recording"})

    def channel_of(self, data: bytes) -> tuple[str, Keep] | None:
        """Books are changes after a snapshot; every other push says all there is to say, or is news."""
        channel = between(data, _PUSH)
        if channel is None:
            return None
        if channel.startswith("book."):
            return channel, Keep.MORE if b'"type":"change"' in data[:400] else Keep.FIRST
        is_news = channel.startswith(("trades.", "instrument.state.", "platform_state"))
        return channel, Keep.NOTHING if is_news else Keep.LAST

    def timer(self, client: Client, now: int) -> None:
        """Ask whether it is there, at the period it asked for."""
        due = client.scratch.get("due")
        if due is not None and now >= due:
            client.scratch["due"] = now + client.scratch["period"]
            client.say(_HEARTBEAT)
            client.say(_TEST)

    def _learn_row(self, raw: msgspec.Raw) -> None:
        name = between(bytes(raw), b'"instrument_name":"', within=4000)
        if name is not None:
            self._rows[name] = raw

    @staticmethod
    def _reply(client: Client, number: object, now: int, result: object = None, error: object = None) -> None:
        body = {"result": result} if error is None else {"error": error}
        reply = {"jsonrpc": "2.0", "id": number} | body | {"usIn": now // 1000, "usOut": now // 1000, "usDiff": 0}
        client.say(msgspec.json.encode(reply))
