"""Settings: what has to be the same for the same bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nsd_zarr.conversion import settings as module
from nsd_zarr.conversion.settings import Settings

SETTINGS = Settings("betas", (1, 2), 2, "lz4", 5, (6, 5, 7, 11), "int16")
OTHERS = {
    "dataset": "betas_FIR",
    "sessions": (1, 3),
    "trials_per_shard": 3,
    "codec": "zstd",
    "clevel": 6,
    "shape": (6, 5, 11, 7),
    "dtype": "float32",
}


@pytest.mark.parametrize("name", OTHERS)
def test_fingerprint_changes_with_each_setting(name):
    other = replace(SETTINGS, **{name: OTHERS[name]})
    assert other.make_fingerprint() != SETTINGS.make_fingerprint()
    assert len(SETTINGS.list_differences(other.make_attributes())) == 1
    assert SETTINGS.list_differences(other.make_attributes())[0].startswith(name)


def test_fingerprint_changes_with_a_library_that_makes_bytes(monkeypatch):
    before = SETTINGS.make_fingerprint()
    monkeypatch.setattr(module, "version", lambda name: "0.0.0")
    assert SETTINGS.make_fingerprint() != before


@pytest.mark.parametrize("library", ["nsd-zarr", "numpy", "h5py"])
def test_fingerprint_is_the_same_after_an_upgrade_of_what_decides_no_byte(library, monkeypatch):
    before, real = SETTINGS.make_fingerprint(), module.version
    monkeypatch.setattr(module, "version", lambda name: "99.0" if name == library else real(name))
    assert module.make_library_versions()[library.replace("-", "_")] == "99.0"
    assert SETTINGS.make_fingerprint() == before


def test_equal_settings_have_no_differences():
    assert SETTINGS.list_differences(replace(SETTINGS).make_attributes()) == []


@pytest.mark.parametrize(("dtype", "size"), [("int8", 1), ("int16", 2), ("float64", 8)])
def test_blosc_shuffles_by_the_size_of_a_value(dtype, size):
    assert replace(SETTINGS, dtype=dtype).blosc.typesize == size
