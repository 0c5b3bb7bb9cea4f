"""The tree of errors, grouped by what the caller does next, and their exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from nsd_zarr.words import escape_controls


class NsdZarrError(Exception):
    """Anything that this package refuses or finds, explained in one paragraph.

    The paragraph reads "where: what was found, what was expected. What to do. [file]". Low layers do not
    know the session or the file: the border that does sets `session` and `path` on the way up, and the text
    follows. Pickles with all its attributes, so that Dask shows it as it was raised.

    >>> try:
    ...     nsd_zarr.open_dataset("subj09.zarr")
    ... except nsd_zarr.NsdZarrError as error:
    ...     print(type(error).__name__, error.exit_code)
    StoreError 4
    """

    exit_code: ClassVar[int] = 70
    """With which the command line ends."""

    def __init__(
        self,
        problem: str,
        *,
        hint: str = "",
        path: Path | str | None = None,
        session: int | None = None,
        subject: int | None = None,
        expected: Any = None,
        found: Any = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.path = path
        self.session = session
        self.subject = subject
        self.expected = expected
        self.found = found
        self.report: Any = None
        """Of a call for several subjects: what was done for the others."""

    def __str__(self) -> str:
        parts = [] if self.subject is None else [f"subject {self.subject}"]
        parts += [] if self.session is None else [f"session {self.session:02d}"]
        where = f"{', '.join(parts)}: " if parts else ""
        hint = f" {self.hint}" if self.hint else ""
        path = f" [{self.path}]" if self.path is not None else ""
        # A file may have named what is quoted here, and this ends on terminals.
        return escape_controls(f"{where}{self.problem.rstrip('.')}.{hint}{path}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({escape_controls(self.problem)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only attributes travel as state: the default would call the class with args alone.
        return _rebuild, (type(self), self.problem, self.__dict__)


def _rebuild(kind: type[NsdZarrError], problem: str, state: dict[str, Any]) -> NsdZarrError:
    error = kind(problem)
    error.__dict__.update(state)
    return error


class ConfigError(NsdZarrError, ValueError):
    """An option or a key of the configuration is wrong: correct it.

    >>> try:
    ...     nsd_zarr.convert("nsd", "new.zarr", codek="zstd")
    ... except nsd_zarr.ConfigError as error:
    ...     print(error)
    convert: unknown option 'codek'. Did you mean codec?
    """

    exit_code = 2


class SourceError(NsdZarrError, OSError):
    """A session file is missing, unfit or cut short: mend or leave out the source.

    >>> try:
    ...     nsd_zarr.plan("nowhere", "new.zarr")
    ... except nsd_zarr.SourceError as error:
    ...     print(error.exit_code, error.path)
    3 nowhere
    """

    exit_code = 3


class StoreError(NsdZarrError, OSError):
    """The store is missing, is something else, is in use, or is finished with other settings.

    >>> try:
    ...     nsd_zarr.convert("nsd", "subj01.zarr", subject=1, codec="zstd")
    ... except nsd_zarr.StoreError as error:
    ...     print(error.exit_code, "codec lz4, now zstd" in str(error))
    4 True
    """

    exit_code = 4


class ResumeRefused(NsdZarrError, RuntimeError):
    """Sources or settings changed since the run began: decide which are right.

    >>> error = nsd_zarr.ResumeRefused("the source changed since it was converted", session=3)
    >>> print(error.exit_code, error)
    5 session 03: the source changed since it was converted.
    """

    exit_code = 5


class DoesNotFit(NsdZarrError, MemoryError):
    """Memory, disk space, inodes or a quota do not suffice: give more, or ask for less.

    >>> try:
    ...     nsd_zarr.plan("nsd", "new.zarr", subject=1, memory="64MiB")
    ... except nsd_zarr.DoesNotFit as error:
    ...     print(error.exit_code, error.found < error.expected)
    6 True
    """

    exit_code = 6


class DamageFound(NsdZarrError, ValueError):
    """A stored value is lost or damaged, or differs from its source.

    >>> os.remove("subj01.zarr/session/c/0")
    >>> try:
    ...     nsd_zarr.open_dataset("subj01.zarr").session.values
    ... except nsd_zarr.DamageFound as error:
    ...     print(error.exit_code)
    1
    """

    exit_code = 1


class MissingLibrary(NsdZarrError, ImportError):  # type: ignore[misc]  # both have a path, here of nothing
    """A library that this part needs is not installed: install it, with the extra that brings it.

    >>> print(nsd_zarr.MissingLibrary("h5py", "nsd-zarr convert", "convert"))
    nsd-zarr convert needs h5py: pip install "nsd-zarr[convert]"
    """

    exit_code = 2

    def __init__(self, library: str, what: str, extra: str) -> None:
        super().__init__(f"{what} needs {library}")
        self.library = library
        self.what = what
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingLibrary, (self.library, self.what, self.extra)

    def explain(self, what: str) -> MissingLibrary:
        """The same of *what*, which is nearer to the user, such as a command."""
        return MissingLibrary(self.library, what, self.extra)

    def __str__(self) -> str:
        # Without a full stop, which would be copied with the command.
        return escape_controls(f'{self.problem}: pip install "nsd-zarr[{self.extra}]"')
