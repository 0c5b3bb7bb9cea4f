"""Words of strangers on a terminal."""

from __future__ import annotations

import pytest

from nsd_zarr.words import escape_controls, escape_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, äöü, 脳, (1, 2)\n", "plain, äöü, 脳, (1, 2)\n"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\tc\0", "a\\rb\\tc\\x00"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\udcff of a file name", "\\udcff of a file name"),
    ],
)
def test_what_is_not_printable_is_shown_as_its_escape(text, shown):
    assert escape_controls(text) == shown


def test_line_stays_one_line():
    assert escape_line("one\ntwo\x1b") == "one\\ntwo\\x1b"
