"""A small synthetic order book under each simulated top of book."""

from __future__ import annotations

from dataclasses import dataclass

from volsurf.instruments import Instrument
from volsurf.sim.quoting import QuoteModel

_LEVELS = 8


@dataclass(frozen=True, slots=True)
class Ladder:
    """Levels of both sides, best first, `{price: amount}`, and the number of the change that led here."""

    change_id: int
    bids: dict[float, float]
    asks: dict[float, float]


def ladder(quotes: QuoteModel, row: int, change_id: int) -> Ladder:
    """The book of a row: its best quotes, and resting orders behind them that stay at their price while the top moves."""
    instrument = quotes.universe[row]
    return Ladder(
        change_id,
        _side(instrument, row, float(quotes.bid[row]), float(quotes.bid_size[row]), -1),
        _side(instrument, row, float(quotes.ask[row]), float(quotes.ask_size[row]), +1),
    )


def changes(old: dict[float, float], new: dict[float, float]) -> list[tuple[str, float, float]]:
    """What turns one side into another, as Deribit says it: `[action, price, amount]`, a delete with amount 0."""
    out = [("delete", price, 0.0) for price in old if price not in new]
    for price, amount in new.items():
        if price not in old:
            out.append(("new", price, amount))
        elif old[price] != amount:
            out.append(("change", price, amount))
    return out


def _side(instrument: Instrument, row: int, best: float, size: float, direction: int) -> dict[float, float]:
    if best != best:
        return {}
    levels = {best: size}
    price = best
    for _ in range(4 * _LEVELS):
        price = round(price + direction * instrument.tick_at(price if direction > 0 else price - 1e-9), 10)
        if price <= 0 or len(levels) == _LEVELS:
            break
        # Whether and how much rests at a price is a hash of the price, so that it does not change when the top does.
        mixed = (round(price / instrument.tick_size) * 7919 + row * 104_729) % 991
        if mixed % 3:
            levels[price] = round((1 + mixed) * 0.1 * instrument.contract_size, 4)
    return levels
