"""What tests are made of: plain functions and dataclasses, one for each kind of thing. Fixtures only name them."""

from __future__ import annotations

from builders.commands import run_script

__all__ = ["run_script"]
