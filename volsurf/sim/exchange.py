"""What every simulated exchange is, without its sockets, and how a venue plugs into the server that gives it some.

A venue consists of

- an `Exchange`: one market (shared with other venues, if you like), one book of listings, and the feeds clients listen to.
  The server calls `advance(now)` every `tick_ns`; it moves the market to `market_ns(now)` (ask `move_market(now)` whether there
  is anything new, never `market.advance` alone: another venue of the same market may have walked it already), lists,
  retires, quotes, and puts payloads into the outboxes of the sessions concerned;
- a `Session` for each client: `receive(data, now)` takes a message, `timer(now)` runs at every tick, `data_to_send()` hands over
  the payloads queued since the last call, `closing` says with which code the venue hangs up;
- a `Simulated…` class: an `ExchangeServer` (`volsurf.sim.server`) over that exchange, with the venue's options, e.g.

      class SimulatedOkx(ExchangeServer):
          def __init__(self, market, *, host="127.0.0.1", port=0, clock=real_clock, **options):
              super().__init__(OkxExchange(market, origin_ns=clock(), **options), host=host, port=port, clock=clock)

Both are free of I/O, clock and threads, so that a test drives them by hand: `session = exchange.open_session(now, path)`, then
`session.receive(…)`, `exchange.advance(now)`, `session.timer(now)`, `session.data_to_send()`.

Endpoints. `path` is what the server's `url` ends with (what clients give as the venue's `url`; "" if that is the base address).
A venue with several endpoints overrides `accepts(path)` (without query) and finds path and query in `open_session(now, path)`:
`/v5/public/option`, `/market/stream?streams=a/b`. REST pages are `http(path, query, now)`: `(status, body)` or `(status, body,
headers)`; end it with `return super().http(path, query, now)`, which serves /truth. GET only.

Pings. A venue that sends websocket pings returns their payloads from `Session.control_pings(now)` (asked at every tick, after
`timer`) and is told of every pong by `receive_pong(payload, now)`, solicited or not. Pings of clients are answered by the server.
Text pings ("ping", `{"op":"ping"}`, test requests) are ordinary messages.

Faults. Faults of the wire (cut, silence, loss, disorder, …) are done to the payloads and need nothing of a venue. Faults in the
venue's own words do, and are scripted through these hooks:

- `Session.refuse_next(what, count)`: the next requests are refused; `what` is one of `REFUSALS`. The base class counts;
  the venue asks `self.is_refused("subscribe")` where it handles a subscription and `self.is_refused("rate_limit")` where it
  charges for a request, and if so answers as it would (Deribit 10028, OKX 50011/60014, Bybit 10006, Binance 429/code 3 or a
  close). Call `super().__init__()`.
- `Exchange.begin_maintenance(now, seconds)`: from here on the server cuts every client with `maintenance_close`, refuses new ones
  with `maintenance_answer`, and answers REST pages with the same, until the time is over. Override it to announce: call
  `super()`, then queue what the venue says beforehand (Deribit `platform_state`, OKX notice 64008, …); what is queued goes out
  before the close frame. `end_maintenance()` ends it early.
- `Exchange.vanish(underlying, expiry_ns)`: the expiry leaves the listing, its quotes and its channels, without a word. The base
  class retires the rows of `self.quotes.universe` and tells `self.listing` (a `Listing`) to forget the expiry; override
  `unlist(rows)` to end the channels. What is not active must not be in what clients discover.
- Crossed books, locked books and spikes are put on the rows of `self.quotes` (a `QuoteModel`), which every venue has.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.sim._wire import text_frame
from volsurf.sim.market import CURRENCIES, Market

if TYPE_CHECKING:
    from volsurf.sim.listing import Listing
    from volsurf.sim.profiles import VenueProfile
    from volsurf.sim.quoting import QuoteModel

Clock = Callable[[], int]
"""Returns nanoseconds UTC."""
HttpAnswer = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]
"""Status, JSON body and what headers there are besides."""

BURST_BYTES = 256 * 1024
"""Size of one write of a burst: about what a loopback socket takes without being waited for."""
REFUSALS = ("subscribe", "rate_limit")
"""What `Session.refuse_next` knows."""

__all__ = ["BURST_BYTES", "REFUSALS", "Clock", "Exchange", "HttpAnswer", "Session", "real_clock", "text_frame"]


def real_clock() -> int:
    """Wall clock, ns UTC."""
    return time.time_ns()


class Session(ABC):
    """One client of one exchange, without its socket. Times are ns of the shell's real clock."""

    def __init__(self) -> None:
        self._refusals: Counter[str] = Counter()
        self.on_refused: Callable[[str], None] | None = None
        """Told when a request was refused on purpose, and as what."""

    @abstractmethod
    def receive(self, data: str | bytes, now: int) -> None:
        """Take one message of the client."""

    @abstractmethod
    def timer(self, now: int) -> None:
        """Called at least at every tick: heartbeats, deadlines."""

    @abstractmethod
    def data_to_send(self) -> list[bytes]:
        """Payloads of text messages to send, in order."""

    @property
    @abstractmethod
    def closing(self) -> tuple[int, str] | None:
        """Close code and reason once the venue has had enough of this client."""

    @abstractmethod
    def closed(self) -> None:
        """The socket is gone."""

    def control_pings(self, now: int) -> list[bytes]:
        """Payloads of the websocket pings to send now; asked at every tick."""
        del now
        return []

    def receive_pong(self, payload: bytes, now: int) -> None:
        """A websocket pong came, asked for or not."""
        del payload, now

    def refuse_next(self, what: str, count: int = 1) -> None:
        """Let the venue refuse the next requests of a kind of `REFUSALS`, in its own words."""
        if what not in REFUSALS:
            raise ValueError(f"a request can be refused as {REFUSALS}, was {what!r}")
        self._refusals[what] += count

    def is_refused(self, what: str) -> bool:
        """Whether this request is one of those to refuse; it then counts as refused."""
        if not self._refusals[what]:
            return False
        self._refusals[what] -= 1
        if self.on_refused is not None:
            self.on_refused(what)
        return True

    def burst(self, messages: int, now: int) -> tuple[bytes, int]:
        """Framed market data with live stamps, up to so many messages, as cheaply as can be; and how many they are."""
        del messages, now
        return b"", 0

    @property
    def burst_bytes(self) -> int:
        """Mean size of one message of a burst; 0 while there is nothing to send."""
        return 0


class Exchange(ABC):
    """One simulated venue, without its sockets.

    Args:
        market: the truth it quotes; venues may share one.
        origin_ns: real time at which the venue's clock stands at `market.start_ns`.
        time_scale: market seconds per real second.
    """

    path: str
    """What the server's url ends with."""
    listing: Listing
    """What it lists."""
    quotes: QuoteModel
    """The venue's own books, over `listing.universe`."""
    profile: VenueProfile | None = None
    """How it differs from the others of the market; the server takes the latency from it."""
    tick_ns: int = 100_000_000
    max_connections: int = 32
    too_many_connections: HttpAnswer = (HTTPStatus.TOO_MANY_REQUESTS, b"too many connections")
    too_slow = (1008, "connection_too_slow")
    maintenance_close = (1001, "maintenance")
    maintenance_answer: HttpAnswer = (HTTPStatus.SERVICE_UNAVAILABLE, b"maintenance")

    def __init__(self, market: Market, *, origin_ns: int, time_scale: float = 1.0) -> None:
        self.market = market
        self.counters: Counter[str] = Counter()
        self._origin_ns, self._scale = origin_ns, time_scale
        self._seen_steps = market.steps
        self._maintenance_until = 0

    def accepts(self, path: str) -> bool:
        """Whether a path, without its query, is one of the websocket endpoints."""
        return path == self.path

    @abstractmethod
    def open_session(self, now: int, path: str = "") -> Session:
        """A client connected to a path, with its query; "" is the venue's first endpoint."""

    @abstractmethod
    def advance(self, now: int) -> None:
        """Move the market to `now` and put what changed into the sessions' outboxes."""

    @abstractmethod
    def chain(self, underlying: str) -> Mapping[int, npt.ArrayLike]:
        """Listed strikes of every expiry, `{expiry_ns: strikes}`."""

    def http(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        """Answer of a page, or None where there is none. Here: `/truth?underlying=BTC&currency=USDT`, the true surfaces."""
        del now
        return self._truth_page(query) if path == "/truth" else None

    def market_ns(self, now: int) -> int:
        """The venue's time at a moment of the real clock."""
        return self.market.start_ns + int((now - self._origin_ns) * self._scale)

    def move_market(self, now: int) -> bool:
        """Walk the market to `now`; whether it stands at another step than when this venue looked last."""
        self.market.advance(self.market_ns(now))
        moved = self.market.steps != self._seen_steps
        self._seen_steps = self.market.steps
        return moved

    def begin_maintenance(self, now: int, seconds: float) -> None:
        """Close for a while: the server cuts and refuses until then."""
        self._maintenance_until = now + int(seconds * 1e9)
        self.counters["maintenances"] += 1

    def end_maintenance(self) -> None:
        """Open again."""
        self._maintenance_until = 0

    def in_maintenance(self, now: int) -> bool:
        """Whether it is closed."""
        return now < self._maintenance_until

    def vanish(self, underlying: str, expiry_ns: int) -> list[int]:
        """Take an expiry off the listing without a word; returns the rows that were listed."""
        universe = self.quotes.universe
        names = np.array(universe.underlyings)
        gone = universe.active & (universe.expiry_ns == expiry_ns) & (names[universe.underlying_id] == underlying)
        rows: list[int] = np.flatnonzero(gone).tolist()
        self.listing.forget(underlying, expiry_ns)
        if rows:
            universe.retire(np.array(rows, np.int32))
            self.unlist(rows)
            self.counters["vanished"] += len(rows)
        return rows

    def unlist(self, rows: list[int]) -> None:
        """Forget the channels of rows that are no longer listed, and say nothing."""
        del rows

    def _truth_page(self, query: dict[str, str]) -> HttpAnswer:
        market = self.market
        wanted = query.get("underlying")
        names = [wanted.partition("_")[0]] if wanted else list(market.underlyings)
        if unknown := [n for n in names if n not in market.underlyings]:
            return 404, msgspec.json.encode({"error": f"no underlying {unknown[0]}; {list(market.underlyings)}"})
        currency = query.get("currency", "USD")
        if currency not in CURRENCIES:
            return 404, msgspec.json.encode({"error": f"no currency {currency}; {list(CURRENCIES)}"})
        surfaces = {
            name: {"spot": market.spot(name, currency), "slices": market.truth(name, self.chain(name), currency)}
            for name in names
        }
        page = {"model": market.model, "seed": market.seed, "time_ns": market.now_ns, "underlyings": surfaces}
        page["rates"] = {name: market.rate(name) for name in CURRENCIES}
        return 200, msgspec.json.encode(page)
