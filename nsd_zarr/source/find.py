"""Which session files a user means by SOURCE."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.forms import FORM_NAMES
from nsd_zarr.nsd import NsdPaths
from nsd_zarr.places.choose import as_path, is_remote, walk_names
from nsd_zarr.source.forms.files import Choice as Choice
from nsd_zarr.source.forms.files import SessionFile as SessionFile
from nsd_zarr.source.forms.files import number_files


def find_session_files(words: Sequence[str | os.PathLike[str]], choice: Choice | None = None) -> list[SessionFile]:
    """Session files that *words* (a folder, a glob, or files) name, ascending by session.

    A folder without session files is searched downward for exactly one betas folder that fits *choice*. Touches
    names only. Raises SourceError: nothing there, several betas folders, two files for one session.
    """
    choice = choice or Choice()
    try:
        paths = [as_path(word) for word in words]
        if len(paths) == 1 and paths[0].is_dir():
            folder = _find_betas_folder(paths[0], choice)
            return number_files(_list_sessions(folder, choice), choice)
        return number_files((path for word in words for path in _expand(word)), choice)
    except OSError as error:  # Of a URL: who may not look does not learn that nothing is there.
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"cannot look for sessions: {error.strerror or error}", path=as_path(words[0])) from error


def check_complete(files: Sequence[SessionFile], first: int, kept: Collection[int] = ()) -> None:
    """Refuse a gap between session *first* and the last one found. Raises SourceError.

    *kept*: sessions that a finished store has already. Without one beside them, its own gaps are none.
    """
    numbers = [file.session for file in files]
    missing = sorted(set(range(first, max(numbers) + 1)) - set(numbers) - set(kept))
    if missing and not set(numbers) <= set(kept):
        raise SourceError(
            f"{_name_sessions(missing)} missing: found {format_sessions(numbers)}, expected every session from "
            f"{first} to {max(numbers)}",
            hint=f"Fetch what is missing, or convert without it: --sessions {format_sessions({*numbers, *kept})}.",
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


def _expand(word: str | os.PathLike[str]) -> list[Path]:
    if isinstance(word, Path) and is_remote(word):
        return _expand_remote(word)
    word = os.fspath(word)
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


def _expand_remote(path: Path) -> list[Path]:
    found = sorted(path.parent.glob(path.name)) if glob.has_magic(path.name) else [path] if path.is_file() else []
    if not found:
        raise SourceError("no such object or folder of objects", hint="Check the URL of SOURCE.", path=path)
    return found


def _list_sessions(folder: Path, choice: Choice) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if choice.takes(path.name)]
    except OSError as error:
        raise SourceError(f"cannot list the folder: {error.strerror}", path=folder) from error


def _find_betas_folder(top: Path, choice: Choice) -> Path:
    if _list_sessions(top, choice) and set(choice.folder_names) <= set(top.resolve().parts):
        return top
    folders = [folder for folder in _walk(top, choice) if set(choice.folder_names) <= set(folder.resolve().parts)]
    if len(folders) == 1:
        return folders[0]
    asked = f" for {', '.join(choice.folder_names)}" if choice.folder_names else ""
    if not folders:
        there = _list_there(top) if choice.folder_names else ""
        raise SourceError(
            f"no session files (betas_session*.hdf5, .nii.gz; {{lh,rh}}.betas_session*.hdf5, .mgh) in this folder or "
            f"below it{asked}{there}",
            hint="Choose one of these." if there else "Give the folder that holds them, or an NSD root.",
            path=top,
        )
    listing = "".join(f"\n  {folder.relative_to(top)}" for folder in folders)
    raise SourceError(
        f"{len(folders)} betas folders{asked} below this one, expected exactly one:{listing}\n",
        hint=f"Name one with --subject, --space, --betas and --form ({', '.join(FORM_NAMES)}), or give its path as "
        "SOURCE.",
        path=top,
        found=folders,
    )


def _walk(top: Path, choice: Choice) -> list[Path]:
    """Folders below *top* with session files as *choice* takes them; of those that hold HDF5 no others, if any do."""
    found: dict[bool, list[Path]] = {True: [], False: []}
    for folder, names in _list_folders(top, choice):
        taken = [name for name in names if choice.takes(name)]
        if taken:
            found[any(name.lower().endswith(".hdf5") for name in taken)].append(folder)
    return sorted(found[True] or found[False])


def _list_folders(top: Path, choice: Choice) -> Iterable[tuple[Path, list[str]]]:
    """Folders below *top* with files, and the files' names; of a bucket with the dataset its betas alone.

    The bucket has some hundred thousand objects, of which a request lists a thousand.
    """
    if is_remote(top):
        betas = NsdPaths(top, choice.subject or 1).betas_folder.parent.parent
        for part in (betas, betas.parent) if choice.subject is not None else (betas.parent,):
            if found := list(walk_names(part)):
                return found
    return walk_names(top)


def _list_there(top: Path) -> str:
    """What may be chosen below *top*: subjects, spaces and betas, by the names of the folders; empty for none."""
    found = {folder.resolve().parts[-3:] for folder in _walk(top, Choice())}
    full = [parts for parts in found if len(parts) == 3 and re.fullmatch(r"subj\d+", parts[0])]
    listed = (
        f"--subject {', '.join(sorted({str(int(parts[0][4:])) for parts in full}, key=int))}",
        f"--space {', '.join(sorted({parts[1] for parts in full}))}",
        f"--betas {', '.join(sorted({parts[2] for parts in full}))}",
    )
    return f"; there are {'; '.join(listed)}" if full else ""
