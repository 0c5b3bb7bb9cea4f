"""A short run of servers/kills.py: conversions killed while others wait for their store."""

import pytest

from servers.kills import run_rounds

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]


def test_killed_conversions_and_contenders_leave_the_bytes_of_the_local_store(tmp_path):
    tally = run_rounds(tmp_path, kills=2, contenders=2, seed=3)
    assert tally.failures == []
    assert tally.kills == 2
