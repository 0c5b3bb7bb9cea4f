"""The map of docs/architecture.md, held: which part may know which, and what `import nsd_zarr` costs."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nsd_zarr

PACKAGE = Path(nsd_zarr.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

BASE = {"errors", "layout", "nsd", "forms", "image_sets", "resources", "words", "options", "libraries"}
TOP = BASE | {"__init__", "config", "source", "store", "science", "simulate", "conversion", "maintenance", "read"}
SEES = {
    "words": set(),
    "libraries": {"errors"},
    "errors": {"words"},
    "nsd": set(),
    "forms": {"nsd"},
    "image_sets": {"nsd"},
    "layout": {"nsd"},
    "options": {"errors"},
    "resources": set(),
    "registration": {"read"},
    "tasks": {"errors"},
    "hdf5": {"libraries"},
    "buffers": set(),
    "retry": set(),
    "config": BASE,
    "places": BASE | {"retry", "tasks"},
    "progress": {"layout", "libraries", "conversion"},  # the types of its events
    "source": BASE | {"hdf5", "places", "tasks", "retry"},
    "store": BASE | {"buffers", "places", "retry", "tasks"},
    "science": BASE | {"tasks", "buffers"},
    "simulate": BASE | {"places"},
    "conversion": BASE | {"config", "places", "source", "store", "science", "tasks", "buffers", "progress"},
    "maintenance": BASE
    | {"config", "places", "source", "store", "science", "conversion", "tasks", "buffers", "progress"},
    "read": BASE | {"store", "science", "buffers", "tasks"},
    "exports": BASE | {"config", "conversion", "places", "progress", "read", "store"},
    "loading": BASE | {"hdf5", "places", "store", "science", "read", "buffers"},
    "torch": BASE | {"places", "store", "science", "read", "loading", "buffers"},
    "bench": BASE
    | {
        "__init__",
        "config",
        "places",
        "source",
        "store",
        "science",
        "simulate",
        "conversion",
        "maintenance",
        "read",
        "torch",
        "loading",
    },
    "report": BASE | {"conversion", "maintenance", "places", "progress", "read", "science", "store"},
    "cli": TOP | {"places", "bench", "exports", "report", "progress", "tasks"},
    # The public face, on demand.
    "__init__": {
        "errors",
        "options",
        "registration",
        "conversion",
        "maintenance",
        "read",
        "libraries",
        "exports",
        "report",
    },
    "__main__": {"cli"},
}
"""Which parts of the package a part may import, beside itself. The one table of the arrows."""

PLACES = {
    "torch": {"torch/", "bench/"},
    "distributed": {"conversion/cluster.py"},
    "h5py": {
        "hdf5.py",
        "source/",
        "simulate/",
        "conversion/settings.py",  # names its version
        "loading/stimuli.py",  # single images, for who has no store of them
        "cli/demo.py",  # times it
        "bench/",  # times it
        "exports/matrix.py",
    },
    "xarray": {"read/", "bench/", "exports/", "report/"},
    "jinja2": {"report/page.py"},
    "dask": {"conversion/"},
    "zarr": {
        "bench/",
        "store/foreign/",
        "maintenance/verify_values.py",  # reads the store a second way
    },
    "obstore": {"places/objects/"},
    "boto3": {"places/objects/"},
    "fsspec": {"store/foreign/"},
    "tensorstore": {"bench/"},
    "click": {"cli/"},
    "rich": {"cli/", "progress.py"},
    "tqdm": {"progress.py"},
    "pydantic": {"config.py", "conversion/ledger.py", "maintenance/extension/generation.py"},
    "pandas": {"source/", "read/table.py", "read/accessor.py", "exports/"},
    "pyarrow": {"exports/parquet.py"},
    "scipy": {"source/", "simulate/"},
    "nibabel": {"source/", "simulate/", "read/volume.py", "read/picture.py", "read/tools/", "exports/"},
    "nilearn": {"read/tools/"},
    "rsatoolbox": {"read/tools/"},
    "zlib_ng": {"source/forms/gzip_stream.py"},
    "numba": {"science/kernels.py"},
    "matplotlib": {"report/", "bench/", "read/picture.py", "read/figure.py"},
}
"""Where a library may be imported; nowhere else."""


def find_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Place and full name of each module that a file imports anywhere, also inside functions and for types."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "nsd_zarr" else [module]
        else:
            continue
        yield from ((f"{find_name(path)}:{node.lineno}", name) for name in names)


def find_name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def find_part(path: Path) -> str:
    """The part of the package that a file belongs to: its folder, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def find_part_seen(module: str) -> str:
    """The part that an import of "nsd_zarr..." reaches; the public face is __init__."""
    part = module.split(".")[1] if "." in module else "__init__"
    return "__init__" if part in nsd_zarr.__all__ else part


def find_forbidden_arrows(paths: list[Path]) -> list[str]:
    return [
        f"{place}: {find_part(path)} may not see {module}"
        for path in paths
        for place, module in find_imports(path)
        if module.split(".")[0] == "nsd_zarr"
        and find_part_seen(module) not in SEES.get(find_part(path), set()) | {find_part(path)}
    ]


def find_misplaced_libraries(paths: list[Path]) -> list[str]:
    return [
        f"{place}: {module} has its place in {PLACES[module.split('.')[0]]}"
        for path in paths
        for place, module in find_imports(path)
        if module.split(".")[0] in PLACES and not find_name(path).startswith(tuple(PLACES[module.split(".")[0]]))
    ]


def test_every_part_sees_only_what_it_may():
    assert find_forbidden_arrows(MODULES) == []


def test_every_part_has_its_place_in_the_table():
    assert {find_part(path) for path in MODULES} <= set(SEES)


def test_libraries_are_imported_in_their_places_alone():
    assert find_misplaced_libraries(MODULES) == []


def find_durable_calls(paths: list[Path]) -> list[str]:
    """Where a module outside places/ renames, flushes or locks by itself."""
    calls = {"os.replace", "os.rename", "os.link", "os.fsync", "os.fdatasync"}
    return [
        f"{find_name(path)}:{node.lineno}"
        for path in paths
        if find_part(path) != "places"
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in calls)
        or (isinstance(node, ast.ImportFrom) and {f"{node.module}.{alias.name}" for alias in node.names} & calls)
        or (isinstance(node, ast.Import) and "fcntl" in {alias.name for alias in node.names})
        or (isinstance(node, ast.ImportFrom) and node.module == "fcntl")
    ]


def test_only_places_rename_flush_and_lock():
    assert find_durable_calls(MODULES) == []


def test_source_and_store_never_see_each_other():
    assert "source" not in SEES["store"] | SEES["read"]
    assert "store" not in SEES["source"]


def test_making_a_store_knows_nothing_of_maintaining_one():
    assert "maintenance" not in SEES["conversion"]


def test_no_folder_holds_more_than_twenty_modules():
    folders = {folder: len(list(folder.glob("*.py"))) for folder in PACKAGE.rglob("*") if folder.is_dir()}
    assert {folder.name: count for folder, count in folders.items() if count > 20} == {}


def test_no_modules_import_each_other_in_a_circle():
    names = {"nsd_zarr." + find_name(path).removesuffix(".py").replace("/", "."): path for path in MODULES}
    seen = {name: {other for _, other in find_imports(path) if other in names} for name, path in names.items()}
    left = dict(seen)
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    assert sorted(left) == []


def test_checks_are_seen_to_fail(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "store").mkdir()
    odd = tmp_path / "store/odd.py"
    odd.write_text(
        "def f():\n    from nsd_zarr.source import find\n    from nsd_zarr import convert\n    import h5py.h5d\n"
    )
    assert [found.split(":")[1] for found in find_forbidden_arrows([odd])] == ["2", "3"]
    assert [found.split(":")[1] for found in find_misplaced_libraries([odd])] == ["4"]
    odd.write_text("import fcntl\nimport os\nfrom os import fsync\n\nos.replace(1, 2)\nflush = os.fsync\n'a'.replace\n")
    assert sorted(found.split(":")[1] for found in find_durable_calls([odd])) == ["1", "3", "5", "6"]
    (tmp_path / "places").mkdir()
    assert find_durable_calls([odd.rename(tmp_path / "places/odd.py")]) == []


def test_modules_are_short_and_say_what_they_are():
    texts = {find_name(path): path.read_text() for path in MODULES}
    assert [name for name, text in texts.items() if len(text.splitlines()) > 300] == []
    assert [name for name, text in texts.items() if not ast.get_docstring(ast.parse(text))] == []


def test_nothing_prints_below_the_command_line():
    words = {"print", "sys.stdout", "sys.stderr"}
    assert [
        f"{find_name(path)}:{node.lineno}"
        for path in MODULES
        if find_part(path) != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in words
    ] == []


def test_importing_the_package_is_cheap():
    heavy = [
        "torch",
        "dask",
        "distributed",
        "xarray",
        "h5py",
        "zarr",
        "numcodecs",
        "numpy",
        "pandas",
        "matplotlib",
        "numba",
    ]
    code = f"import sys, nsd_zarr.cli.main; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"


def test_torch_is_asked_for_with_the_cure_where_it_is_missing():
    code = "import sys; sys.modules['torch'] = None; import nsd_zarr.torch"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.endswith('MissingLibrary: nsd_zarr.torch needs PyTorch: pip install "nsd-zarr[torch]"\n')


def find_records():
    """Public classes of fields: reports, events, plans, options."""
    named = [getattr(nsd_zarr, name) for name in set(nsd_zarr.__all__) - NO_DOCS]
    return [each for each in named if inspect.isclass(each) and "__annotations__" in vars(each)]


NO_DOCS = {"__version__", "Event", "Listener"}
"""Public names that are no class or function, documented where they are defined."""
SECTIONS = ("Parameters", "Returns", "Raises", "Examples")


@pytest.mark.parametrize("name", sorted(set(nsd_zarr.__all__) - NO_DOCS))
def test_public_name_is_documented(name):
    assert inspect.getdoc(getattr(nsd_zarr, name))


@pytest.mark.parametrize("name", [name for name in nsd_zarr.__all__ if inspect.isfunction(getattr(nsd_zarr, name))])
def test_public_function_has_every_section_and_names_every_parameter(name):
    check_sections(getattr(nsd_zarr, name))


def test_public_names_for_pytorch_have_every_section_and_name_every_parameter():
    pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset, TrialLoader, to_percent

    check_sections(to_percent)
    for documented in (TrialDataset, TrialLoader):
        check_sections(documented, [section for section in SECTIONS if section != "Returns"])


@pytest.mark.parametrize("name", [name for name in nsd_zarr.__all__ if getattr(nsd_zarr, name) in find_records()])
def test_public_record_says_of_each_field_what_it_is(name):
    body = ast.parse(inspect.getsource(getattr(nsd_zarr, name))).body[0].body
    pairs = zip(body, [*body[1:], None], strict=True)
    bare = [field.target.id for field, docs in pairs if isinstance(field, ast.AnnAssign) and not is_text(docs)]
    assert bare == []


def is_text(statement):
    return isinstance(getattr(statement, "value", None), ast.Constant) and isinstance(statement.value.value, str)


def check_sections(documented, sections=SECTIONS):
    text = inspect.getdoc(documented)
    assert [section for section in sections if f"\n{section}\n{'-' * len(section)}\n" not in text] == []
    listed = re.split("\n(?:Returns|Raises)\n", text.partition("Parameters\n")[2])[0]
    names = {word.strip("*, ") for line in listed.splitlines() if not line.startswith(" ") for word in line.split(",")}
    assert set(inspect.signature(documented).parameters) - {"unknown"} <= names


def test_public_names_are_sorted_and_each_has_its_module():
    assert nsd_zarr.__all__ == sorted(nsd_zarr.__all__)
    assert {name: getattr(nsd_zarr, name).__name__ for name in set(nsd_zarr.__all__) - NO_DOCS} == {
        name: name for name in set(nsd_zarr.__all__) - NO_DOCS
    }


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        nsd_zarr.no_such  # noqa: B018
