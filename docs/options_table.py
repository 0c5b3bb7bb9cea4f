"""A directive of Sphinx, `options-table`: every key of the configuration."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from options import list_options


class OptionsTable(Directive):
    """`options-table`: key, default, and what the help of `nsd-zarr convert` says of it."""

    def run(self) -> list[nodes.Node]:
        """As docutils asks for it."""
        table = nodes.table()
        group = nodes.tgroup(cols=3)
        table += group
        for width in (20, 15, 65):
            group += nodes.colspec(colwidth=width)
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        head += _make_row(["key", "default", "what it does"])
        for row in list_options():
            body += _make_row(row)
        return [table]


def _make_row(cells: Any) -> nodes.row:
    row = nodes.row()
    for number, text in enumerate(cells):
        entry = nodes.entry()
        paragraph = nodes.paragraph()
        paragraph += nodes.literal(text=text) if number < 2 and text else nodes.Text(text)
        entry += paragraph
        row += entry
    return row


def setup(app: Any) -> dict[str, bool]:
    """As Sphinx asks for it."""
    app.add_directive("options-table", OptionsTable)
    return {"parallel_read_safe": True}
