"""A matplotlib figure that notebooks show by itself, whatever backend they use. Imported when a picture is drawn."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A Figure that is its own PNG: as the last expression of a cell it is shown, without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
