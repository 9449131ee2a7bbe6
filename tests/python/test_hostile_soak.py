"""A minute of what `soak_hostile.py` does for an hour."""

import os

from hostile_requests import KINDS
from soak_hostile import soak

SECONDS = float(os.environ.get("BACKSTOP_SOAK_S", "45"))
MEMORY_BYTES_MAX = 4 << 30


def test_hostile_requests_of_one_key_cost_another_nothing() -> None:
    report = soak(SECONDS, None, 20_261_130, list(KINDS))
    assert report["server_alive"], report
    assert report["unexpected"] == [], report
    assert report["failed streams"] == [], report
    assert report["another key's stream of 32 tokens"]["count"] > 0, report
    assert report["peak_resident_mib"] << 20 < MEMORY_BYTES_MAX, report
