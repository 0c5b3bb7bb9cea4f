"""The help of `nsd-zarr`: commands by what one wants to do, each with an example."""

from __future__ import annotations

import click

WIDTH = 80
"""Columns that help may take."""
SECTIONS = {
    "Begin": ("demo", "simulate"),
    "Make a store": ("plan", "convert", "attach", "images"),
    "Prove and mend it": ("verify", "repair"),
    "See and use it": ("info", "report", "bench", "export"),
}
"""Commands by what one wants to do, in the order in which one meets them."""
EXAMPLES = {
    "demo": ("the whole story on synthetic data", "nsd-zarr demo"),
    "simulate": ("a small stand-in for the dataset", "nsd-zarr simulate nsd --sessions 3"),
    "plan": ("what a conversion takes, and whether it can run", "nsd-zarr plan nsd subj01.zarr --subject 1"),
    "convert": ("make a store, or go on after any stop", "nsd-zarr convert nsd subj01.zarr --subject 1"),
    "attach": ("trial table, masks, regions for a store", "nsd-zarr attach subj01.zarr nsd --subject 1"),
    "images": ("a store of the stimulus images", "nsd-zarr images nsd images.zarr --subject 1"),
    "verify": ("prove that a store is what was read", "nsd-zarr verify subj01.zarr"),
    "repair": ("make again what is damaged", "nsd-zarr repair subj01.zarr --source nsd"),
    "info": ("what is in a store, and what made it", "nsd-zarr info subj01.zarr"),
    "report": ("pictures and numbers on one page", "nsd-zarr report subj01.zarr"),
    "bench": ("how fast it is read on this machine", "nsd-zarr bench subj01.zarr"),
    "export": ("what the next tool wants", "nsd-zarr export subj01.zarr out --as npy --roi V1v"),
}
"""Of each command: what it is for, in a few words, and a line that one would type."""


class GroupedCommands(click.Group):
    """A group of commands whose help lists them by what one wants to do."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """As click's; the help of the command ends with its example."""
        if cmd.name in EXAMPLES and cmd.epilog is None:
            cmd.epilog = f"Example: {EXAMPLES[cmd.name][1]}"
        super().add_command(cmd, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; a command that none names comes last."""
        named = [name for names in SECTIONS.values() for name in names]
        others = tuple(name for name in self.list_commands(ctx) if name not in named)
        for title, names in {**SECTIONS, "Others": others}.items():
            rows = [row for name in names if name in self.commands for row in self._list_rows(name)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=12)

    def _list_rows(self, name: str) -> list[tuple[str, str]]:
        what, example = EXAMPLES.get(name, (self.commands[name].get_short_help_str(WIDTH - 16), ""))
        return [(name, what), *([("", f"$ {example}")] if example else [])]
