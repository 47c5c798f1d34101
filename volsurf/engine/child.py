"""One child process of the engine: how it is started, how long to wait before it is started again, how it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from volsurf.engine.control import Channel

FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 5.0


class Child:
    """A role of the engine, played by one process after another."""

    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self.channel: Channel
        """Our end of the control channel of the process that runs, or ran last."""
        self.failures = 0
        """Times it ended on its own since it last did its work."""
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process, or None while there is none."""
        return None if self._process is None else self._process.pid

    def may_start(self, now: float) -> bool:
        """It does not run, and the back-off is over."""
        return self._process is None and now >= self._start_at

    def start(self) -> None:
        """Start the process. To be called from a thread that outlives it."""
        self.channel, theirs = Channel.pair()
        with theirs:
            # -P: a module of the user's working directory must not stand in for one of ours or of the standard library.
            command = [sys.executable, "-P", "-m", self._module, str(theirs.fileno()), str(os.getpid())]
            threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=threads | os.environ
            )

    def poll(self) -> int | None:
        """The status of a process that has ended, once; None while it runs or where there is none."""
        status = None if self._process is None else self._process.poll()
        if status is not None:
            self._process = None
            self.failures += 1
        return status

    def succeeded(self) -> None:
        """It does its work: the next end is the first failure again."""
        self.failures = 0

    def back_off(self, now: float) -> float:
        """Seconds until it may start again."""
        delay = min(FIRST_BACKOFF * 2.0 ** max(0, self.failures - 1), LONGEST_BACKOFF)
        self._start_at = now + delay
        return delay

    def end(self, deadline: float) -> None:
        """Wait for a process that was told to stop; from `deadline` on, make it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            try:
                process.wait(max(0.5, deadline - time.monotonic()))
                return
            except subprocess.TimeoutExpired:
                process.send_signal(signal_number)
        process.wait()
