"""What tests of these folders share: nothing waits for the disk."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _without_fsync(monkeypatch):
    """Flushing is 85 % of a small conversion (0.23 s, 0.04 s without). Child processes of these tests do flush."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
