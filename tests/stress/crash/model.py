"""What a power cut may leave of recorded file operations.

A crash state is a point in the log and a choice of what of the operations that were not flushed is on disk:

kill      everything that was issued: a process killed, the page cache survives
least     nothing but what was flushed (POSIX: a file by fsync of it, a name by fsync of its folder)
posix     of names and of unflushed data any subset, each name for itself; a rename is atomic
journal   names in the order in which they were made, cut anywhere behind the last fsync (ext4, XFS); unflushed data are
          lost, of length zero, NUL, a prefix, or garbage
tree      names up to an older commit, and those whose file or folder was flushed since, with the folders above (btrfs)
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from stress.crash.trace import Operation

MODES = ("kill", "least", "posix", "posix", "journal", "journal", "tree", "tree")
"""Drawn in turns; those with many choices twice."""

Tree = dict[str, "bytes | None"]
"""Relative path -> bytes of a file, None for a folder."""
Key = tuple["Inode", str]
"""A name: the folder that it is in, and its last part."""
Version = tuple[int, "Inode | None"]
"""Operation since which a name stands for an inode; None: for nothing."""
Choice = dict[Key, tuple[list[Version], int]]
"""For each name its versions, and which of them is on disk."""


class Inode:
    """A file or a folder, with the history of its bytes."""

    def __init__(self, is_folder: bool, data: bytes = b"") -> None:
        self.is_folder, self.start = is_folder, data
        self.changes: list[tuple[int, int | None, bytes | int]] = []
        self.syncs: list[int] = []

    def content(self, before: int) -> bytes:
        """Its bytes right before operation *before*."""
        data = bytearray(self.start)
        for number, place, what in self.changes:
            if number >= before:
                break
            if isinstance(what, int):
                data = data[:what] + bytes(max(0, what - len(data)))
            else:
                offset = len(data) if place is None else place
                data += bytes(max(0, offset - len(data)))
                data[offset : offset + len(what)] = what
        return bytes(data)

    def last_sync(self, before: int) -> int:
        """The latest fsync of it before operation *before*; -1 for none."""
        return max((number for number in self.syncs if number < before), default=-1)


class Model:
    """Names and files as a log of operations changes them."""

    def __init__(self, top: str) -> None:
        self.top, self.log = top, list[Operation]()
        self.root = Inode(True)
        self.names: defaultdict[Key, list[Version]] = defaultdict(list)
        self.now: dict[str, Inode] = {top: self.root}
        self._paths: dict[tuple[Inode, int], str | None] = {}
        for folder, folders, files in os.walk(top):
            for name in folders + files:
                path = os.path.join(folder, name)
                data = Path(path).read_bytes() if name in files else b""
                self.now[path] = Inode(name in folders, data)
                self.names[self.now[folder], name].append((-1, self.now[path]))

    # -- taking operations in ------------------------------------------------------------------------------------

    def add(self, operations: Iterable[Operation]) -> None:
        """Take *operations* in. Of two threads one's call may be recorded before that of another which it needs."""
        waiting: list[Operation] = []
        for operation in operations:
            waiting.append(operation)
            while ready := next((each for each in waiting if self._is_possible(each)), None):
                waiting.remove(ready)
                self._add(ready)
        for operation in waiting:
            self._add(operation)

    def _is_possible(self, operation: Operation) -> bool:
        if operation.kind == "create":
            return os.path.dirname(operation.path) in self.now
        if operation.kind == "mkdir":
            return os.path.dirname(operation.path) in self.now and operation.path not in self.now
        return operation.path in self.now

    def _add(self, operation: Operation) -> None:
        number, now, path = len(self.log), self.now, operation.path
        folder, name = os.path.split(path)
        if operation.kind == "create" and path in now:
            return
        if operation.kind in ("create", "mkdir"):
            now[path] = Inode(operation.kind == "mkdir")
            self.names[now[folder], name].append((number, now[path]))
        elif operation.kind == "write":
            now[path].changes.append((number, *operation.extra))
        elif operation.kind == "truncate":
            now[path].changes.append((number, None, operation.extra))
        elif operation.kind == "fsync":
            now[path].syncs.append(number)
        elif operation.kind in ("unlink", "rmdir"):
            del now[path]
            self.names[now[folder], name].append((number, None))
        elif operation.kind == "rename":
            self._rename(number, path, operation.extra)
        elif operation.kind == "exchange":
            self._exchange(number, path, operation.extra)
        elif operation.kind == "link":
            self._name(number, operation.extra, now[path])
        else:
            raise NotImplementedError(f"{operation.kind} of {path}")
        self.log.append(operation)

    def _rename(self, number: int, old: str, new: str) -> None:
        now = self.now
        inode = now.pop(old)
        for path in [path for path in now if path.startswith(old + "/")]:
            now[new + path[len(old) :]] = now.pop(path)
        now[new] = inode
        for path, found in ((old, None), (new, inode)):
            folder, name = os.path.split(path)
            self.names[now[folder], name].append((number, found))

    def _exchange(self, number: int, one: str, other: str) -> None:
        now, found = self.now, {}
        for old, new in ((one, other), (other, one)):
            for path in [path for path in now if path == old or path.startswith(old + "/")]:
                found[new + path[len(old) :]] = now.pop(path)
        now |= found
        for path in (one, other):
            self._name(number, path, now[path])

    def _name(self, number: int, path: str, inode: Inode) -> None:
        folder, name = os.path.split(path)
        self.now[path] = inode
        self.names[self.now[folder], name].append((number, inode))

    # -- what may be on disk -------------------------------------------------------------------------------------

    def cut(self, point: int, mode: str, chance: random.Random) -> Tree:
        """What is on disk after a power cut before operation *point*."""
        syncs = [number for number in range(point) if self.log[number].kind == "fsync"]
        journal_cut = chance.randint((syncs[-1] if syncs else -1) + 1, point)
        commit = chance.choice([0, chance.randint(0, point)])
        flushed = set().union(*map(self._named_by_fsync, syncs)) if mode == "tree" else set()
        chosen: Choice = {}
        for key in self.names:
            versions, least = self._versions(key, point)
            last = len(versions) - 1
            if mode == "posix":
                place = chance.choice([least, last, chance.randint(least, last)])
            elif mode == "journal":
                place = max(spot for spot, each in enumerate(versions) if each[0] < journal_cut)
            elif mode == "tree":
                named = [spot for spot, each in enumerate(versions) if (key, each[0]) in flushed]
                committed = max(spot for spot, each in enumerate(versions) if each[0] < commit)
                place = max([committed, least, *named])
            else:
                place = {"kill": last, "least": least}[mode]
            chosen[key] = (versions, place)
        self._couple_renames(chosen, point)
        return self._build(chosen, point, mode, chance)

    def _versions(self, key: Key, before: int) -> tuple[list[Version], int]:
        """Versions of a name before an operation, and the place of the last one that was flushed (POSIX)."""
        versions = [each for each in [(-2, None), *self.names[key]] if each[0] < before]
        synced = key[0].last_sync(before)
        return versions, max(place for place, each in enumerate(versions) if each[0] <= synced)

    def _named_by_fsync(self, number: int) -> set[tuple[Key, int]]:
        """Names that a log tree keeps when a file or folder is flushed: its own, and those of the folders above."""
        path, found = self.log[number].path, set()
        while path and path != self.top:
            folder, name = os.path.split(path)
            for key, versions in self.names.items():
                if key[1] == name and self._path_at(key[0], number) == folder:
                    past = [each for each in versions if each[0] < number]
                    if past and past[-1][1] is not None:
                        found.add((key, past[-1][0]))
            path = folder
        return found

    def _path_at(self, folder: Inode, number: int) -> str | None:
        if folder is self.root:
            return self.top
        if (folder, number) not in self._paths:
            found = None
            for key, versions in self.names.items():
                past = [each for each in versions if each[0] < number]
                if past and past[-1][1] is folder:
                    above = self._path_at(key[0], number)
                    found = None if above is None else os.path.join(above, key[1])
            self._paths[folder, number] = found
        return self._paths[folder, number]

    def _couple_renames(self, chosen: Choice, point: int) -> None:
        """A rename is there on both ends or on neither: the later choice wins."""
        renames = [number for number in range(point) if self.log[number].kind in ("rename", "exchange")]
        ends = {
            number: [
                (key, spot)
                for key, (versions, _) in chosen.items()
                for spot, each in enumerate(versions)
                if each[0] == number
            ]
            for number in renames
        }
        changed = True
        while changed:
            changed = False
            for number in renames:
                lacking = [(key, spot) for key, spot in ends[number] if chosen[key][1] < spot]
                if lacking and len(lacking) < len(ends[number]):
                    for key, spot in lacking:
                        chosen[key] = (chosen[key][0], spot)
                    changed = True

    def _build(self, chosen: Choice, point: int, mode: str, chance: random.Random) -> Tree:
        children: defaultdict[Inode, list[tuple[str, Inode]]] = defaultdict(list)
        for (folder, name), (versions, place) in chosen.items():
            if (inode := versions[place][1]) is not None:
                children[folder].append((name, inode))
        tree, contents = Tree(), dict[Inode, bytes]()

        def walk(folder: Inode, path: str) -> None:
            for name, inode in sorted(children[folder], key=lambda each: each[0]):
                where = os.path.join(path, name)
                if inode.is_folder:
                    tree[where] = None
                    walk(inode, where)
                    continue
                if inode not in contents:
                    contents[inode] = self._choose_data(inode, point, mode, chance)
                tree[where] = contents[inode]

        walk(self.root, "")
        return tree

    def _choose_data(self, inode: Inode, point: int, mode: str, chance: random.Random) -> bytes:
        full, synced = inode.content(point), inode.last_sync(point)
        base = inode.content(synced + 1) if synced >= 0 else inode.start
        if mode == "kill" or full == base or not any(synced < number < point for number, _, _ in inode.changes):
            return full
        if mode == "least":
            return base
        kinds = ["base", "full", "prefix", "nul"] + ["garbage"] * (mode == "posix")
        return {
            "base": lambda: base,
            "full": lambda: full,
            "prefix": lambda: full[: chance.randint(0, len(full))],
            "nul": lambda: bytes(len(full)),
            "garbage": lambda: chance.randbytes(len(full)),
        }[chance.choice(kinds)]()


def write_tree(tree: Tree, top: Path) -> None:
    """Make folder *top* with everything in *tree*."""
    top.mkdir(parents=True)
    for path, data in tree.items():
        if data is None:
            (top / path).mkdir()
        else:
            (top / path).write_bytes(data)


def read_tree(top: Path) -> Tree:
    """Everything below *top*."""
    return {
        path.relative_to(top).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(top.rglob("*"))
    }
