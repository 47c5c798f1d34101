"""Figures beside their bars: the rows that the acceptance commands print."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """One figure. A bar of NaN makes it information only."""

    name: str
    """Of the criterion: "R2", "A1", …"""
    what: str
    measured: float
    sense: str = ">="
    """">=", "<=" or "==": how a figure that holds stands to its bar."""
    bar: float = math.nan

    @property
    def holds(self) -> bool | None:
        """Whether the figure meets its bar; None where it has none. A figure that is NaN meets no bar."""
        if math.isnan(self.bar):
            return None
        if self.sense == "==":
            return self.measured == self.bar
        return self.measured >= self.bar if self.sense == ">=" else self.measured <= self.bar


def print_rows(rows: Iterable[Row]) -> list[Row]:
    """Print the rows as a table and return those that miss their bar."""
    missed = []
    print(f"{'':4} {'':76} {'measured':>11} {'bar':>12}")
    for row in rows:
        limit = "" if row.holds is None else f"{row.sense} {row.bar:.6g}"
        verdict = {True: "ok", False: "MISSED", None: ""}[row.holds]
        print(f"{row.name:4} {row.what:76} {row.measured:11.5g} {limit:>12}  {verdict}", flush=True)
        if row.holds is False:
            missed.append(row)
    return missed
