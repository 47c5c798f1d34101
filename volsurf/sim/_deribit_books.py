"""A change of a side of a book in Deribit's words."""

from __future__ import annotations


def changes(old: dict[float, float], new: dict[float, float]) -> list[tuple[str, float, float]]:
    """What turns one side into another, as Deribit says it: `[action, price, amount]`, a delete with amount 0."""
    out = [("delete", price, 0.0) for price in old if price not in new]
    for price, amount in new.items():
        if price not in old:
            out.append(("new", price, amount))
        elif old[price] != amount:
            out.append(("change", price, amount))
    return out
