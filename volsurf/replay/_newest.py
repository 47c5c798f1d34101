"""Which of many messages are still to be received when only the last of each name counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volsurf._jit import kernel

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

LONGEST_NAME = 96
"""Longer names are never replaced: no venue's are."""
_RECEIVED = 3
_QUOTE = 0x22
_ZERO, _NINE = 0x30, 0x39
_TEXT = "Array(uint8, 1, 'C', readonly=True)"


@kernel(
    f"void({_TEXT}, uint8[::1], int64[::1], int64[::1], int64[::1], {_TEXT}, {_TEXT}, int64, int64, int64[::1], "
    "uint8[:, ::1], int64[:, ::1], uint64[::1], int64[::1], int64[::1], boolean[::1])",
    group="replay",
)
def mark_replaced(
    raw: Bytes,
    kind: Bytes,
    start: Ints,
    length: Ints,
    connection: Ints,
    prefix: Bytes,
    mark: Bytes,
    mark_at: int,
    number_at: int,
    slots: Ints,
    names: npt.NDArray[np.uint8],
    owners: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.uint64],
    last_kept: Ints,
    counts: Ints,
    keep: npt.NDArray[np.bool_],
) -> None:
    """Set `keep` to False for the messages that a later one replaces, from the last to the first.

    Names are compared byte for byte; the hash only says where to look. Of the replaced messages of a connection the last one
    before each call of a timer is kept all the same, so that a timer finds that something was heard when it was.

    Args:
        raw: holds the messages. kind, start, length, connection: of each record, shape (n,); all but RECEIVED are timers.
        prefix, mark, mark_at, number_at: a `Replaceable`'s; `number_at` below 0 for none.
        slots: hash table of name numbers, a power of two long, -1 where empty. names: by number, shape (m, LONGEST_NAME).
        owners: connection and length of each name, shape (m, 2). numbers: of its oldest message that is kept, shape (m,).
        last_kept: by connection, before which timer a message was kept. counts: names, and timers, so far.
    """
    most = len(names)
    for i in range(len(start) - 1, -1, -1):
        if kind[i] != _RECEIVED:
            counts[1] += 1
            continue
        begin, end = start[i], start[i] + length[i]
        first = begin + len(prefix)
        if first >= end:
            continue
        same = True
        for j in range(len(prefix)):
            if raw[begin + j] != prefix[j]:
                same = False
                break
        if not same:
            continue
        digest = np.uint64(14695981039346656037) ^ np.uint64(connection[i])
        at = first
        while at < end and raw[at] != _QUOTE:
            digest = (digest ^ np.uint64(raw[at])) * np.uint64(1099511628211)
            at += 1
        name = at - first
        if at >= end or at + mark_at + len(mark) > end or name > LONGEST_NAME:
            continue
        for j in range(len(mark)):
            if raw[at + mark_at + j] != mark[j]:
                same = False
                break
        if not same:
            continue
        number = np.uint64(0)
        if number_at >= 0:
            j = at + number_at
            while j < end and _ZERO <= raw[j] <= _NINE:
                number = number * np.uint64(10) + np.uint64(raw[j] - _ZERO)
                j += 1
        slot = np.int64((digest ^ (digest >> np.uint64(32))) & np.uint64(len(slots) - 1))
        while True:
            k = slots[slot]
            if k < 0:
                if counts[0] < most:
                    k = counts[0]
                    counts[0] += 1
                    slots[slot] = k
                    owners[k, 0], owners[k, 1], numbers[k] = connection[i], name, number
                    for j in range(name):
                        names[k, j] = raw[first + j]
                break
            same = owners[k, 0] == connection[i] and owners[k, 1] == name
            if same:
                for j in range(name):
                    if names[k, j] != raw[first + j]:
                        same = False
                        break
            if same:
                if number > numbers[k]:
                    # It came first and is newer: the venue keeps it and finds the later one late.
                    numbers[k] = number
                elif last_kept[connection[i]] == counts[1]:
                    keep[i] = False
                    break
                break
            slot = (slot + 1) & (len(slots) - 1)
        if keep[i]:
            last_kept[connection[i]] = counts[1]
