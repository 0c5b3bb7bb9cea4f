"""A bar for a loader's epoch, drawn by tqdm or rich."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Any, Literal

Kind = Literal["tqdm", "rich"] | bool
Step = Callable[[str], None]
"""Called after each batch with what to say beside the bar."""


def choose_kind(kind: Kind) -> str:
    """The library that draws: the one that is asked for; for True tqdm where it is installed, else rich; "" for none.

    Raises ValueError, ImportError.
    """
    if kind not in (True, False, "tqdm", "rich"):
        raise ValueError(f"progress {kind!r}: expected tqdm, rich, True or False")
    has_tqdm = importlib.util.find_spec("tqdm") is not None
    if kind == "tqdm" and not has_tqdm:
        raise ImportError('progress="tqdm" needs tqdm: pip install tqdm')
    return kind if isinstance(kind, str) else ("" if not kind else "tqdm" if has_tqdm else "rich")


def show_progress(
    batches: Generator[Any, None, None], kind: str, title: str, done: int, steps: int, describe: Callable[[], Any]
) -> Generator[Any, None, None]:
    """*batches*, with a bar on standard error from *done* to *steps*; *describe* gives the loader's stats beside it."""
    with closing(batches), _OPEN[kind](title, done, steps) as step:
        for batch in batches:
            yield batch
            stats = describe()
            step(f"stall {stats['stall_percent']:.0f} %, {stats['queue_depth']:.1f} ready, {stats['limited_by']}")


@contextmanager
def _open_tqdm(title: str, done: int, steps: int) -> Generator[Step, None, None]:
    from tqdm.auto import tqdm

    with tqdm(total=steps, initial=done, desc=title, unit="batch") as bar:

        def step(note: str) -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update()

        yield step


@contextmanager
def _open_rich(title: str, done: int, steps: int) -> Generator[Step, None, None]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=steps, completed=done, note="")
        yield lambda note: progress.update(task, advance=1, note=note)


_OPEN = {"tqdm": _open_tqdm, "rich": _open_rich}
