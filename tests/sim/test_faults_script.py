"""Scripts of faults: what can be written, what is drawn, and what the errors say."""

from __future__ import annotations

import math

import pytest

from volsurf.errors import ConfigError
from volsurf.sim.faults import KINDS, Fault, FaultScript

SECOND = 1_000_000_000


def only(text: str) -> Fault:
    (fault,) = FaultScript.parse(text)
    return fault


def test_an_entry_says_what_when_and_for_how_long() -> None:
    fault = only("at 12s for 3s gap channel=book p=0.2")
    assert (fault.kind, fault.at_ns, fault.for_ns) == ("gap", 12 * SECOND, 3 * SECOND)
    assert (fault.options["channel"], fault.options["p"], fault.options["count"]) == ("book", 0.2, 0)
    assert fault.end_ns == 15 * SECOND


def test_entries_are_separated_by_lines_and_semicolons_and_comments_are_none() -> None:
    script = FaultScript.parse(
        """
        at 1s disconnect how=abort; at 2s disconnect reason="see you"  # twice
        # nothing here
        at 1500ms every 1m times=3 for 2s silence client=0
        """
    )
    assert [f.kind for f in script] == ["disconnect", "disconnect", "silence"]
    assert script.faults[1].options["reason"] == "see you"
    assert script.end_ns == (1.5 + 120 + 2) * SECOND


def test_toml_says_the_same() -> None:
    table = '[[fault]]\nkind = "gap"\nat = "12s"\nfor = "3s"\nchannel = "book"\np = 0.2\n[[fault]]\nkind="disconnect"\nat="1s"\n'
    assert FaultScript.parse(table) == FaultScript.parse("at 12s for 3s gap channel=book p=0.2; at 1s disconnect")


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_script_is_the_same_for_a_seed_and_can_be_written_and_read(seed: int) -> None:
    script = FaultScript.random(seed, seconds=60.0, faults=30, venues=("deribit", "okx"))
    assert script == FaultScript.random(seed, seconds=60.0, faults=30, venues=("deribit", "okx"))
    assert script != FaultScript.random(seed + 100, seconds=60.0, faults=30, venues=("deribit", "okx"))
    assert FaultScript.parse(str(script)) == script
    assert len(script) == 30
    assert all(f.at_ns >= 6 * SECOND and f.end_ns <= 60 * SECOND for f in script)


def test_a_long_draw_has_every_kind_a_server_does() -> None:
    drawn = {f.kind for f in FaultScript.random(1, faults=400)}
    assert drawn == set(KINDS) - {"clock_jump", "suspend"}
    assert {f.kind for f in FaultScript.random(1, faults=40, kinds=("gap", "slow"))} == {"gap", "slow"}


def test_every_kind_is_written_as_it_is_read() -> None:
    for kind in KINDS:
        fault = only(f"at 250ms for 1m {kind}")
        assert only(str(fault)) == fault
    assert str(only("at 2s clock_jump by=-1500ms")) == "at 2s clock_jump by=-1500ms"


def test_occurrences() -> None:
    fault = only("at 10s every 5s times=2 for 1s gap")
    seconds = {t: fault.occurrence(int(t * SECOND)) for t in (0, 9.9, 10, 10.9, 11, 14.9, 15, 15.9, 16, 20, 100)}
    assert seconds == {0: -1, 9.9: -1, 10: 0, 10.9: 0, 11: -1, 14.9: -1, 15: 1, 15.9: 1, 16: -1, 20: -1, 100: -1}
    for_ever = only("at 10s every 5s for 1s gap")
    assert for_ever.occurrence(1000 * SECOND) == 198
    assert math.isinf(for_ever.end_ns)
    # What lasts no time is due from its moment on, until it is done.
    moment = only("at 10s every 5s times=2 disconnect")
    assert [moment.occurrence(t * SECOND) for t in (9, 10, 14, 15, 99)] == [-1, 0, 0, 1, 1]


def test_a_venue_has_its_own_part_and_the_client_his() -> None:
    script = FaultScript.parse("at 1s disconnect venue=okx; at 2s disconnect; at 3s suspend for 9s")
    assert [f.at_ns // SECOND for f in script.of("okx")] == [1, 2]
    assert [f.at_ns // SECOND for f in script.of("deribit")] == [2]
    assert [f.kind for f in script.of_client] == ["suspend"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("at 12 disconnect", "'at': a duration is written like 250ms, 3s, 2m or 1h, was '12'"),
        ("disconnect", "when? begin with e.g. 'at 12s'"),
        ("at 3s", "no kind; there are disconnect, silence"),
        ("at 3s explode", "there is no fault 'explode'; there are disconnect"),
        ("at 3s silence", "silence lasts: add e.g. 'for 3s'"),
        ("at 3s gap", "for how long? add e.g. 'for 3s', or count=1"),
        ("at 3s for 1s gap p=1.5", "'p' must be a share from 0 to 1, was '1.5'"),
        ("at 3s for 1s gap channel=news", "'channel' must be one of data, book"),
        ("at 3s for 1s gap size=2", "gap takes venue, client, channel, p, count, not 'size'"),
        ("at 3s for 1s suspend size=2", "suspend takes nothing, not 'size'"),
        ("at 3s disconnect code=12", "'code' must be a close code from 1000, was '12'"),
        ("at 3s for", "'for' needs a duration after it"),
        ("at 3s for -1s silence", "'for' must not be negative"),
        ("at 3s disconnect gap", "is it 'disconnect' or 'gap'?"),
        ("at 3s disconnect times=3", "'times' goes with 'every'"),
        ("at 3s every 1s times=x disconnect", "'times' must be a whole number"),
        ("at 3s every 1s for 2s silence", "lasts longer than the 1s after which it comes again"),
        ('at 3s disconnect reason="open', "No closing quotation"),
        ("[[fault]\n[[", "is no TOML"),
        ("[[faults]]\nat='1s'", "has tables [[fault]] and nothing else, was ['faults']"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        FaultScript.parse(text)
    assert complaint in str(error.value)
    if not text.startswith("[["):
        assert "fault 1 (" in str(error.value)


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ConfigError, match=r"was \['suspend'\]"):
        FaultScript.random(1, kinds=("suspend",))
