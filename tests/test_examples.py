"""Every public name tells what it does by an example, and every example runs."""

import doctest
import inspect
import os
import shutil
import subprocess
import sys

import pytest

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("examples")]

NO_DOCS = {"__version__", "Event", "Listener"}
FACE = [name for name in nsd_zarr.__all__ if name not in NO_DOCS]
TORCH_FACE = ["TrialDataset", "TrialLoader", "to_percent"]
MAKE_STORE = ["convert", "ConversionReport"]
"""Whose examples make the store that the others read."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("examples")
    simulate_root(made / "nsd", Simulation(sessions=3, shape=(12, 7, 11, 5), images=73_000, image_size=8))
    nsd_zarr.convert(made / "nsd", made / "subj01.zarr", subject=1)
    return made


@pytest.fixture
def run_examples(root, tmp_path, monkeypatch):
    """Run the examples of an object, and of its public methods, in a folder with an NSD root and its store."""

    def run(public, name, **names):
        (tmp_path / "nsd").symlink_to(root / "nsd")
        if name not in MAKE_STORE:
            shutil.copytree(root / "subj01.zarr", tmp_path / "subj01.zarr")
        monkeypatch.chdir(tmp_path)
        tests = [test for test in doctest.DocTestFinder().find(public, name, globs=names) if test.examples]
        runner = doctest.DocTestRunner()
        assert [test.name for test in tests if runner.run(test).failed] == []
        return {test.name for test in tests}

    return run


def find_methods(public):
    """Names of the public methods and properties that *public* itself defines."""
    kinds = (property, staticmethod, classmethod)
    return {
        f"{public.__name__}.{name}"
        for name, member in vars(public).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds))
    }


@pytest.mark.parametrize("name", FACE)
def test_public_name_has_an_example_that_runs(name, run_examples):
    assert name in run_examples(getattr(nsd_zarr, name), name, nsd_zarr=nsd_zarr, os=os)


@pytest.mark.parametrize("name", TORCH_FACE)
def test_public_name_for_pytorch_and_its_methods_have_examples_that_run(name, run_examples):
    torch = pytest.importorskip("torch")
    import nsd_zarr.torch as face

    assert sorted(face.__all__) == sorted(TORCH_FACE)
    names = {each: getattr(face, each) for each in TORCH_FACE}
    ran = run_examples(names[name], name, torch=torch, **names)
    assert name in ran
    if name == "TrialLoader":
        assert find_methods(names[name]) <= ran


def test_accessor_begins_with_an_example_that_runs(root, run_examples):
    from nsd_zarr.read.accessor import NsdAccessor

    class Accessor:
        __doc__ = NsdAccessor.__doc__  # tests/read/test_accessor.py runs those of the methods

    ds = nsd_zarr.open_dataset(root / "subj01.zarr")
    assert run_examples(Accessor, "ds.nsd", ds=ds) == {"ds.nsd"}


def test_example_that_is_wrong_is_seen_to_fail(run_examples):
    def wrong():
        """Say nothing true.

        >>> 1 + 1
        3
        """

    with pytest.raises(AssertionError, match="wrong"):
        run_examples(wrong, "wrong")


def test_package_begins_with_an_example_that_runs(root, tmp_path):
    (tmp_path / "nsd").symlink_to(root / "nsd")
    code = "import doctest, sys, nsd_zarr; sys.exit(doctest.testmod(nsd_zarr).failed)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
