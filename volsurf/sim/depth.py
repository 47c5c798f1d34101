"""The order book under each simulated top of book: levels a side, and what turns one book into the next.

Venue-neutral. Prices are those of the venue's premium unit and sizes are coins, as in `QuoteModel`; a venue that counts in
contracts divides by `contract_size` where it writes. Resting orders stay at their price while the top moves.
"""

from __future__ import annotations

from dataclasses import dataclass

from volsurf.instruments import Instrument, Kind
from volsurf.sim.quoting import QuoteModel

LEVELS = 8
"""Of a side where no profile says otherwise."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Levels of both sides, best first, `{price: size}`, and the venue's number of the change that led here."""

    change_id: int
    bids: dict[float, float]
    asks: dict[float, float]


def ladder(quotes: QuoteModel, row: int, change_id: int = 0) -> Ladder:
    """The book of a row: its best quotes and the resting orders behind them; an empty side has no levels.

    The first level of each side is the quote itself, also where books are crossed or locked on purpose.
    """
    instrument = quotes.universe[row]
    levels = LEVELS if quotes.profile is None else quotes.profile.levels
    lot = float(quotes.lots[row]) if instrument.kind is Kind.OPTION else 0.1 * instrument.contract_size
    bid, ask = float(quotes.bid[row]), float(quotes.ask[row])
    return Ladder(
        change_id,
        _side(instrument, row, bid, float(quotes.bid_size[row]), -1, lot, levels),
        _side(instrument, row, ask, float(quotes.ask_size[row]), +1, lot, levels),
    )


def updates(old: dict[float, float], new: dict[float, float]) -> list[tuple[float, float]]:
    """What turns one side into another as `(price, size)`, size 0 where a level is gone."""
    gone = [(price, 0.0) for price in old if price not in new]
    return gone + [(price, size) for price, size in new.items() if old.get(price) != size]


def _side(
    instrument: Instrument, row: int, best: float, size: float, direction: int, lot: float, levels: int
) -> dict[float, float]:
    if best != best:
        return {}
    side = {best: size}
    tick, bands = instrument.tick_size, instrument.tick_steps
    # Whether and how much rests at a price is a hash of the price, so that it does not change when the top does.
    number, salt = round(best / tick), row * 104_729
    price = best
    for _ in range(4 * levels):
        if bands:
            price = round(price + direction * instrument.tick_at(price if direction > 0 else price - 1e-9), 10)
            number = round(price / tick)
        else:
            number += direction
        if number <= 0 or len(side) == levels:
            break
        mixed = (number * 7919 + salt) % 991
        if mixed % 3:
            side[price if bands else round(number * tick, 10)] = round((1 + mixed) * lot, 8)
    return side
