"""Live market data: one sans-I/O protocol per venue, and the shells that connect, merge, record and replay them.

A `Venue` (`protocol.py`) takes bytes and clock readings and gives events, messages to send and, once a tick, one
`QuoteBatch`. `Connection` puts a socket and HTTP under it, `VenueFeed` makes several of them one feed, `Feed` is one to
hold in a cell.


Adding a venue
==============

What is needed first, from the venue's documentation and from captured frames; where the two differ, believe the frames and
write down which is which:

- names: a grammar of options, futures, perpetuals, indexes that matches those and nothing else (combos!); expiry day *and
  hour*;
- listings: which request or channel names everything there is, with strike, type, expiry, tick, contract size; what tells
  of new listings and expiries; how stale an answer may be;
- units: in what a premium is paid and quoted, of how many coins a contract is, percent or fraction, seconds or
  milliseconds, numbers or strings; what stands for "no quote" (`""`, `0`, `-1`, a missing key, `null`), on each field;
- channels: their names, when they send, whether a message is whole or a change, what must be merged; limits on channels,
  length and rate of requests; how an unknown channel is answered (an error, left out of a list, a success with an error
  inside, nothing);
- books: what links a change to the one before it, how a snapshot is had, whether deleting an unknown level is normal;
- the forward of each expiry: told, or to be made from the index and a rate, or inferred from parity downstream;
- life of a connection: heartbeats and who sends them, silence after which it is dead, hours after which it is cut, notices;
- what is unknown. Choose so that a wrong guess shows up as an event, never as a wrong price.

Steps, in this order, each with its tests; the files of a venue called `x`:

1. `_x_names.py`: `parse_symbol(name)` and which families an underlying stands for. Test every listed name there is a sample
   of.
2. `_x_messages.py`: the fields read, as `msgspec` structs (every other key is skipped unread), decoders, constants of
   bytes. Numbers that may be null or missing have a default that says so. Name each oddity where its field is.
3. `_x_listing.py`: from a listing to `Instrument`s, checked against the name, in the units of `instruments.py`.
4. `_x_values.py`, `_x_books.py`, …: what the pushes become. One file per thing that can be wrong by itself.
5. `x.py`: the class, some 300 lines, that puts them together; `PRODUCTION` and test addresses; `make(underlyings, *,
   url=None, shards=1, **options)` that returns its connections: as many as the venue's own limits ask for, at least
   `shards`.
6. `registry.VENUES` gets the name. Nothing else in the package knows that the venue exists.
7. `sim/x.py`: the venue's own protocol over the simulated market, so that everything downstream can be tested on it.
8. Golden frames of our own for every rule found in the first part, a fuzz corpus from them, and the conformance card.

Each method of `Venue`, and what it must do beyond its docstring:

- `__init__`: check arguments (`ConfigError` names the value and what would do), open nothing, keep the arguments for
  `twin()`. Options every venue takes: `books`, `trades`, `shard=(i, n)`, `url`, and `rest_url` where it makes HTTP
  requests.
- `connected`: forget everything about the old socket; what is *listed* is kept, so ids and quotes' rows stay. Ask for
  listings.
- `receive`: never raise, whatever comes; count it as `malformed.<cause>` and go on. One that nobody looks at before the
  next one comes should not have been decoded: store tickers as bytes by channel and decode in `take_quotes` (1 µs a message
  is the aim). What must be merged is kept in order instead. Answer heartbeats from here, through `data_to_send`, ahead of
  everything.
- `timer`: everything that waits for time. It is called at least once a second; a longer gap is a suspended process.
- `disconnected`: clear what was quoted (one row per instrument that showed a price), count as down until `connected`.
- `take_quotes`: one batch of what changed. NaN is an empty side. Sizes are in coins, prices in the premium's unit per coin.
- `events`: listings as `InstrumentEvent`, trades and book changes whole and in order, everything that happened as
  `HealthEvent` with a sentence that a person can act on. A book with a hole in it is told as `book.lost_book(id)` at once
  and asked for again; a venue's own gap rule is the venue's to apply.
- `is_ready`: every channel wanted is acknowledged, or refused by name in a `REFUSED` event. `failure`: only what a new
  socket mends. `fatal`: only where nothing asked for is listed although the venue lists other things.
- `trouble`, `silences`: what is wrong or overdue now. Expect something (`Watch.expect`) on every channel that must not fall
  silent; after a multiple of that silence on a link that answers, `failure`: the subscription is gone.
- `takeover`: a reason some minutes before the venue cuts by its own rule, and on its notice. `twin`: the same arguments,
  nothing heard.
- `resume`: as if it were connected and subscribed to these instruments, asking for nothing: a capture is played from its
  middle.
- `http_requests`, `receive_http`: status 0 is no answer. Pace them here; nobody else does. The keys are yours.
- `greeks`, `restart_book`: where the venue has them.

The contract that makes a replay possible: no clock, no random number, no I/O, no module-level state; the same calls with
the same arguments give the same batches, bit for bit; only `take_quotes` may put work off, so reading any property,
`counters` and `events()` included, changes nothing that it returns. Iterate over sets only where the order cannot be seen.

Parts of the skeleton; use them, and where one does not fit, mend it for all:

- `_watch.Watch`: the clock as elapsed time that survives steps, expectations and silences, clock skew, malformed floods as
  one event a second, a bounded list of events.
- `_lanes.Lane`: a rate limit with a line of those who wait.
- `_catalogue.Catalogue`: symbol → id, listings complete and partial, expiries, which shard a symbol belongs to.
- `_pending.Pending`: quotes, marks, forwards, indexes merged by instrument until the tick; or whole columns at once
  (`add`).
- `_wire`: times, causes of malformed messages, names in a sentence. `book.OrderBook`, `books.BookTable`: the books
  themselves; a venue only says in its events what follows what.

What the conformance card asks of every venue, simulated or scripted, with exceptions stated by the venue that has them:

 1. Discovery finds every listed option, future, perpetual and index of what was asked for, with strike, expiry, type,
    settlement, quote currency, tick and contract size right, and nothing else.
 2. Requests keep within the venue's limits of number, length and rate; shards share them and the instruments without
    overlap.
 3. Every channel wanted is acknowledged, or refused and named; READY comes once.
 4. Prices, sizes, vols, forwards, indexes on the board equal the simulator's truth in the units above.
 5. Each sentinel for "no quote" is NaN, on each side by itself; a one-sided and an empty book are seen as such.
 6. Broken, truncated, reordered, repeated, unknown messages: counted, told, nothing raised, nothing wrong shown.
 7. Heartbeats are answered while a flood is read; silence of a channel is STALE, then RECOVERED or a failure; half-open
    links end.
 8. A disconnect clears what was quoted and nothing else; the next socket finds everything again, ids unchanged.
 9. Listings and expiries during the session: added, retired, unsubscribed, quotes cleared; an expiry that vanishes is
    noticed.
10. Books: snapshot, changes, the gap rule, resync within a second; crossed and locked books are handed on and counted.
11. Trades come once each, with side, price and size in the units above.
12. Rate-limit errors, refused subscriptions, maintenance: told, waited out as the venue says, recovered from.
13. Steps of the local clock and a suspended process: told, no false expiry, no wrong retirement.
14. Where connections have a limited life: a takeover without a cleared quote. Otherwise `takeover` stays "".
15. The same calls give the same bytes; reading properties in between changes nothing; `resume` goes on as if it had been
    there.
16. An underlying that is not listed is refused with the names of what is; `fatal` only where nothing is left.
"""
