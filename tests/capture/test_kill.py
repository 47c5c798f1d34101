"""`kill -9` under load; `python -m tests.bench.kill_capture` does it a hundred times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.kill_capture import kill_once


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.9])
def test_a_killed_recording_is_whole_but_for_its_last_second(tmp_path: Path, seconds: float) -> None:
    kill = kill_once(tmp_path, seconds)
    assert kill.clean, kill.said
    assert kill.lost_ms <= 1000.0
    assert "its process was ended while it wrote" in kill.said or kill.messages == 0
