"""Playing captures: the recorded engine's frames again, frames on a clock of one's own, and a server in the venue's stead.

| file | what it does |
| --- | --- |
| `replay.py` | `vs.replay`, the iterator of frames |
| `exact.py`, `driver.py` | entry by entry what the engine did, every batch and frame compared with what was recorded |
| `clocked.py`, `player.py`, `feed.py` | every feed played up to each tick of a clock, as fast as its venue can be told |
| `columnar.py` | the same from exported Parquet |
| `cryptofeed.py`, `foreign.py` | raw captures of another program |
| `server.py`, `_dialect_*.py` | a recording served in its venue's own protocol |
| `rehearsal.py`, `_hand.py` | captures made from the simulators without sockets or waiting, for tests, benchmarks and `data/` |

**Why the fast way is exact too.** Quotes are last values, so what a frame sees does not depend on how often a feed was collected
before it: a frame a second takes one collection a second, and of the tickers of an instrument only the last is ever decoded, or
even handed to its venue (`_newest.py`). What is not quotes (books, trades, listings, answers, timers) is played record by record.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Replay(ModuleType):
    # `vs.replay(…)` is the public name of a function and `volsurf.replay` that of its package, whichever is loaded first.
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Play a capture: `volsurf.replay.replay.replay` with the same arguments."""
        from volsurf.replay.replay import replay

        return replay(*arguments, **options)


sys.modules[__name__].__class__ = _Replay
