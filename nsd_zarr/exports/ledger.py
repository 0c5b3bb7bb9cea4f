"""`export.json` in the folder of an export: what it is of, and how many samples of each file are on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nsd_zarr.errors import ResumeRefused, StoreError
from nsd_zarr.places.durable import PARTIAL_SUFFIX, make_folder, write_durably

NAME = "export.json"
MARK = "nsd-zarr export"
"""What its key `format` says."""
MAX_BYTES = 2**22
"""A larger one is none of ours."""


class Ledger:
    """What of an export is on disk. Written durably after each step; holds no clock and no path."""

    def __init__(self, folder: Path, identity: dict[str, Any], files: dict[str, int]) -> None:
        """*identity*: what decides the files. *files*: samples of each, by name."""
        self._folder, self._files = folder, files
        self._document: dict[str, Any] = {
            "format": MARK,
            "format_version": 1,
            "status": "incomplete",
            "of": identity,
            "samples": dict.fromkeys(files, 0),
            "tables": [],
        }
        self.was_complete = False

    def open(self, fresh: bool) -> None:
        """Go on with what an earlier run noted. Raises ResumeRefused, StoreError."""
        found = _read(self._folder)
        if found is None:
            if self._folder.exists() and any(self._folder.iterdir()):
                raise StoreError(
                    "the folder holds something else", hint="Name a new folder for the export.", path=self._folder
                )
            make_folder(self._folder)
        elif fresh and found["status"] != "complete":
            self._forget(found)
        else:
            self._check_same(found)
            self._document["samples"] |= found["samples"]
            self._document["tables"] = found["tables"]
            self.was_complete = found["status"] == "complete" and self._are_all_there()
        if not self.was_complete:
            self._save()

    def _check_same(self, found: dict[str, Any]) -> None:
        mine, theirs = self._document["of"], found["of"]
        differing = [name for name in mine if mine[name] != theirs.get(name)]
        if not differing:
            return
        told = "; ".join(f"{name} {theirs.get(name)!r}, now {mine[name]!r}" for name in differing)
        if found["status"] == "complete":
            raise StoreError(
                f"the folder holds a finished export of something else: {told}",
                hint="Name a new folder.",
                path=self._folder,
                found=differing,
            )
        raise ResumeRefused(
            f"the folder holds an unfinished export of something else: {told}",
            hint="Ask for the same again to go on with it, or forget it: --fresh.",
            path=self._folder,
            found=differing,
        )

    def _forget(self, found: dict[str, Any]) -> None:
        """Remove the files that an unfinished export of ours names, and no other."""
        for name in (*found["samples"], *found["tables"]):
            path = self._folder / name
            if path.parent == self._folder or self._folder in path.resolve().parents:
                path.unlink(missing_ok=True)
                path.with_name(path.name + PARTIAL_SUFFIX).unlink(missing_ok=True)

    def _are_all_there(self) -> bool:
        return all((self._folder / name).is_file() for name in (*self._files, *self._document["tables"]))

    @property
    def tables(self) -> list[str]:
        """Files beside those of samples, of a complete export."""
        return list(self._document["tables"])

    def count_done(self, name: str) -> int:
        """Samples of a file that are on disk."""
        return int(self._document["samples"][name])

    def note(self, name: str, done: int) -> None:
        """The first *done* samples of file *name* are on disk."""
        self._document["samples"][name] = done
        self._save()

    def complete(self, tables: list[str]) -> None:
        """Everything is on disk."""
        self._document |= {"status": "complete", "tables": tables}
        self._save()

    def _save(self) -> None:
        write_durably(self._folder / NAME, json.dumps(self._document, indent=1).encode() + b"\n")


def _read(folder: Path) -> dict[str, Any] | None:
    """The document that an earlier run left; None where there is none of ours. Raises StoreError for a damaged one."""
    path = folder / NAME
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_BYTES))
        if found["format"] != MARK:
            return None
        if found["format_version"] != 1 or not isinstance(found["of"], dict):
            raise ValueError(found["format_version"])
        samples = {str(name): int(count) for name, count in found["samples"].items()}
        return {**found, "samples": samples, "tables": [str(name) for name in found["tables"]]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            "export.json cannot be read as what this version writes", hint="Name a new folder.", path=path
        ) from error
