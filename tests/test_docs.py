"""The documents are run: what a reader copies works."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import nsd_zarr
from nsd_zarr.cli.main import commands
from nsd_zarr.simulate import Simulation, simulate_root

HERE = Path(__file__).parent.parent
NEEDS = {"torch": "torch", ".plot(": "matplotlib"}
"""Words of a block, and the optional library that it then needs."""
DOCUMENTS = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("docs")
    root = simulate_root(made / "nsd", Simulation(sessions=3, shape=(750, 43, 5, 3), images=73_000, image_size=8))
    nsd_zarr.convert(root.betas_folder, made / "subj01.zarr")
    return made


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_python_blocks_run_in_order(document, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
        for library in (library for word, library in NEEDS.items() if word in block):
            if not importlib.util.find_spec(library):
                pytest.skip(f"{library} is not installed")
        exec(compile(block, str(document), "exec"), names)


def test_readme_names_every_command_and_no_other():
    text = (HERE / "README.md").read_text()
    assert {name for name in re.findall(r"`?nsd-zarr ([a-z]+)", text) if name != "is"} == set(commands.commands)


def test_readme_commands_are_understood():
    for block in re.findall(r"```sh\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["nsd-zarr"]:
                command = commands.commands[words[1]]
                command.make_context(words[1], words[2:], resilient_parsing=False)


def test_links_in_documents_lead_somewhere():
    for document in [*DOCUMENTS, *(HERE / "docs/design").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
