"""The listening socket of the stream: one for the engine's whole life, whatever happens to the process that serves it."""

from __future__ import annotations

import os
import socket

from volsurf.errors import ConfigError, EngineError

DEFAULT_PORT = 8765
SEND_BUFFER_BYTES = 256 * 1024


def default_port() -> int:
    """`$VOLSURF_PORT`, or 8765."""
    text = os.environ.get("VOLSURF_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not text.isdigit() or int(text) > 65_535:
        raise ConfigError(f"VOLSURF_PORT must be a port number, was {text!r}")
    return int(text)


def listen(port: int) -> socket.socket:
    """A socket that listens on a port of loopback, 0 for a free one; `EngineError` where it is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by every connection: the kernel would otherwise queue megabytes, seconds of frames, for a client that stalls.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise EngineError(f"port {port} cannot be opened ({error}); port 0 takes a free one") from error
    listener.listen(64)
    return listener
