"""How Binance's makers quote: present values. The premium is discounted at the carry of its expiry, by index / forward."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray
from volsurf.sim.pricing import implied_v
from volsurf.sim.quoting import Book, QuoteModel


class BinanceQuotes(QuoteModel):
    """Books whose prices, marks included, are the undiscounted ones times `discount()`."""

    def discount(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        """Discount factor of some rows, shape (m,)."""
        spot = {}
        out = np.ones(len(rows))
        for i, row in enumerate(rows.tolist()):
            instrument = self.universe[row]
            pair = instrument.price_index
            if pair not in spot:
                spot[pair] = self.market.spot(instrument.underlying, instrument.quote_currency)
            out[i] = spot[pair]
        return np.asarray(out / self.forward[rows])

    def side_vols(self, rows: npt.NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
        """Implied vols of bid and ask, decimals; NaN for no side and for a price outside its bounds, shape (m,)."""
        k, v = self.k[rows], self.v[rows]
        intrinsic = np.maximum(np.where(self.universe.is_call[rows], -1.0, 1.0) * np.expm1(k), 0.0)
        unit = self.forward[rows] * self.discount(rows)
        vols = []
        for price in (self.bid[rows], self.ask[rows]):
            otm = price / unit - intrinsic
            vols.append(implied_v(k, np.where(np.isfinite(otm), otm, -1.0), v) * self.vol[rows] / v)
        return vols[0], vols[1]

    def _value_options(self, book: Book, rows: npt.NDArray[np.intp]) -> None:
        super()._value_options(book, rows)
        # The makers' spreads stay as wide as those of undiscounted prices.
        self.mark[rows] *= self.market.spot(*book) / self.forward[rows]
