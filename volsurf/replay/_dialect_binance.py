"""Binance's side of a recording that is served."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import msgspec

from volsurf.replay._dialect import Client, Dialect, Keep, between


class BinanceDialect(Dialect):
    """Combined streams, named in the address or asked for; stream names are lower case.

    A book is made of a page and the changes after it, and only recorded pages can be answered: a client that begins in the
    middle of a recording may find no change that follows its page.
    """

    path = ""

    def accepts(self, path: str) -> bool:
        """Both routes."""
        return path.rstrip("/") in ("/public/stream", "/market/stream", "/stream", "/public/ws", "/market/ws")

    def opened(self, client: Client, now: int) -> None:
        """The streams its address names."""
        del now
        for stream in dict(parse_qsl(urlsplit(client.path).query)).get("streams", "").split("/"):
            if stream:
                client.join(stream)

    def hear(self, client: Client, data: bytes, now: int) -> None:
        """Answer a request."""
        del now
        try:
            request = msgspec.json.decode(data)
            method, number = request["method"], request["id"]
            streams = [str(stream) for stream in request.get("params") or ()]
        except (msgspec.DecodeError, LookupError, TypeError):
            client.say(b'{"code":2,"msg":"Invalid request"}')
            return
        client.say(msgspec.json.encode({"result": None, "id": number}))
        for stream in streams:
            if method == "SUBSCRIBE":
                client.join(stream)
            elif method == "UNSUBSCRIBE":
                client.leave(stream)

    def channel_of(self, data: bytes) -> tuple[str, Keep] | None:
        """Marks and tops say all there is to say, trades and changes of books are news."""
        stream = between(data, b'"stream":"')
        if stream is None:
            return None
        is_last = "@optionMarkPrice" in stream or "@bookTicker" in stream or stream.startswith("!index")
        return stream, Keep.LAST if is_last else Keep.NOTHING
