"""Which session files a user means by SOURCE."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.nsd import SESSION_FILE, find_subject_name
from nsd_zarr.source.other_files import check_folder, check_kind

_IN_NAME = re.compile(r"session[_-]?(\d+)", re.IGNORECASE)
"""Where the number stands in the name of a file that is given outright."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the betas folders below an NSD root is meant; None takes any."""

    subject: int | None = None
    """Subject, 1 to 8."""
    space: str | None = None
    """Folder name such as func1pt8mm."""
    betas: str | None = None
    """Folder name such as betas_fithrf_GLMdenoise_RR."""

    @property
    def folder_names(self) -> tuple[str, ...]:
        """Folder names that the path of a betas folder must contain."""
        subject = None if self.subject is None else find_subject_name(self.subject)
        return tuple(name for name in (subject, self.space, self.betas) if name is not None)


@dataclass(frozen=True, slots=True)
class SessionFile:
    """One session and its file."""

    session: SessionNumber
    """Session number, from the file name."""
    path: Path
    """The file."""


def find_session_files(words: Sequence[str | os.PathLike[str]], choice: Choice | None = None) -> list[SessionFile]:
    """Session files that *words* (a folder, a glob, or files) name, ascending by session.

    A folder without session files is searched downward for exactly one betas folder that fits *choice*. Touches
    names only. Raises SourceError: nothing there, several betas folders, two files for one session.
    """
    choice = choice or Choice()
    paths = [Path(word) for word in words]
    if len(paths) == 1 and paths[0].is_dir():
        folder = _find_betas_folder(paths[0], choice)
        return _number(_list_sessions(folder))
    return _number(path for word in words for path in _expand(os.fspath(word)))


def check_complete(files: Sequence[SessionFile], first: int) -> None:
    """Refuse a gap between session *first* and the last one found. Raises SourceError."""
    numbers = [file.session for file in files]
    missing = sorted(set(range(first, max(numbers) + 1)) - set(numbers))
    if missing:
        raise SourceError(
            f"{_name_sessions(missing)} missing: found {format_sessions(numbers)}, expected every session from "
            f"{first} to {max(numbers)}",
            hint=f"Fetch what is missing, or convert without it: --sessions {format_sessions(numbers)}.",
            path=files[0].path.parent,
            expected=list(range(first, max(numbers) + 1)),
            found=numbers,
        )


def select_sessions(files: Sequence[SessionFile], wanted: Iterable[int]) -> list[SessionFile]:
    """Just the sessions that were asked for. Raises SourceError when one is not there."""
    by_number = {int(file.session): file for file in files}
    wanted = sorted(set(wanted))
    missing = [number for number in wanted if number not in by_number]
    if missing:
        raise SourceError(
            f"{_name_sessions(missing)} missing: found {format_sessions(by_number)}, and --sessions asks for "
            f"{format_sessions(wanted)}",
            hint="Fetch what is missing, or ask for fewer.",
            path=files[0].path.parent,
            expected=wanted,
            found=sorted(by_number),
        )
    return [by_number[number] for number in wanted]


def format_sessions(numbers: Iterable[int]) -> str:
    """Session numbers as --sessions takes them: "1-3,5"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def name_sessions(numbers: Iterable[int]) -> str:
    """Session numbers in a sentence: "session 3", "sessions 1-3,5"."""
    listed = sorted(set(numbers))
    return f"session{'s' if len(listed) > 1 else ''} {format_sessions(listed)}"


def _name_sessions(numbers: Sequence[int]) -> str:
    return f"session {numbers[0]:02d} is" if len(numbers) == 1 else f"sessions {format_sessions(numbers)} are"


def _expand(word: str) -> list[Path]:
    if os.path.exists(word):
        if os.path.isdir(word):
            raise SourceError(
                "a folder among several sources", hint="Give one folder, or one glob, or files.", path=word
            )
        return [Path(word)]
    found = sorted(Path(name) for name in glob.glob(word, recursive=True))
    if not found:
        raise SourceError("no such file or folder", hint="Check the path of SOURCE.", path=word)
    return found


def _list_sessions(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if SESSION_FILE.fullmatch(path.name)]
    except OSError as error:
        raise SourceError(f"cannot list the folder: {error.strerror}", path=folder) from error


def _find_betas_folder(top: Path, choice: Choice) -> Path:
    if _list_sessions(top) and set(choice.folder_names) <= set(top.resolve().parts):
        return top
    folders = sorted(
        Path(folder)
        for folder, _, names in os.walk(top)
        if any(map(SESSION_FILE.fullmatch, names)) and set(choice.folder_names) <= set(Path(folder).resolve().parts)
    )
    if len(folders) == 1:
        return folders[0]
    asked = f" for {', '.join(choice.folder_names)}" if choice.folder_names else ""
    if not folders:
        check_folder(Path(folder, name) for folder, _, names in os.walk(top) for name in names)
        there = _list_there(top) if choice.folder_names else ""
        raise SourceError(
            f"no session files (betas_session*.hdf5) in this folder or below it{asked}{there}",
            hint="Choose one of these." if there else "Give the folder that holds them, or an NSD root.",
            path=top,
        )
    listing = "".join(f"\n  {folder.relative_to(top)}" for folder in folders)
    raise SourceError(
        f"{len(folders)} betas folders{asked} below this one, expected exactly one:{listing}\n",
        hint="Name one with --subject, --space and --betas, or give its path as SOURCE.",
        path=top,
        found=folders,
    )


def _list_there(top: Path) -> str:
    """What may be chosen below *top*: subjects, spaces and betas, by the names of the folders; empty for none."""
    found = {
        Path(folder).resolve().parts[-3:]
        for folder, _, names in os.walk(top)
        if any(map(SESSION_FILE.fullmatch, names))
    }
    full = [parts for parts in found if len(parts) == 3 and re.fullmatch(r"subj\d+", parts[0])]
    listed = (
        f"--subject {', '.join(sorted({str(int(parts[0][4:])) for parts in full}, key=int))}",
        f"--space {', '.join(sorted({parts[1] for parts in full}))}",
        f"--betas {', '.join(sorted({parts[2] for parts in full}))}",
    )
    return f"; there are {'; '.join(listed)}" if full else ""


def _number(paths: Iterable[Path]) -> list[SessionFile]:
    files: dict[int, Path] = {}
    for path in sorted(paths):
        check_kind(path)
        match = SESSION_FILE.fullmatch(path.name) or _IN_NAME.search(path.name)
        if match is None or int(match.group(1)) == 0:
            raise SourceError(
                "no session number from 1 in the file name, expected one as in betas_session07.hdf5",
                hint="Rename the file, or leave it out.",
                path=path,
            )
        number = int(match.group(1))
        if number in files:
            raise SourceError(
                f"two files for one session: {files[number].name} and {path.name}",
                hint="Remove one, or name the files that you mean with a glob (for surfaces 'lh.betas_session*.hdf5').",
                path=path.parent,
                session=number,
            )
        files[number] = path
    if not files:
        raise SourceError("no source was named", hint="Name a folder, a glob, or session files.")
    return [SessionFile(SessionNumber(number), files[number]) for number in sorted(files)]
