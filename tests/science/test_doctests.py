import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["zscore", "repeats", "ceiling", "splits"])
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(import_module(f"nsd_zarr.science.{name}")).failed == 0
