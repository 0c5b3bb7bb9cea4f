"""Which files make a session, by their names: the form that is read, and both hemispheres of a surface."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.forms import FORM_NAMES, FORMS, SESSION_FILE, find_form
from nsd_zarr.layout import SessionNumber
from nsd_zarr.nsd import HEMISPHERES, find_subject_name

_IN_NAME = re.compile(r"session[_-]?(\d+)", re.IGNORECASE)
"""Where the number stands in the name of a file that is given outright."""


ONLY_SESSION = "1"
"""Number of the session of an experiment that has one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the betas folders below an NSD root is meant, and which files in it; None takes any."""

    subject: int | None = None
    """Subject, 1 to 8."""
    space: str | None = None
    """Folder name such as func1pt8mm."""
    betas: str | None = None
    """Folder name such as betas_fithrf_GLMdenoise_RR."""
    form: str | None = None
    """One of FORM_NAMES; None: the first of FORMS that is there."""
    hemisphere: str | None = None
    """"lh" or "rh": this one alone; None: surfaces need both."""

    @property
    def folder_names(self) -> tuple[str, ...]:
        """Folder names that the path of a betas folder must contain."""
        subject = None if self.subject is None else find_subject_name(self.subject)
        return tuple(name for name in (subject, self.space, self.betas) if name is not None)

    def takes(self, name: str) -> bool:
        """Whether a session file is called *name*, and is of the form and hemisphere that are meant."""
        form = find_form(Path(name))
        if form is None or self.form not in (None, form.name):
            return False
        return self.hemisphere is None or name.lower().startswith(f"{self.hemisphere}.")


@dataclass(frozen=True, slots=True)
class SessionFile:
    """One session and its file, or two files of a surface."""

    session: SessionNumber
    """Session number, from the file name."""
    path: Path
    """The file; of a surface with both hemispheres the left one's."""
    side: str = ""
    """Hemisphere of *path*, "lh" or "rh"; empty where the name says none."""
    right: Path | None = None
    """The file of the right hemisphere beside *path*, the left one's."""
    twins: tuple[Path, ...] = ()
    """Files of the same session in forms that are not read."""


def number_files(paths: Iterable[Path], choice: Choice) -> list[SessionFile]:
    """Session files among *paths*, ascending by session. Raises SourceError: none, no number, or two for a session."""
    sessions: dict[int, list[Path]] = {}
    for path in _leave_out_others(sorted(paths)):
        match = SESSION_FILE.fullmatch(path.name)
        if match is not None and not choice.takes(path.name):
            continue
        found = (match["session"] or ONLY_SESSION) if match else _find_number(path)
        if int(found) == 0:
            raise _explain_number(path)
        sessions.setdefault(int(found), []).append(path)
    if not sessions:
        asked = [f"--{name} {word}" for name in ("form", "hemisphere") if (word := getattr(choice, name))]
        raise SourceError(
            f"none of the files is of {' '.join(asked)}" if asked else "no source was named",
            hint="Name a folder, a glob, or session files.",
        )
    return [_choose(SessionNumber(number), sessions[number], choice) for number in sorted(sessions)]


def _leave_out_others(paths: Sequence[Path]) -> Sequence[Path]:
    """*paths* without the betas of experiments of one session, where numbered ones lie beside them."""
    matches = {path: SESSION_FILE.fullmatch(path.name) for path in paths}
    numbered = {path for path, match in matches.items() if match is None or match["session"]}
    return [path for path in paths if path in numbered] or paths


def _find_number(path: Path) -> str:
    match = _IN_NAME.search(path.name)
    if match is None:
        raise _explain_number(path)
    return match[1]


def _explain_number(path: Path) -> SourceError:
    return SourceError(
        "no session number from 1 in the file name, expected one as in betas_session07.hdf5",
        hint="Rename the file, or leave it out.",
        path=path,
    )


def _choose(session: SessionNumber, paths: Sequence[Path], choice: Choice) -> SessionFile:
    """The file, or the two of a surface, of a session that has *paths*."""
    first, *others = sorted(paths, key=_rank)
    form = find_form(first)
    if form is None or not form.has_hemispheres:
        # Twins are those that the dataset delivers beside each other, each once.
        ranks = {_rank(path)[1:] for path in paths}
        if others and (form is None or _rank(others[-1])[0] or len(ranks) < len(paths)):
            raise _explain_two(session, first, others[0])
        return SessionFile(session, first, twins=tuple(others))
    sides = {_find_side(path): path for path in paths if find_form(path) is form}
    if len(sides) < len(paths):
        raise _explain_two(session, first, others[0])
    if choice.hemisphere is not None:
        return SessionFile(session, first, choice.hemisphere)
    if len(sides) < len(HEMISPHERES):
        raise _explain_lone(session, first)
    left, right = (sides[side] for side in HEMISPHERES)
    return SessionFile(session, left, HEMISPHERES[0], right)


def _find_side(path: Path) -> str:
    match = SESSION_FILE.fullmatch(path.name)
    return ((match and match["side"]) or "").lower()


def _rank(path: Path) -> tuple[bool, int, int, str]:
    """What comes first is read: volumes before surfaces, HDF5 before NIfTI, what is not packed before what is."""
    form = find_form(path)
    if form is None:
        return False, -1, 0, ""
    ending = next(place for place, end in enumerate(reversed(form.endings)) if path.name.lower().endswith(end))
    return form.has_hemispheres, FORMS.index(form), ending, _find_side(path)


def _explain_two(session: SessionNumber, first: Path, other: Path) -> SourceError:
    return SourceError(
        f"two files for one session: {first.name} and {other.name}",
        hint=f"Remove one, or say which is meant: --form {', '.join(FORM_NAMES)}, or a glob.",
        path=first.parent,
        session=session,
    )


def _explain_lone(session: SessionNumber, path: Path) -> SourceError:
    side = _find_side(path)
    other = HEMISPHERES[1 - HEMISPHERES.index(side)]
    return SourceError(
        f"{path.name} without {other}{path.name[2:]}, expected both hemispheres of a surface",
        hint=f"Fetch it as well, or convert one hemisphere alone: --hemisphere {side}.",
        path=path,
        session=session,
        expected=HEMISPHERES,
        found=side,
    )


def find_twin_notes(files: Sequence[SessionFile]) -> list[str]:
    """What is not read because the same session is there in another form, in words."""
    twins = [(file, twin) for file in files for twin in file.twins]
    if not twins:
        return []
    file, twin = twins[0]
    form, more = find_form(twin), f" and {len(twins) - 1} more" if len(twins) > 1 else ""
    return [
        f"{twin.name}{more} of the same sessions as {file.path.name}{' ...' if more else ''} are not read"
        + (f": --form {form.name} takes them" if form is not None and form is not find_form(file.path) else "")
    ]
