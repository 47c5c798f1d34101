"""Bybit's side of a recording that is served."""

from __future__ import annotations

import msgspec

from volsurf.replay._dialect import Client, Dialect, Keep, between


class BybitDialect(Dialect):
    """Topics as they are asked for; pings are answered in the option socket's words."""

    path = "/v5/public/option"

    def accepts(self, path: str) -> bool:
        """The option, linear and inverse sockets."""
        return path.startswith("/v5/public/")

    def hear(self, client: Client, data: bytes, now: int) -> None:
        """Answer a command."""
        try:
            command = msgspec.json.decode(data)
            operation = command["op"]
            topics = [str(topic) for topic in command.get("args", ())]
        except (msgspec.DecodeError, LookupError, TypeError):
            client.say(b'{"success":false,"ret_msg":"error:request params error","op":"","conn_id":"replay"}')
            return
        is_option = client.path.partition("?")[0].endswith("/option")
        number = str(command.get("req_id", ""))
        if operation == "ping":
            pong: dict[str, object] = {"args": [str(now // 1_000_000)], "op": "pong"}
            if not is_option:
                pong = {"success": True, "ret_msg": "pong", "conn_id": "replay", "req_id": number, "op": "ping"}
            client.say(msgspec.json.encode(pong))
            return
        answer: dict[str, object] = {"success": True, "conn_id": "replay"}
        if is_option:
            answer |= {"data": {"failTopics": [], "successTopics": topics}, "type": "COMMAND_RESP"}
        else:
            answer |= {"ret_msg": "", "req_id": number, "op": operation}
        client.say(msgspec.json.encode(answer))
        for topic in topics:
            (client.join if operation == "subscribe" else client.leave)(topic)

    def channel_of(self, data: bytes) -> tuple[str, Keep] | None:
        """Books and linear tickers are changes after a snapshot."""
        topic = between(data, b'"topic":"')
        if topic is None:
            return None
        if "rade." in topic:
            return topic, Keep.NOTHING
        return topic, Keep.MORE if between(data, b'"type":"') == "delta" else Keep.FIRST
