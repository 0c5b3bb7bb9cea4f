"""Text that came from a file: a terminal must show it, and never take it for a command."""

from __future__ import annotations


def escape_controls(text: str) -> str:
    """*text* with each character that is not printable, but for line ends, as its escape.

    Names in a store or a session file may hold anything: some characters are commands to a
    terminal, or reverse the line.
    """
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def escape_line(text: str) -> str:
    """*text* on one line: line ends as escapes too."""
    return escape_controls(text).replace("\n", "\\n")
