import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.layout import (
    COUNTS_PER_PERCENT,
    DECODED_SHARD_BYTES,
    DTYPE_BYTES,
    Geometry,
    SessionNumber,
    choose_images_per_shard,
    choose_trials_per_shard,
    divisors,
    format_bytes,
    format_seconds,
    make_dims,
    make_image_geometry,
    runs_of,
)


@st.composite
def geometries(draw):
    per_shard = draw(st.integers(1, 30))
    numbers = draw(st.sets(st.integers(1, 60), min_size=1, max_size=9))
    return Geometry(
        sessions=tuple(SessionNumber(number) for number in sorted(numbers)),
        trials_per_session=per_shard * draw(st.integers(1, 12)),
        trials_per_shard=per_shard,
        volume_shape=tuple(draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))),
        dtype=draw(st.sampled_from(sorted(DTYPE_BYTES))),
    )


@given(geometries())
def test_shards_hold_every_trial_once_and_never_cross_a_session(geometry):
    trials = [trial for shard in range(geometry.shards) for trial in geometry.shard_trials(shard)]
    assert trials == list(range(geometry.trials))
    for shard in range(geometry.shards):
        sessions = {geometry.locate_trial(trial)[0] for trial in geometry.shard_trials(shard)}
        assert len(sessions) == 1
        assert shard in geometry.session_shards(sessions.pop())


@given(geometries())
def test_sessions_share_out_the_shards(geometry):
    shards = [shard for session in geometry.sessions for shard in geometry.session_shards(session)]
    assert shards == list(range(geometry.shards))
    assert all(len(geometry.session_shards(session)) == geometry.shards_per_session for session in geometry.sessions)


@given(geometries(), st.data())
def test_trial_to_session_and_back(geometry, data):
    trial = data.draw(st.integers(0, geometry.trials - 1))
    session, inside = geometry.locate_trial(trial)
    assert 0 <= inside < geometry.trials_per_session
    assert geometry.first_trial(session) + inside == trial


@given(geometries())
def test_every_session_begins_with_its_trial_0(geometry):
    for session in geometry.sessions:
        assert geometry.locate_trial(geometry.first_trial(session)) == (session, 0)


@given(geometries())
def test_sizes_follow_from_shape_and_dtype(geometry):
    array = np.empty(geometry.volume_shape, geometry.dtype)
    assert (geometry.voxels, geometry.trial_bytes) == (array.size, array.nbytes)
    assert geometry.shape == (geometry.trials, *array.shape)


@pytest.mark.parametrize("trial", [-1, 20, 10**9])
def test_trial_outside_the_store_is_an_index_error(trial):
    geometry = Geometry((SessionNumber(2), SessionNumber(5)), 10, 5, (7,), "int16")
    assert geometry.locate_trial(19) == (5, 9)
    with pytest.raises(IndexError, match=f"trial {trial} is outside the store's 20 trials"):
        geometry.locate_trial(trial)


def test_session_that_the_store_lacks_is_an_error():
    with pytest.raises(ValueError, match="not in tuple"):
        Geometry((SessionNumber(2),), 10, 5, (7,), "int16").first_trial(SessionNumber(3))


@pytest.mark.parametrize(("trials", "per_shard"), [(750, 100), (10, 20), (7, 2)])
def test_shards_that_do_not_tile_a_session_are_refused(trials, per_shard):
    with pytest.raises(ValueError, match=f"{per_shard} trials per shard do not divide {trials} trials per session"):
        Geometry((SessionNumber(1),), trials, per_shard, (5, 7, 3), "int16")


@pytest.mark.parametrize(
    ("trials", "trial_bytes", "expected"),
    [
        (750, 83 * 104 * 81 * 2, 75),
        (750, 150 * 150 * 100 * 2, 25),
        (750, 150 * 150 * 100 * 4, 10),
        (750, 145 * 186 * 148 * 2, 15),
        (750, 327_684 * 2, 150),
        (6, 210, 6),
        (7, DECODED_SHARD_BYTES, 1),
        (7, DECODED_SHARD_BYTES * 10, 1),
        (750, DECODED_SHARD_BYTES // 2, 2),
        (751, DECODED_SHARD_BYTES // 2, 1),
        (1, 1, 1),
    ],
)
def test_trials_per_shard_at_known_shapes(trials, trial_bytes, expected):
    assert choose_trials_per_shard(trials, trial_bytes) == expected


@given(st.integers(1, 2000), st.integers(1, 2**30))
def test_trials_per_shard_is_the_largest_divisor_that_fits(trials, trial_bytes):
    chosen = choose_trials_per_shard(trials, trial_bytes)
    assert trials % chosen == 0
    assert chosen == 1 or chosen * trial_bytes <= DECODED_SHARD_BYTES
    larger = [count for count in range(chosen + 1, trials + 1) if trials % count == 0]
    assert all(count * trial_bytes > DECODED_SHARD_BYTES for count in larger)


@given(st.integers(1, 3000))
def test_divisors_are_all_and_ascend(number):
    found = list(divisors(number))
    assert found == sorted(set(found))
    assert found == [count for count in range(1, number + 1) if math.gcd(count, number) == count]


def test_runs_of_a_whole_session_alternate():
    assert runs_of(750) == [63, 62] * 6


@given(st.integers(0, 2000))
def test_runs_are_twelve_of_nearly_equal_length(trials):
    runs = runs_of(trials)
    assert len(runs) == 12
    assert sum(runs) == trials
    assert max(runs) - min(runs) <= 1


def test_dims_of_volumes_and_surfaces():
    assert make_dims(4) == ("trial", "z", "y", "x")
    assert make_dims(2) == ("trial", "vertex")
    for ndim in (0, 1, 3, 5):
        with pytest.raises(ValueError, match=f"not {ndim}"):
            make_dims(ndim)


def test_dtype_bytes_are_numpy_s():
    assert {name: np.dtype(name).itemsize for name in DTYPE_BYTES} == DTYPE_BYTES
    assert all(np.dtype(name).name == name for name in DTYPE_BYTES)


def test_percent_is_a_division_by_300():
    assert COUNTS_PER_PERCENT == 300


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1_500, "1.5 kB"),
        (9_000_000, "9 MB"),
        (1_048_788_000, "1.05 GB"),
        (270_000_000_000, "270 GB"),
        (1_650_000_000_000, "1.65 TB"),
    ],
)
def test_bytes_for_people_are_decimal(count, text):
    assert format_bytes(count) == text


def test_layout_imports_nothing_heavy():
    code = "import sys, nsd_zarr.layout; print(sorted({'numpy', 'h5py', 'zarr', 'dask', 'xarray'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == "[]"


# -- images ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 50))
def test_shards_of_images_partition_all_images_once(images, per_shard):
    geometry = make_image_geometry((images, 7, 5, 3), per_shard)
    assert [image for shard in range(geometry.shards) for image in geometry.shard_trials(shard)] == [*range(images)]
    assert [*geometry.session_shards(geometry.sessions[-1])] == [geometry.shards - 1]
    assert (geometry.shape, geometry.trial_bytes) == ((images, 7, 5, 3), 105)


@given(st.integers(1, 80_000), st.integers(1, 10**9), st.integers(1, 1000))
def test_shard_of_images_is_whole_chunks_of_the_source(images, image_bytes, chunk):
    count = choose_images_per_shard(images, image_bytes, chunk)
    assert 1 <= count <= images
    assert count % chunk == 0 or count == images
    assert count * image_bytes <= DECODED_SHARD_BYTES or count <= chunk


def test_shard_of_images_at_the_reference_shape():
    assert choose_images_per_shard(73_000, 425 * 425 * 3, 1) == 247
    assert choose_images_per_shard(73_000, 425 * 425 * 3, 64) == 192


@pytest.mark.parametrize("count", [6, 13])
def test_only_the_last_session_may_be_short(count):
    with pytest.raises(ValueError, match=f"{count} trials do not end in the last of 2 sessions"):
        Geometry((1, 2), 6, 3, (5,), "int16", count=count)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than 1 s"),
        (0.99, "less than 1 s"),
        (1, "1 s"),
        (47.4, "47 s"),
        (99.4, "99 s"),
        (100, "1.7 min"),
        (120, "2 min"),
        (599, "10 min"),
        (5940, "99 min"),
        (6000, "1.7 h"),
        (360_000, "100 h"),
    ],
)
def test_times_are_shown_with_two_digits(seconds, text):
    assert format_seconds(seconds) == text
