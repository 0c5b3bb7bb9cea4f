"""The documents are run: what a reader copies works."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import nsd_zarr
from nsd_zarr.cli.main import commands
from nsd_zarr.config import Config
from nsd_zarr.simulate import Simulation, simulate_root

pytestmark = pytest.mark.xdist_group("docs")

HERE = Path(__file__).parent.parent
NEEDS = {"lightning": "lightning", "torch": "torch", ".plot(": "matplotlib", "make_report": "jinja2"}
"""Words of a block, and the optional library that it then needs."""
DOCUMENTS = [
    HERE / "README.md",
    *sorted(path for path in (HERE / "docs").rglob("*.md") if path.parent.name != "design"),
]
TUTORIAL = HERE / "docs/tutorial.md"
SMALLER = {"750,41,52,40": "750,13,11,7"}
"""Sizes in the tutorial, and those that the test runs it with."""
MAX_PICTURE_BYTES = 150_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("docs")
    recipe = Simulation(sessions=3, shape=(750, 43, 5, 3), images=73_000, image_size=8)
    root = simulate_root(made / "nsd", recipe)
    simulate_root(made / "nsd", replace(recipe, subject=2, shape=(750, 11, 7, 3), images=0))
    nsd_zarr.convert(root.betas_folder, made / "subj01.zarr")
    return made


# Of Lightning, about its own libraries and about loggers.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:lightning")
@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path != TUTORIAL], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
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


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty folder beside the repository, with the commands of this Python on the path."""
    (tmp_path / "nsd_zarr").symlink_to(HERE)
    (tmp_path / "bin").mkdir()
    for name, arguments in {"python": "", "nsd-zarr": "-c 'from nsd_zarr.cli import main; main()'"}.items():
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "encoding").mkdir()
    monkeypatch.chdir(tmp_path / "encoding")
    return tmp_path / "encoding"


@pytest.mark.slow
def test_tutorial_leads_from_an_empty_folder_to_a_trained_model(empty_folder, capsys):
    for library in ("torch", "matplotlib"):
        pytest.importorskip(library)
    text = TUTORIAL.read_text()
    for size, smaller in SMALLER.items():
        assert size in text
        text = text.replace(size, smaller)
    names: dict = {}
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            exec(compile(block, str(TUTORIAL), "exec"), names)
        elif "pip install" not in block:  # installed already, as what is tested
            done = subprocess.run(["sh", "-ec", block], capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
    assert "test images: explained" in done.stdout
    for made in ("trial.png", "ceiling.png", "encoder/encoder.png", "encoder/score.nii.gz"):
        assert (empty_folder / made).stat().st_size > 0


def test_pictures_in_documents_are_small_and_shown():
    shown = {path for document in DOCUMENTS for path in re.findall(r"figures/([\w.]+)", document.read_text())}
    pictures = {path.name: path.stat().st_size for path in (HERE / "docs/figures").iterdir()}
    assert set(pictures) == shown
    assert max(pictures.values()) < MAX_PICTURE_BYTES


def test_readme_names_every_command_and_no_other():
    text = (HERE / "README.md").read_text()
    assert {name for name in re.findall(r"`?nsd-zarr ([a-z]+)", text) if name != "is"} == set(commands.commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_commands_of_document_are_understood(document):
    for block in re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["nsd-zarr"]:
                # Below its group, as it is called: a command keeps the help option that it was first given.
                group = commands.make_context("nsd-zarr", words[1:])
                commands.commands[words[1]].make_context(words[1], words[2:], parent=group)


def test_links_in_documents_lead_somewhere():
    for document in [*DOCUMENTS, *HERE.glob("[CS]*.md"), *(HERE / "docs/design").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_architecture_names_modules_that_exist_and_the_whole_top_of_the_package():
    text, package = (HERE / "docs/architecture.md").read_text(), HERE / "nsd_zarr"
    named = set(re.findall(r"(?<![\w/])((?!tests/|nsd_zarr/)[a-z_]+/(?:[a-z_]+/)?[a-z_]+\.py)\b", text))
    assert {name for name in named if not (package / name).exists()} == set()
    top = {path.stem if path.suffix else path.name for path in package.iterdir() if not path.name.startswith("_")}
    whole_map = text.split("```text\n", 1)[1].split("```")[0]
    assert {name for name in top - {"py"} if not re.search(rf"^{name}(\.py|/)", whole_map, re.MULTILINE)} == set()


# -- what the site generates -------------------------------------------------------------------------------------


def test_reference_of_python_has_every_public_name_and_no_other():
    pytest.importorskip("torch")
    import nsd_zarr.torch

    text = (HERE / "docs/reference/python.md").read_text()
    names = re.findall(r"auto(?:function|class):: nsd_zarr\.(\w+)$", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert set(names) == set(nsd_zarr.__all__) - {"__version__", "Event", "Listener"}
    trains = re.findall(r"auto(?:function|class):: nsd_zarr\.torch\.(\w+)$", text, re.MULTILINE)
    assert set(trains) == set(nsd_zarr.torch.__all__)


def test_every_page_is_in_a_table_of_contents_of_the_site():
    found = [path for ending in ("md", "ipynb") for path in (HERE / "docs").rglob(f"*.{ending}")]
    pages = {path.relative_to(HERE / "docs").with_suffix("").as_posix() for path in found}
    tables = re.findall(r"```{toctree}\n(.*?)```", (HERE / "docs/index.md").read_text(), re.DOTALL)
    listed = [line for table in tables for line in table.splitlines() if line and not line.startswith(":")]
    assert len(listed) == len(set(listed))
    assert set(listed) == {page for page in pages if not page.startswith("design/")} - {"index"} | {"design/index"}


def test_table_of_the_configuration_has_every_key_with_what_it_does(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE / "docs"))
    options = importlib.import_module("options").list_options()
    assert [name for name, _, _ in options] == list(Config.model_fields)
    assert [name for name, _, about in options if not about] == []


def test_measured_times_are_the_same_in_readme_and_on_the_page_of_performance():
    page = (HERE / "docs/performance.md").read_text()
    rows = re.findall(r"^\| .* \| [\d.,]+ m?s \|$", (HERE / "README.md").read_text(), re.MULTILINE)
    assert len(rows) >= 6
    assert [row for row in rows if row not in page] == []
