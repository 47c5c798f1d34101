"""Websocket frames as a server sends them (RFC 6455 §5.2): final and unmasked, so a header and the payload laid end to end."""

from __future__ import annotations

import struct

_HEADER_SHORT = struct.Struct("!BB")
_HEADER_MEDIUM = struct.Struct("!BBH")
_HEADER_LONG = struct.Struct("!BBQ")
_FINAL_TEXT = 0x81
_FINAL_PING = 0x89
LONGEST_CONTROL = 125
"""Bytes that a control frame may carry."""


def text_frame(payload: bytes) -> bytes:
    """A text frame."""
    size = len(payload)
    if size < 126:
        return _HEADER_SHORT.pack(_FINAL_TEXT, size) + payload
    if size < 65_536:
        return _HEADER_MEDIUM.pack(_FINAL_TEXT, 126, size) + payload
    return _HEADER_LONG.pack(_FINAL_TEXT, 127, size) + payload


def ping_frame(payload: bytes) -> bytes:
    """A ping of at most `LONGEST_CONTROL` bytes."""
    return _HEADER_SHORT.pack(_FINAL_PING, len(payload)) + payload
