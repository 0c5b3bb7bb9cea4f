"""File operations of a command, recorded by strace: what a crash state is made of."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRACED = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "truncate"),
    *("fallocate", "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"),
    *("rmdir", "link", "linkat", "symlink", "symlinkat", "copy_file_range", "sendfile"),
)
"""System calls that change files, or flush them."""
_HEX = r'"((?:\\x[0-9a-f]{2})*)"'
_FILE = r"(?:AT_FDCWD|-?\d+)(?:<((?:\\x[0-9a-f]{2}|[^>])*)>)?"


@dataclass(frozen=True)
class Operation:
    """One change of a file or folder."""

    kind: str
    """create, write, truncate, fsync, rename, exchange, link, unlink, mkdir, rmdir; another one, which the model
    refuses."""
    path: str
    """Which."""
    extra: Any = None
    """Of a write (offset or None for the end, bytes), of a truncation the length, of a rename or link the new path, of
    an exchange the other path."""


def trace_command(command: Sequence[str], log: Path, kill_at: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run *command* under strace. *kill_at*: SIGKILL at that fsync, rename or mkdir of any of its threads."""
    words = ["strace", "-f", "-y", "-xx", "-s", "4000000", "-o", str(log), "-e", f"trace={','.join(TRACED)}"]
    if kill_at is not None:
        words += ["-e", f"inject=fsync,rename,renameat2,mkdir,linkat:signal=SIGKILL:when={kill_at}"]
    return subprocess.run([*words, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)


def read_trace(log: Path, top: str) -> list[Operation]:
    """Operations below *top*, in the order in which their calls ended.

    Of calls that a kill ended, those whose effect shows on the disk, which must be as the command left it.
    """
    operations: list[Operation] = []
    for call, arguments, result in _read_calls(log):
        if result is None or result >= 0:
            made = [each for each in _make_operations(call, arguments, result or 0) if _is_below(each.path, top)]
            operations += [each for each in made if result is not None or _has_happened(each)]
    return operations


def _is_below(path: str, top: str) -> bool:
    return (path + "/").startswith(top + "/")


def _has_happened(operation: Operation) -> bool:
    if operation.kind == "rename":
        return os.path.exists(operation.extra) and not os.path.exists(operation.path)
    if operation.kind == "link":
        return os.path.exists(operation.extra)
    return operation.kind in ("mkdir", "create") and os.path.exists(operation.path)


def _read_calls(log: Path) -> Iterator[tuple[str, str, int | None]]:
    """Name, arguments and result of each call, None where a kill ended it.

    A call that another thread interrupts is written on two lines.
    """
    begun: dict[str, tuple[str, str]] = {}
    with open(log, errors="surrogateescape") as file:
        for line in file:
            if match := re.match(r"(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$", line):
                begun[match[1]] = match[2], match[3]
            elif match := re.match(r"(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+= (-?\d+)", line):
                yield match[2], begun.pop(match[1], ("", ""))[1] + match[3], int(match[4])
            elif match := re.match(r"(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+)", line):
                yield match[2], match[3], int(match[4])
            elif match := re.match(r"(\d+)\s+(\w+)\((.*)\)\s+= \?", line):
                yield match[2], match[3], None
    yield from ((call, arguments, None) for call, arguments in begun.values())


def _make_operations(call: str, arguments: str, result: int) -> list[Operation]:
    if call in ("open", "creat", "openat"):
        match = _match((_FILE + ", " if call == "openat" else "()") + _HEX + r"(.*)", arguments)
        path, flags = _join(match[1], match[2]), match[3]
        made = [Operation("create", path)] if "O_CREAT" in flags or call == "creat" else []
        return made + ([Operation("truncate", path, 0)] if "O_TRUNC" in flags or call == "creat" else [])
    if call in ("write", "pwrite64"):
        return _make_write(call, arguments, result)
    if call == "ftruncate":
        match = _match(_FILE + r".*?, (\d+)$", arguments)
        return [Operation("truncate", _decode(match[1]), int(match[2]))]
    if call == "truncate":
        match = _match(_HEX + r", (\d+)$", arguments)
        return [Operation("truncate", _decode(match[1]), int(match[2]))]
    if call in ("fsync", "fdatasync"):
        return [Operation("fsync", _decode(_match(_FILE, arguments)[1]))]
    if call in ("rename", "renameat", "renameat2"):
        at = "()" if call == "rename" else _FILE + ", "
        match = _match(at + _HEX + ", " + at + _HEX, arguments)
        kind = "exchange" if "RENAME_EXCHANGE" in arguments else "rename"
        return [Operation(kind, _join(match[1], match[2]), _join(match[3], match[4]))]
    if call in ("link", "linkat"):
        at = "()" if call == "link" else _FILE + ", "
        match = _match(at + _HEX + ", " + at + _HEX, arguments)
        return [Operation("link", _join(match[1], match[2]), _join(match[3], match[4]))]
    if call in ("unlink", "rmdir", "mkdir"):
        return [Operation(call, _decode(_match(_HEX, arguments)[1]))]
    if call in ("unlinkat", "mkdirat"):
        match = _match(_FILE + ", " + _HEX + r"(.*)", arguments)
        kind = "mkdir" if call == "mkdirat" else "rmdir" if "AT_REMOVEDIR" in match[3] else "unlink"
        return [Operation(kind, _join(match[1], match[2]))]
    found = re.match(_FILE, arguments)
    return [Operation(call, _decode(found[1] if found else None))]


def _make_write(call: str, arguments: str, result: int) -> list[Operation]:
    match = re.match(_FILE + ", " + _HEX + r", (\d+)(?:, (\d+))?", arguments)
    if match is None:
        return []
    data = _unhex(match[2])
    assert len(data) >= result, "strace cut a string"
    return [Operation("write", _decode(match[1]), (None if call == "write" else int(match[4]), data[:result]))]


def _match(pattern: str, text: str) -> re.Match[str]:
    match = re.match(pattern, text)
    assert match is not None, text
    return match


def _unhex(text: str) -> bytes:
    return bytes(int(pair, 16) for pair in re.findall(r"\\x([0-9a-f]{2})", text))


def _decode(text: str | None) -> str:
    return "" if text is None else os.fsdecode(_unhex(text)) if "\\x" in text else text


def _join(folder: str | None, name: str) -> str:
    return os.path.normpath(os.path.join(_decode(folder), _decode(name)))
