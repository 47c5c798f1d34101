"""OKX's side of a recording that is served."""

from __future__ import annotations

import msgspec

from volsurf.replay._dialect import Client, Dialect, Keep, between

_ARG = b'"arg":'
_BOOKS = ("books", "books-l2-tbt", "books50-l2-tbt")
_ONLY_CHANGES = ("opt-summary", "option-trades", "trades", "instruments", "estimated-price", "status")
"""What comes on these does not say all there is to say."""


class OkxDialect(Dialect):
    """A channel is its `arg` with sorted keys; whatever is asked for is granted, as one that carries nothing would be."""

    path = "/ws/v5/public"

    def hear(self, client: Client, data: bytes, now: int) -> None:
        """Answer a request."""
        del now
        if data == b"ping":
            client.say(b"pong")
            return
        try:
            request = msgspec.json.decode(data)
            operation, args = request["op"], list(request["args"])
        except (msgspec.DecodeError, LookupError, TypeError):
            client.say(b'{"event":"error","code":"60012","msg":"Invalid request"}')
            return
        head = {"id": request["id"]} if "id" in request else {}
        for arg in args:
            client.say(msgspec.json.encode(head | {"event": operation, "arg": arg, "connId": "replay"}))
            (client.join if operation == "subscribe" else client.leave)(_name(arg))

    def channel_of(self, data: bytes) -> tuple[str, Keep] | None:
        """Books are changes after a snapshot."""
        at = data.find(_ARG, 0, 400)
        if at < 0 or b'"event":' in data[:400]:
            return None
        end = data.find(b"}", at)
        try:
            arg = msgspec.json.decode(data[at + len(_ARG) : end + 1])
            name, channel = _name(arg), str(arg["channel"])
        except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
            return None
        if channel in _BOOKS:
            return name, Keep.MORE if between(data, b'"action":"') == "update" else Keep.FIRST
        if channel == "opt-summary":
            # Pushes name some of the options of a family; together they name all.
            return name, Keep.MORE
        return name, Keep.NOTHING if channel in _ONLY_CHANGES else Keep.LAST


def _name(arg: dict[str, str]) -> str:
    return ",".join(f"{key}={arg[key]}" for key in sorted(arg))
