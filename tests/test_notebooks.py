"""The notebooks run, as they are and in Jupyter's own way, and the outputs that they are stored with are theirs."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("docs")

FOLDER = Path(__file__).parent.parent / "docs/notebooks"
NEEDS = {"first_look": ("matplotlib",), "train": ("matplotlib", "torch")}
MAX_BYTES = 1_000_000
PLACES = r"/tmp/|/home/|/root/|site-packages"
"""What an output that names a place of the machine that made it has."""


def read_cells(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]


def list_kinds(cell):
    """What a cell shows; of a bar that draws itself again as one."""
    return sorted(kind for output in cell["outputs"] for kind in output.get("data", {"text": ""}))


def test_every_notebook_is_listed():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_notebook_runs_and_shows_what_it_is_stored_with(name):
    for library in NEEDS[name]:
        pytest.importorskip(library)
    code = [cell for cell in read_cells(name) if cell["cell_type"] == "code"]
    if not importlib.util.find_spec("nbclient") or not importlib.util.find_spec("ipykernel"):
        names: dict = {}
        for cell in code:
            exec(compile("".join(cell["source"]), name, "exec"), names)
        return
    import nbclient
    import nbformat

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", coalesce_streams=True).execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [list_kinds(cell) for cell in ran] == [list_kinds(cell) for cell in code]


@pytest.mark.parametrize("name", NEEDS)
def test_notebook_is_stored_with_its_outputs_in_order_without_errors_and_places(name):
    code = [cell for cell in read_cells(name) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "stream", "display_data"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = json.dumps([{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs])
    assert re.findall(PLACES, text) == []
    assert "Warning" not in text
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MAX_BYTES
