"""What an installation without extras can do, what it says of the rest, and what pyproject.toml holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import nsd_zarr
from nsd_zarr.conversion.cluster import run_on_cluster
from nsd_zarr.conversion.settings import find_release, make_library_versions
from nsd_zarr.errors import MissingLibrary
from nsd_zarr.libraries import EXTRAS, NAMES, check_library, explain_absence, has_library

HERE = Path(__file__).parent.parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())
EXTRA_LISTS = PROJECT["project"]["optional-dependencies"]
OPTIONAL = sorted(set(EXTRAS) - {"torch"} | {"tqdm", "lightning"})
STORE = Path(__file__).parent / "data/store_of_format_1_0.zip"
"""A store of two sessions of 12 trials with its experiment."""


def run_without(libraries, code, *arguments, folder=None):
    """Run *code* where importing any of *libraries* fails as if it were not installed."""
    block = f"import sys\nfor name in {list(libraries)}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", block + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = tmp_path_factory.mktemp("packaging") / "subj01.zarr"
    with zipfile.ZipFile(STORE) as archive:
        archive.extractall(made)
    return made


# -- without extras ----------------------------------------------------------------------------------------------

READS = """
import json, numpy as np, nsd_zarr, xarray as xr
ds = nsd_zarr.open_dataset(sys.argv[1])
raw = xr.open_dataset(sys.argv[1], engine="nsd_zarr", mask_and_scale=False)
assert np.array_equal(ds.betas.values, raw.betas.values / np.float32(300))
assert len(ds.nsd.trials()) == ds.sizes["trial"] and "nsdgeneral" in repr(ds.nsd)
assert np.isfinite(ds.nsd.roi("nsdgeneral").nsd.zscore("session").betas.isel(trial=3)).any()
loaded = [name for name in json.loads(sys.argv[2]) if sys.modules.get(name)]
print(ds.betas.shape, loaded)
"""


def test_store_is_read_without_any_extra(store):
    done = run_without(EXTRAS, READS, store, json.dumps(OPTIONAL))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{nsd_zarr.open_dataset(store).betas.shape} []\n"


TRAINS = """
import torch
from nsd_zarr.torch import TrialDataset, TrialLoader
stock = torch.utils.data.DataLoader(TrialDataset(sys.argv[1], roi="nsdgeneral"), batch_size=5, num_workers=2)
own = TrialLoader(TrialDataset(sys.argv[1], roi="nsdgeneral", zscore="session"), batch_size=5, shuffle=True, seed=0)
print(sum(len(batch["betas"]) for batch in stock), sum(int(batch["valid"].sum()) for batch in own))
"""


def test_pytorch_trains_without_any_other_extra(store):
    pytest.importorskip("torch")
    done = run_without(OPTIONAL, TRAINS, store)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "24 24\n"


COMMANDS = """
from nsd_zarr.cli.main import run
store = sys.argv[1]
for line in ("info " + store, "--help", "convert nsd new.zarr", "plan nsd new.zarr", "simulate nsd", "demo nsd"):
    print(line.split()[0], run(line.split()), file=sys.stderr)
"""
CURES = "".join(
    f'nsd-zarr {name} needs h5py: pip install "nsd-zarr[convert]"\n{name} 2\n'
    for name in ("convert", "plan", "simulate", "demo")
)


def test_commands_run_without_any_extra_or_name_the_cure_before_they_write(store, tmp_path):
    done = run_without(EXTRAS, COMMANDS, store, folder=tmp_path)
    assert "sessions   1-2, 24 trials" in done.stdout
    assert done.stderr == f"info 0\n--help 0\n{CURES}"
    assert list(tmp_path.iterdir()) == []


# -- an absent part, and its cure --------------------------------------------------------------------------------

FUNCTIONS = {
    "nsd_zarr.convert": ("nsd_zarr.convert", "h5py", "convert"),
    "nsd_zarr.open_dataset('x', chunks={})": ("open_dataset with chunks", "dask", "convert"),
    "nsd_zarr.open_dataset(sys.argv[1]).nsd.to_nifti(0)": ("ds.nsd.to_nifti", "nibabel", "convert"),
    "nsd_zarr.open_dataset(sys.argv[1]).nsd.plot(0)": ("ds.nsd.plot", "matplotlib", "plot"),
    "__import__('nsd_zarr.hdf5').hdf5.open_hdf5('x')": ("reading an HDF5 file", "h5py", "convert"),
    "__import__('nsd_zarr.torch')": ("nsd_zarr.torch", "PyTorch", "torch"),
}
ASKS = """
import nsd_zarr
for code in sys.argv[2:]:
    try:
        eval(code)
    except ImportError as error:
        print(type(error).__name__, error)
"""


def test_functions_without_their_library_name_the_cure(store):
    done = run_without(EXTRAS, ASKS, store, *FUNCTIONS)
    assert done.stdout.splitlines() == [
        f'MissingLibrary {what} needs {library}: pip install "nsd-zarr[{extra}]"'
        for what, library, extra in FUNCTIONS.values()
    ]


def test_cluster_without_distributed_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingLibrary, match=r'needs distributed: pip install "nsd-zarr\[cluster\]"$'):
        run_on_cluster([], "tcp://127.0.0.1:1", None, None, print)


def test_named_is_the_first_library_of_an_extra_whichever_import_failed(monkeypatch):
    for name in ("pydantic", "nibabel"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibrary, match=r"^nsd-zarr plan needs nibabel"), explain_absence("nsd-zarr plan"):
        import pydantic  # noqa: F401


def test_missing_library_is_an_import_error_with_what_to_install():
    with pytest.raises(ImportError, match=r"^a picture needs no_such: ") as caught:
        check_library("no_such", "a picture", "plot")
    assert (caught.value.library, caught.value.extra, caught.value.exit_code) == ("no_such", "plot", 2)
    assert str(caught.value.explain("report")) == 'report needs no_such: pip install "nsd-zarr[plot]"'


def test_library_that_is_there_and_broken_is_not_called_absent():
    with pytest.raises(ModuleNotFoundError, match=r"yaml\.no_such_part") as caught, explain_absence("convert"):
        import yaml.no_such_part  # noqa: F401
    assert not isinstance(caught.value, MissingLibrary)
    assert has_library("yaml")


# -- the package's description -----------------------------------------------------------------------------------


def name_requirements(requirements):
    return {re.split(r"[\[<>=]", text)[0].lower() for text in requirements}


def test_each_optional_library_is_in_the_extra_that_messages_name():
    projects = {"yaml": "pyyaml"}
    for library, extra in EXTRAS.items():
        if extra in EXTRA_LISTS:
            assert projects.get(library, library) in name_requirements(EXTRA_LISTS[extra]), library
    assert not {projects.get(library, library) for library in EXTRAS} & name_requirements(
        PROJECT["project"]["dependencies"]
    )
    assert set(NAMES) <= set(EXTRAS)


def test_all_means_every_extra_for_users():
    inside = set(re.findall(r"\w+", EXTRA_LISTS["all"][0].partition("[")[2]))
    assert inside == set(EXTRA_LISTS) - {"all", "test", "dev", "docs", "peers", "trainers", "servers"}


def test_every_floor_of_the_dependencies_is_stated():
    listed = [*PROJECT["project"]["dependencies"], *(text for name in EXTRA_LISTS.values() for text in name)]
    assert [text for text in listed if not re.search(r">=\d|==\d|^nsd-zarr\[|^types-", text)] == []


def test_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "nsd_zarr", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"nsd-zarr, version {nsd_zarr.__version__}\n")


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.2.0", "0.2.0"),
        ("0.2.0.post1.dev3+g1a2b3c4.d20261127", "0.2.0"),
        ("0.2.1.dev4", "0.2.1"),
        ("1.0rc1", "1.0rc1"),
        ("1.0rc1.dev2+gabc", "1.0rc1"),
    ],
)
def test_stores_say_the_release_without_the_suffix_of_development(version, release):
    assert find_release(version) == release


def test_version_that_a_store_says_is_the_installed_release(monkeypatch):
    monkeypatch.setattr("nsd_zarr.conversion.settings.version", lambda name: "0.2.0.post1.dev3+g1a2b3c4")
    assert make_library_versions()["nsd_zarr"] == "0.2.0"


def test_files_that_say_the_version_agree():
    fallback = PROJECT["tool"]["hatch"]["version"]["fallback-version"]
    assert re.search(r"^version: (.*)$", (HERE / "CITATION.cff").read_text(), re.MULTILINE)[1] == fallback


def test_hosted_jobs_call_scripts_that_run_alone():
    workflows = (HERE / ".github/workflows").glob("*.yml")
    called = {word for path in workflows for word in re.findall(r"run: (\S+)", path.read_text())}
    scripts = {f".ci/{path.name}" for path in (HERE / ".ci").iterdir() if not path.suffix}
    assert called == scripts - {".ci/docs"}  # .ci/run builds the site
    assert [name for name in called if not os.access(HERE / name, os.X_OK)] == []


def test_floors_are_printed_as_constraints():
    done = subprocess.run([sys.executable, HERE / ".ci/floors.py"], capture_output=True, text=True, check=True)
    assert {"numpy==2.0.*", "zarr==3.1.6", "h5py==3.12.*"} <= set(done.stdout.split())
    assert not [line for line in done.stdout.split() if not re.fullmatch(r"[\w.-]+==[\d.]+(\.\*)?", line)]


def test_fallback_version_is_that_of_the_newest_release_in_the_changelog():
    text = (HERE / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    releases = [re.fullmatch(r"(\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d", heading) for heading in headings[1:]]
    assert releases
    assert all(releases)
    assert PROJECT["tool"]["hatch"]["version"]["fallback-version"] == releases[0][1]


def test_entries_of_the_changelog_stand_below_a_kind():
    lines = (HERE / "CHANGELOG.md").read_text().splitlines()
    above = ""
    for line in lines:
        above = line if line.startswith("#") else above
        assert not line.startswith("- ") or above in ("### Added", "### Changed", "### Fixed", "### Removed"), line
