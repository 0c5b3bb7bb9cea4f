import pickle

import numpy as np
import pytest

from nsd_zarr.read.percent import PercentReader, scale_into
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store

CODES = np.arange(-32_768, 32_768).astype("int16")


def same_bits(left, right):
    """Equal to the last bit: tells 0.0 from -0.0 and one NaN from another."""
    return left.dtype == right.dtype and np.array_equal(left.view("u4"), right.view("u4"))


def test_every_code_is_scaled_to_the_last_bit():
    out = np.empty(CODES.shape, np.float32)
    scale_into(CODES, out)
    assert same_bits(out, np.float32(CODES) / np.float32(300))


def test_product_with_the_reciprocal_would_differ():
    wrong = np.float32(CODES) * np.float32(1 / 300)
    assert (wrong != np.float32(CODES) / np.float32(300)).sum() == 19_116


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int32", "uint32", "int64", ">i2"])
def test_counts_of_any_integer_dtype_are_scaled(dtype):
    limits = np.iinfo(dtype)
    counts = np.array([limits.min, limits.min + 1, 7, 100, limits.max - 1, limits.max], dtype)
    out = np.empty(counts.shape, np.float32)
    scale_into(counts, out)
    assert same_bits(out, np.float32(counts) / np.float32(300))


def test_every_code_comes_out_of_a_store_to_the_last_bit(every_code):
    reader = PercentReader(TrialReader(open_store(every_code.path)))
    out = np.empty(every_code.stored.shape, np.float32)
    for trial, volume in enumerate(out):
        reader.read_into(trial, volume)
    assert np.unique(every_code.stored).size == 65_536
    assert same_bits(out, np.float32(every_code.stored) / np.float32(300))


def test_float_source_is_delivered_as_it_is(floats):
    reader = PercentReader(TrialReader(open_store(floats.path)))
    assert reader.dtype == np.float32
    out = np.empty(floats.stored.shape, np.float32)
    for trial, volume in enumerate(out):
        reader.read_into(trial, volume)
    assert np.isnan(out).any()
    assert same_bits(out, floats.stored)


def test_reader_pickles_without_its_buffers(volumes):
    reader = PercentReader(TrialReader(open_store(volumes.path)))
    out = np.empty(volumes.stored.shape[1:], np.float32)
    reader.read_into(3, out)
    again = pickle.loads(pickle.dumps(reader))
    again.read_into(40, out)
    assert np.array_equal(out, volumes.percent[40])


@pytest.mark.parametrize("trial", [-1, 42])
def test_trial_outside_the_store_is_an_index_error(volumes, trial):
    reader = PercentReader(TrialReader(open_store(volumes.path)))
    with pytest.raises(IndexError, match=f"trial {trial} is outside the store's 42 trials"):
        reader.read_into(trial, np.empty(volumes.stored.shape[1:], np.float32))
