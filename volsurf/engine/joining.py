"""How a session comes to a shared engine: find it by name, start it where there is none, and be counted before it can leave."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from volsurf.capture.directory import make_options
from volsurf.engine import rendezvous, shared
from volsurf.engine.rendezvous import EngineRecord, SurfaceRules
from volsurf.engine.session import Session, shared_lock, shared_sessions
from volsurf.engine.wanted import base_currencies, check_wanted
from volsurf.errors import EngineError

_LOCK_SECONDS = 30.0
_JOIN_SECONDS = 10.0


def join(
    venues: str | Sequence[str],
    underlyings: Sequence[str],
    *,
    url: str | dict[str, str] | None,
    name: str,
    every: float,
    idle_seconds: float | None,
    rules: SurfaceRules,
    capture: str | os.PathLike[str] | None = None,
    capture_options: Mapping[str, Any] | None = None,
) -> Session:
    """What `volsurf.live` does; its arguments are explained there."""
    wanted_venues = (venues,) if isinstance(venues, str) else tuple(venues)
    wanted = (underlyings,) if isinstance(underlyings, str) else tuple(underlyings)
    check_wanted(wanted_venues, wanted)
    rendezvous.check_name(name)
    # The engine is another process, and may outlive this one's directory.
    at = None if capture is None else str(Path(capture).expanduser().absolute())
    if at is not None:
        make_options(dict(capture_options or {}))
    idle = shared.idle_seconds() if idle_seconds is None else float(idle_seconds)
    with rendezvous.exclusive(name, _LOCK_SECONDS):
        record = rendezvous.find(name)
        if record is None:
            record = shared.start(
                name,
                wanted_venues,
                wanted,
                url=url,
                every=every,
                idle=idle,
                rules=rules,
                capture=at,
                capture_options=dict(capture_options or {}),
            )
        elif record.venues != wanted_venues or record.url != url or not set(wanted) <= set(record.underlyings):
            raise EngineError(_is_another(name, record, _what_it_follows(record)))
        elif not record.rules.suit(rules):
            raise EngineError(_is_another(name, record, _its_rules(record)))
        elif at not in (None, record.capture, record.capture_path):
            raise EngineError(_is_another(name, record, _its_capture(record)))
        return _session(name, record, base_currencies(wanted))


def _session(name: str, record: EngineRecord, underlyings: tuple[str, ...]) -> Session:
    with shared_lock:
        known = shared_sessions.get(name)
    if known is not None and known.is_alive and known.underlyings == underlyings:
        # Its engine may be another one by now; whoever holds it, a widget say, goes on with that.
        session = known
        session.try_now()
    else:
        if known is not None:
            known.stop()
        session = Session(record.stream_url, underlyings=underlyings, engine_name=name)
    # Joined while nobody may end the engine: one that was about to leave now sees a client.
    deadline = time.monotonic() + _JOIN_SECONDS
    while not (session.connected and session.url == record.stream_url):
        if time.monotonic() > deadline:
            why = session.status
            session.stop()
            raise EngineError(f"engine {name!r} does not answer: {why}")
        time.sleep(0.01)
    with shared_lock:
        shared_sessions[name] = session
    return session


def _is_another(name: str, record: EngineRecord, what: str) -> str:
    return (
        f"engine {name!r} {what}: give this one another name=, or end that one: vs.attach({record.stream_url!r}) sees it, "
        "its session's stop(engine=True) ends it"
    )


def _what_it_follows(record: EngineRecord) -> str:
    where = f" at {record.url}" if record.url else ""
    return f"follows {', '.join(record.underlyings)} of {', '.join(record.venues)}{where}"


def _its_capture(record: EngineRecord) -> str:
    return "records nothing" if record.capture_path is None else f"records in {record.capture_path!r}"


def _its_rules(record: EngineRecord) -> str:
    seconds = record.rules.smoothing_seconds
    smoothing = "the default" if seconds is None else f"{seconds:g}"
    return f"has smoothing_seconds={smoothing} and enforce={record.rules.enforce}"
