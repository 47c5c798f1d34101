"""The conformance card: what `volsurf.feeds` asks of every venue, as one list of cases over all of them.

    python -m tests.feeds.conformance [--venue okx] [--case 10]

prints it. The numbers are those of the list in `volsurf.feeds`; each case is a function of a venue's `Facts` that makes a
`World`: the venue's connections and its simulated exchange in memory, under one clock. What a case does not ask of a venue
stands in `EXCEPTIONS` with the reason.
"""
