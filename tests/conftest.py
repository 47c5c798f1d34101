"""What every test may use: the folder of validation data, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# One thread per numerical library: two test processes on two cores otherwise fight over them.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# A property is searched anew on every run at a desk; a change is judged on the same examples each time.
settings.register_profile("volsurf", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("volsurf")


def shared_path(*parts: str) -> Path:
    """Path of a file of the validation data that lies beside the project; skips the test where it is absent."""
    base = Path(os.environ.get("VOLSURF_SHARED", ROOT.parent / "shared"))
    path = base.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"validation data not here: {path} (set VOLSURF_SHARED to its folder)")
    return path


_PACED = (
    "tests/browser",
    "tests/dashboard",
    "tests/notebooks",
    "tests/test_cli.py",
    "tests/engine/test_live.py",
    "tests/engine/test_shared.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what has processes of its own and keeps real time: such a test must not share two cores with others."""
    for item in items:
        if any(item.path.is_relative_to(ROOT / place) for place in _PACED):
            item.add_marker("paced")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of validation data; skips where it is absent."""
    return shared_path()
