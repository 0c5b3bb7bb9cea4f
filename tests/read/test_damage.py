import os
import pickle

import numpy as np
import pytest
import xarray as xr
from google_crc32c import value as crc32c

import nsd_zarr
from nsd_zarr.errors import DamageFound

TRIAL = 24
"""In shard 3: trial 10 of session 3."""
ENTRY = 16 * (TRIAL % 7)


def read_index(path):
    return bytearray(path.read_bytes()[-16 * 7 - 4 : -4])


def write_index(path, index):
    data = path.read_bytes()[: -16 * 7 - 4]
    path.write_bytes(data + bytes(index) + crc32c(bytes(index)).to_bytes(4, "big")[::-1])


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def find_chunk(path):
    offset, length = np.frombuffer(read_index(path), "<u8")[2 * (TRIAL % 7) :][:2].tolist()
    return offset, length


def flip_value(path):
    flip(path, find_chunk(path)[0] + 40)


def flip_index(path):
    flip(path, -20)


def flip_index_checksum(path):
    flip(path, -1, 7)


def cut_short(path):
    os.truncate(path, path.stat().st_size - 1)


def cut_to_nothing(path):
    os.truncate(path, 0)


def grow(path):
    path.write_bytes(path.read_bytes() + b"\1")


def forget_chunk(path):
    index = read_index(path)
    index[ENTRY : ENTRY + 16] = b"\xff" * 16
    write_index(path, index)


def point_outside(path):
    index = read_index(path)
    index[ENTRY : ENTRY + 8] = (2**63).to_bytes(8, "little")
    write_index(path, index)


def shorten_chunk(path):
    index = read_index(path)
    index[ENTRY + 8 : ENTRY + 16] = (11).to_bytes(8, "little")
    write_index(path, index)


def claim_other_size(path):
    """A Blosc header that tells another decoded size, under a right checksum."""
    offset, length = find_chunk(path)
    data = bytearray(path.read_bytes())
    data[offset + 4] ^= 2
    frame = bytes(data[offset : offset + length - 4])
    data[offset + length - 4 : offset + length] = crc32c(frame).to_bytes(4, "little")
    path.write_bytes(data)


def become_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    os.unlink: "No such file",
    flip_value: "crc32c does not match",
    flip_index: "crc32c of its index",
    flip_index_checksum: "crc32c of its index",
    cut_short: "bytes, expected",
    cut_to_nothing: "has 0 bytes, expected",
    grow: "bytes, expected",
    forget_chunk: "chunk 3 was never written",
    point_outside: "points outside the file",
    shorten_chunk: "do not lie one behind the other",
    claim_other_size: "Blosc header says",
    become_folder: "",
}


@pytest.fixture
def damaged(volumes, tmp_path):
    return volumes.copy_to(tmp_path / "damaged.zarr")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_trial_raises_and_names_trial_and_shard(damaged, damage):
    damage(damaged.shard_path(TRIAL))
    dataset = nsd_zarr.open_dataset(damaged.path)
    with pytest.raises(
        DamageFound, match=rf"trial 24 \(trial 10 of its session, in betas shard 3\).*{DAMAGES[damage]}"
    ) as got:
        dataset.betas[TRIAL].load()
    assert got.value.session == 3
    assert got.value.path == damaged.shard_path(TRIAL)
    assert f"nsd-zarr verify {damaged.path}" in str(got.value)
    assert str(pickle.loads(pickle.dumps(got.value))) == str(got.value)
    assert np.array_equal(dataset.betas[20].values, damaged.percent[20])


@pytest.mark.parametrize("options", [{"raw": True}, {"chunks": {}}], ids=str)
@pytest.mark.parametrize("key", [[3, TRIAL], slice(20, 30), TRIAL], ids=str)
def test_damage_is_reported_on_every_way_to_the_values(damaged, options, key):
    flip_value(damaged.shard_path(TRIAL))
    betas = nsd_zarr.open_dataset(damaged.path, **options).betas
    with pytest.raises(DamageFound, match="trial 24 "):
        betas.isel(trial=key).compute()


def test_shard_that_shrinks_while_it_is_open_raises(damaged):
    dataset = nsd_zarr.open_dataset(damaged.path)
    dataset.betas[21].load()
    os.truncate(damaged.shard_path(TRIAL), 100)
    with pytest.raises(DamageFound, match=r"trial 24 .* the file ends inside it"):
        dataset.betas[TRIAL].load()


def test_trial_is_readable_again_when_its_shard_is_back(damaged):
    path = damaged.shard_path(TRIAL)
    path.rename(path.with_name("away"))
    dataset = nsd_zarr.open_dataset(damaged.path)
    with pytest.raises(DamageFound):
        dataset.betas[TRIAL].load()
    path.with_name("away").rename(path)
    assert np.array_equal(dataset.betas[TRIAL].values, damaged.percent[TRIAL])


def test_no_flipped_bit_of_a_shard_gives_wrong_values(damaged):
    path = damaged.shard_path(TRIAL)
    whole = path.read_bytes()
    random = np.random.default_rng(7)
    for place, bit in zip(random.integers(0, len(whole), 200), random.integers(0, 8, 200), strict=True):
        path.write_bytes(whole)
        flip(path, place, bit)
        betas = nsd_zarr.open_dataset(damaged.path, raw=True).betas
        refused = 0
        for trial in range(21, 28):
            try:
                assert np.array_equal(betas[trial].values, damaged.stored[trial])
            except DamageFound:
                refused += 1
        offsets = np.frombuffer(read_index(path), "<u8").reshape(7, 2).sum(1).astype(int) if refused < 7 else []
        is_crc = any(end - 4 <= place < end for end in offsets)
        assert refused in ((0, 7) if is_crc else (1, 7))  # the chunk's own trial, or for the index all


@pytest.mark.parametrize("damage", [os.unlink, cut_short, flip_index], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["session", "trial_in_session"])
def test_damaged_small_array_raises_and_names_it(damaged, name, damage):
    damage(damaged.path / name / "c/0")
    dataset = xr.open_dataset(damaged.path)
    with pytest.raises(DamageFound, match=f"array {name} is lost or damaged"):
        dataset[name].load()
    if name == "trial_digest":
        with pytest.raises(DamageFound, match="values cannot be checked, and none is given out: array trial_digest"):
            dataset.betas[4].variable.load()
    else:
        assert np.array_equal(dataset.betas[4].values, damaged.percent[4])


def test_small_array_of_another_store_is_damage(damaged, make_store):
    other = make_store(sessions=(2, 3, 4))
    (damaged.path / "session/c/0").write_bytes((other.path / "session/c/0").read_bytes())
    with pytest.raises(DamageFound, match="digest is not the manifest's"):
        xr.open_dataset(damaged.path).session.load()
