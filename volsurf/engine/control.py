"""The channel between the engine and each of its child processes, and the promise that no child outlives the engine.

A socket pair carries JSON lines both ways, and file descriptors downwards (`SCM_RIGHTS`), so that a restarted feed or core can
be joined to its living neighbour by a fresh socket pair. Its end is also the sign of death: when the engine is gone the child
reads end-of-file, and on Linux the kernel kills it even where it is stopped or deep in a compiler.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

_MAXIMUM_FDS = 8
_PR_SET_PDEATHSIG = 1


class Channel:
    """One end of the control socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._buffer = b""
        self._fds: deque[int] = deque()
        self.closed = False
        """The other side is gone."""
        self.dropped = 0
        """Messages the other side was too slow to take; what is sent upwards is only ever the newest state."""

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The engine's end, and the socket to be inherited by the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs

    def fileno(self) -> int:
        """Descriptor to wait on for reading."""
        return self._sock.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message; a descriptor is duplicated into the receiver. Never blocks and never raises for a dead reader."""
        data = json.dumps(message).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self._sock.sendmsg([data], rights)
        except BlockingIOError:
            self.dropped += 1
            return
        except OSError:
            self.closed = True
            return
        if sent < len(data):
            # A message cut in two would garble all that follow; a reader this far behind is treated as gone.
            self.closed = True

    def receive(self) -> list[Message]:
        """The messages that have arrived; sets `closed` at the end. A message's descriptors are under "fds"."""
        while not self.closed:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, 65536, _MAXIMUM_FDS)
            except BlockingIOError:
                break
            except OSError:
                data, fds = b"", []
            self._fds.extend(fds)
            if not data:
                self.closed = True
                break
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        messages = [json.loads(line) for line in lines]
        for message in messages:
            if count := message.pop("fd_count", 0):
                message["fds"] = [self._fds.popleft() for _ in range(count)]
        return messages

    def send_sockets(self, message: Message, sockets: Sequence[socket.socket]) -> None:
        """Send a message with sockets; ours are closed, the receiver owns them from here."""
        self.send(message | {"fd_count": len(sockets)}, [s.fileno() for s in sockets])
        for sock in sockets:
            sock.close()

    def close(self) -> None:
        """Close the socket and any descriptor that was received and not taken."""
        self.closed = True
        self._sock.close()
        while self._fds:
            os.close(self._fds.popleft())


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; `SystemExit` if its process has already.

    Only Linux does so; elsewhere the end of the control channel has to be read.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit(1)


def become_child(control_fd: int, parent_pid: int) -> Channel:
    """What every child process does first: tie its life to the engine's and take its end of the channel."""
    die_with(parent_pid)
    # Ctrl-C in a terminal reaches the whole process group; the engine decides in which order its processes end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return Channel(socket.socket(fileno=control_fd))
