"""Faults on purpose: scripts of what goes wrong when, what it does to a stream, and a record of everything that was done.

A script is a list of entries separated by `;` or line ends; `#` begins a comment:

    at 12s for 3s gap channel=book p=0.2
    at 20s disconnect how=abort; at 21s for 5s refuse count=2
    at 30s every 1m times=5 for 2s silence client=0
    at 40s for 10s spike underlying=BTC expiry=1 size=0.5 venue=okx

Times are since the start of the run; durations are written `250ms`, `3s`, `2m`, `1h`. The same as TOML:

    [[fault]]
    kind = "gap"
    at = "12s"
    for = "3s"
    channel = "book"
    p = 0.2

Kinds and what they take (`KINDS` has the defaults). Every kind takes `venue=` (only there), those of the wire `client=N` (the
N-th connection of the venue, from 0; without it all), those of messages `channel=`, `p=` and `count=`.

- wire: `disconnect` (how=close|abort, code, reason), `silence` (TCP stays, nothing comes, pings go unanswered), `slow` (rate in
  bytes/s);
- messages: `gap` (not sent), `duplicate`, `reorder` (sent after the next one of its channel), `truncate` (cut off), `malformed`
  (how=json|utf8|frame);
- the venue's own: `refuse` (the next `count` subscribe requests of each client), `rate_limit`, `maintenance`, `vanish`
  (underlying, expiry=N-th from the nearest);
- the market: `crossed`, `locked`, `spike` (underlying, expiry, p = share of the two-sided options, size);
- the client's: `clock_jump` (by), `suspend`; `FaultyClock` follows them, and a full disk is `FullDisk`.

`server.inject(script)` of an `ExchangeServer` lets them happen from then on, by a `FaultRun`. A server of recorded messages can
use its wires alone: `run = FaultRun(script, start_ns=now)`, `wire = run.open(now)`, then every tick `wire.send(now, payloads)`,
`wire.cut(now)` and `wire.is_silent(now)`. All draws come from the seed. `run.log` has every fault with its time, and which prices
were false when.
"""

from __future__ import annotations

from volsurf.sim._faults_client import FaultyClock, FullDisk
from volsurf.sim._faults_kinds import CHANNELS, CLIENT_KINDS, KINDS, Fault
from volsurf.sim._faults_log import FalsePrice, FaultLog, Injected
from volsurf.sim._faults_run import FaultRun
from volsurf.sim._faults_script import FaultScript
from volsurf.sim._faults_wire import Cut, FaultyWire, Unframed, channel_of

__all__ = [
    "CHANNELS",
    "CLIENT_KINDS",
    "KINDS",
    "Cut",
    "FalsePrice",
    "Fault",
    "FaultLog",
    "FaultRun",
    "FaultScript",
    "FaultyClock",
    "FaultyWire",
    "FullDisk",
    "Injected",
    "Unframed",
    "channel_of",
]
