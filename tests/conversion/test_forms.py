"""One planted session in every form: stores equal what h5py and nibabel read, and odd files end in one paragraph."""

from __future__ import annotations

import gzip
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import h5py
import nibabel
import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.conversion.pipeline.in_order import write_in_order
from nsd_zarr.errors import DamageFound, SourceError
from nsd_zarr.forms import FORM_NAMES
from nsd_zarr.science.moments import Moments, compute_statistics
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.source.forms import gzip_stream

SHAPE = (12, 5, 11, 7)
BETAS = "nsddata_betas/ppdata/subj01/{}/betas_fithrf_GLMdenoise_RR"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two sessions of twelve trials in every form. Never changed."""
    return simulate_root(tmp_path_factory.mktemp("forms"), Simulation(2, SHAPE, forms=FORM_NAMES)).root


@pytest.fixture
def files(root, tmp_path):
    """Copies of both sessions of a form in one folder, which a test may change; .nii: unpacked."""

    def copy(form, folder="source"):
        made = tmp_path / folder
        made.mkdir()
        space, pattern = {
            "hdf5": ("func1pt8mm", "betas_session*.hdf5"),
            "nifti": ("func1pt8mm", "betas_session*.nii.gz"),
            "nii": ("func1pt8mm", "betas_session*.nii.gz"),
            "nativesurface": ("nativesurface", "?h.betas_session*"),
            "fsaverage": ("fsaverage", "?h.betas_session*"),
        }[form]
        for path in (root / BETAS.format(space)).glob(pattern):
            shutil.copy(path, made)
            if form == "nii":
                packed = made / path.name
                packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
                packed.unlink()
        return made

    return copy


def read_files(folder):
    """The oracle: trials of all sessions of a folder, hemispheres joined, by h5py and nibabel."""
    sessions = {}
    for path in sorted(folder.iterdir()):
        sessions.setdefault(path.name.split("session")[1][:2], []).append(_read_file(path))
    return np.concatenate([np.concatenate(sides, axis=1) for sides in sessions.values()])


def _read_file(path):
    if path.suffix == ".hdf5":
        with h5py.File(path) as file:
            return file["betas"][...]
    if path.suffix == ".mgh":
        return np.asarray(nibabel.MGHImage.from_bytes(path.read_bytes()).dataobj)[:, 0, 0].T
    return np.asarray(nibabel.load(path).dataobj).T


def read_tree(store):
    files = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    document = json.loads(files.pop("zarr.json"))
    for source in document["attributes"].pop("sources"):
        assert set(source) - {"affine"} == {"session", "name", "size", "digest"}
    del document["attributes"]["checksum"]
    return files, document


@pytest.mark.parametrize("form", ["hdf5", "nifti", "nii", "nativesurface", "fsaverage"])
def test_store_of_every_form_holds_what_an_independent_reader_finds(files, form, tmp_path):
    source, store = files(form), tmp_path / "s.zarr"
    report = nsd_zarr.convert(source, store, trials_per_shard=3, workers=2)
    assert report.sessions[0].how.startswith({"nifti": "as one stream (gzip, by zlib"}.get(form, "by offset"))
    group, expected = zarr.open_group(store, mode="r"), read_files(source)
    assert np.array_equal(group["betas"][...], expected, equal_nan=True)
    assert group["betas"].dtype == expected.dtype.newbyteorder("=")
    for number in range(2):
        found = compute_statistics(
            expected[number * 12 :][:12].astype(group["betas"].dtype), 300 if form[0] != "f" else 1
        )
        for name in ("mean", "std"):
            stored = group[f"session_{name}"][number]
            np.testing.assert_allclose(stored, getattr(found, name), rtol=1e-6)
    assert nsd_zarr.verify(store, source).damages == ()
    percent = expected if form == "fsaverage" else expected / np.float32(300)
    assert np.array_equal(nsd_zarr.open_dataset(store).betas.values, percent.astype("f4"), equal_nan=True)


@pytest.mark.parametrize("form", ["nifti", "nii"])
def test_nifti_makes_the_bytes_that_its_hdf5_twin_makes(root, files, form, tmp_path):
    for name, source in {"hdf5": files("hdf5", "one"), form: files(form, "other")}.items():
        nsd_zarr.convert(source, tmp_path / f"{name}.zarr", trials_per_shard=3, workers=2)
    one, other = (read_tree(tmp_path / f"{name}.zarr") for name in ("hdf5", form))
    assert one == other
    assert "betas/c/7/0/0/0" in one[0]


def test_nifti_makes_the_bytes_of_its_twin_with_the_whole_experiment(root, tmp_path):
    for form in ("hdf5", "nifti"):
        nsd_zarr.convert(root, tmp_path / f"{form}.zarr", space="func1pt8mm", form=form)
    one, other = (read_tree(tmp_path / f"{form}.zarr") for form in ("hdf5", "nifti"))
    assert one == other
    assert "roi_streams/zarr.json" in one[0]


def test_hdf5_is_read_where_both_are_there_and_the_plan_says_so(root, tmp_path):
    plan = nsd_zarr.plan(root, tmp_path / "s.zarr", space="func1pt8mm")
    assert [info.path.suffix for info in plan.sources] == [".hdf5", ".hdf5"]
    assert "betas_session01.nii.gz and 1 more" in str(plan)
    assert "--form nifti takes them" in str(plan)
    assert "notes" not in plan.source_attributes
    plan = nsd_zarr.plan(root, tmp_path / "s.zarr", form="nifti")
    assert "2 read as one stream (gzip" in str(plan)
    assert plan.memory.passes == 1


def test_affine_of_nifti_is_kept_where_no_other_volume_says_it(root, files, tmp_path):
    source = files("nifti")
    nsd_zarr.convert(source, tmp_path / "s.zarr")
    ds = nsd_zarr.open_dataset(tmp_path / "s.zarr")
    image = nibabel.load(source / "betas_session01.nii.gz")
    assert np.array_equal(ds.affine.values, image.affine)
    assert ds.z.attrs["axis_length"] == 5
    made = ds.nsd.to_nifti(3)
    assert np.array_equal(made.affine, image.affine)
    assert np.array_equal(made.get_fdata(), np.asarray(image.dataobj)[..., 3] / np.float32(300))
    right = ds.nsd.roi(mask=np.ones(SHAPE[1:])).right_mm.values[:2]
    np.testing.assert_allclose(right, image.affine[0, 3] + np.array([0, 1.8]), rtol=1e-6)


@pytest.mark.parametrize("form", ["nifti", "nativesurface", "fsaverage"])
def test_session_added_later_gives_the_bytes_of_all_at_once(root, form, tmp_path, digest_tree):
    options = {"space": "func1pt8mm"} if form == "nifti" else {}
    for name, sessions in {"all": [None], "later": ["1", None]}.items():
        for each in sessions:
            nsd_zarr.convert(root, tmp_path / f"{name}.zarr", form=form, sessions=each, **options)
    assert digest_tree(tmp_path / "later.zarr") == digest_tree(tmp_path / "all.zarr")


def test_mni_has_nifti_alone_with_its_valid_voxels_beside_the_betas(root, files, tmp_path):
    folder = tmp_path / "nsd" / BETAS.format("MNI")
    folder.parent.mkdir(parents=True)
    files("nifti").rename(folder)
    for path in (root / "nsddata/ppdata/subj01/func1pt8mm").glob("valid_session*"):
        shutil.copy(path, folder)
    nsd_zarr.convert(tmp_path / "nsd", tmp_path / "s.zarr", space="MNI")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    expected = [np.asarray(nibabel.load(path).dataobj).T for path in sorted(folder.glob("valid_session*"))]
    assert np.array_equal(group["valid"][...], np.array(expected) == 1)
    assert np.array_equal(group["affine"][...], nibabel.load(folder / N1).affine)
    assert nsd_zarr.open_dataset(tmp_path / "s.zarr").attrs["space"] == "MNI"


# -- files that are unfit ----------------------------------------------------------------------------------------


def change_nifti(path, **fields):
    data = bytearray(gzip.decompress(path.read_bytes()))
    header = nibabel.Nifti1Header(bytes(data[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    data[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(data)))


def change_bytes(path, change):
    path.write_bytes(change(path.read_bytes()))


def replace_volume(folder, shape):
    image = nibabel.Nifti1Image(np.ones(shape, "i2"), np.eye(4))
    (folder / "betas_session02.hdf5").unlink()
    image.to_filename(folder / "betas_session02.nii.gz")


N1 = "betas_session01.nii.gz"
ODD = {
    "gzip ends early": ("nifti", lambda f: change_bytes(f / N1, lambda data: data[:-700]), "ends early"),
    "gzip without its end": ("nifti", lambda f: change_bytes(f / N1, lambda data: data[:-5]), "ends early"),
    "bytes behind the gzip": (
        "nifti",
        lambda f: change_bytes(f / N1, lambda data: data + b"junk"),
        "other bytes lie beh",
    ),
    "a zero behind it": ("nifti", lambda f: change_bytes(f / N1, lambda data: data + b"\0"), "other bytes lie behind"),
    "a member too many": (
        "nifti",
        lambda f: change_bytes(f / N1, lambda data: data + gzip.compress(b"more")),
        "goes on after 9592 bytes",
    ),
    "fewer values": (
        "nifti",
        lambda f: change_bytes(f / N1, lambda data: gzip.compress(gzip.decompress(data)[:-2])),
        "ends after 9590 bytes, unpacked, and 2 more",
    ),
    "no gzip": ("nifti", lambda f: change_bytes(f / N1, lambda data: b"\x1f\x8b" + data[9:]), "not a NIfTI-1 header"),
    "empty": ("nifti", lambda f: change_bytes(f / N1, lambda data: b""), "not a NIfTI-1 header"),
    "HDF5 inside": ("nifti", lambda f: change_bytes(f / N1, lambda data: b"\x89HDF\r\n\x1a\n"), "not a NIfTI-1 header"),
    "slope 0.5": ("nifti", lambda f: change_nifti(f / N1, scl_slope=0.5), "slope 0.5 and intercept 0"),
    "intercept": ("nifti", lambda f: change_nifti(f / N1, scl_slope=1, scl_inter=3), "slope 1 and intercept 3"),
    "float32": (
        "nifti",
        lambda f: change_nifti(f / N1, datatype=16),
        "values are float32, expected little-endian int16",
    ),
    "unknown dtype": ("nifti", lambda f: change_nifti(f / N1, datatype=77), "of data type 77"),
    "three dimensions": ("nifti", lambda f: change_nifti(f / N1, dim=[3, 7, 11, 5, 1, 1, 1, 1]), "3 dimensions, expec"),
    "huge": (
        "nifti",
        lambda f: change_nifti(f / N1, dim=[4, *[32767] * 3, 12, 1, 1, 1]),
        "shape (12, 32767, 32767, 32",
    ),
    "no trial": ("nifti", lambda f: change_nifti(f / N1, dim=[4, 7, 11, 5, 0, 1, 1, 1]), "shape (0, 5, 11, 7)"),
    "offset": ("nifti", lambda f: change_nifti(f / N1, vox_offset=353), "is 9593 bytes unpacked"),
    "plain file cut short": (
        "nii",
        lambda f: change_bytes(f / N1[:-3], lambda data: data[:-1]),
        "which is 9592 bytes unpacked; 9591 bytes",
    ),
    "plain file too long": ("nii", lambda f: change_bytes(f / N1[:-3], lambda data: data + b"\0"), "; 9593 bytes"),
    "NIfTI of another shape": ("hdf5", lambda f: replace_volume(f, (7, 11, 4, 12)), "expected (12, 5, 11, 7)"),
    "NIfTI of other trials": ("hdf5", lambda f: replace_volume(f, (7, 11, 5, 13)), "expected"),
    "lh without rh": (
        "nativesurface",
        lambda f: (f / "rh.betas_session02.hdf5").unlink(),
        "session 02: lh.betas_sessio",
    ),
    "rh without lh": ("fsaverage", lambda f: (f / "lh.betas_session01.mgh").unlink(), "without lh.betas_session01.mgh"),
    "mgh cut short": (
        "fsaverage",
        lambda f: change_bytes(f / "rh.betas_session01.mgh", lambda data: data[:-4]),
        "session 01: MGH file: 2632 bytes, expected 2636 for 12 trials of 49 vertices",
    ),
    "mgh much too long": (
        "fsaverage",
        lambda f: change_bytes(f / "rh.betas_session01.mgh", lambda data: data + bytes(2**20 + 1)),
        "expected 2636",
    ),
    "mgh of integers": (
        "fsaverage",
        lambda f: change_bytes(f / "lh.betas_session01.mgh", lambda data: data[:23] + b"\1" + data[24:]),
        "values are int32, expected float32",
    ),
    "mgh packed": (
        "fsaverage",
        lambda f: change_bytes(f / "lh.betas_session01.mgh", gzip.compress),
        "packed (mgz), values are float32",
    ),
    "mgh that is none": (
        "fsaverage",
        lambda f: change_bytes(f / "lh.betas_session01.mgh", lambda data: b"abc"),
        "its first bytes are not its header",
    ),
    "hemispheres of other trials": (
        "nativesurface",
        lambda f: _cut_hdf5(f / "rh.betas_session01.hdf5"),
        "rh.betas_session01.hdf5 has 11 trials of int16, expected 12 of int16 as lh.betas_session01.hdf5",
    ),
    "a volume as a hemisphere": (
        "hdf5",
        lambda f: (
            [path.rename(f / f"lh.{path.name}") for path in list(f.iterdir())]
            and [shutil.copy(path, f / f"r{path.name[1:]}") for path in list(f.iterdir())]
        ),
        "expected (trial, vertex)",
    ),
}


def _cut_hdf5(path):
    with h5py.File(path) as file:
        values = file["betas"][:11]
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=values, chunks=(11, 1))


@pytest.mark.parametrize("odd", ODD)
def test_odd_file_ends_in_one_paragraph_and_nothing_is_written(files, tmp_path, odd, run_cli):
    form, spoil, words = ODD[odd]
    source = files(form)
    spoil(source)
    for command in ("plan", "convert"):
        outcome = run_cli(command, source, tmp_path / "s.zarr")
        assert outcome.code == 3
        assert words in outcome.paragraph
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("slope", [0, 1, np.nan])
def test_slopes_that_mean_as_stored_pass(files, tmp_path, slope):
    source = files("nifti")
    change_nifti(source / N1, scl_slope=slope, scl_inter=slope * 0)
    expected = read_files(source)
    assert expected.dtype == np.int16 or slope == 1
    nsd_zarr.convert(source, tmp_path / "s.zarr")
    assert np.array_equal(zarr.open_group(tmp_path / "s.zarr", mode="r")["betas"][...], expected)


def test_file_is_known_by_its_content_and_not_by_its_name_alone(files, tmp_path):
    source = files("nifti")
    expected = read_files(source)
    first, second = (source / f"betas_session0{number}.nii.gz" for number in (1, 2))
    first.write_bytes(gzip.decompress(first.read_bytes()))
    second.rename(source / "mine_session2.bin")
    words = [first, source / "mine_session2.bin"]
    assert [info.how[:6] for info in nsd_zarr.plan(words, tmp_path / "s.zarr").sources] == ["by off", "as one"]
    nsd_zarr.convert(words, tmp_path / "s.zarr")
    assert np.array_equal(zarr.open_group(tmp_path / "s.zarr", mode="r")["betas"][...], expected)
    assert nsd_zarr.verify(tmp_path / "s.zarr", words).is_whole


def test_gzip_of_several_members_is_read(files, tmp_path):
    source = files("nifti")
    expected = read_files(source)
    data = gzip.decompress((source / N1).read_bytes())
    (source / N1).write_bytes(b"".join(gzip.compress(data[start : start + 997]) for start in range(0, len(data), 997)))
    nsd_zarr.convert(source, tmp_path / "s.zarr")
    assert np.array_equal(zarr.open_group(tmp_path / "s.zarr", mode="r")["betas"][...], expected)


@pytest.mark.parametrize("where", [0.5, 1])
def test_gzip_damaged_inside_leaves_the_session_undone_until_it_is_fetched_again(files, tmp_path, where, digest_tree):
    source, store = files("nifti"), tmp_path / "s.zarr"
    nsd_zarr.convert(source, tmp_path / "other.zarr", trials_per_shard=2)
    whole = (source / N1).read_bytes()
    place = min(int(len(whole) * where), len(whole) - 6)  # in the data, and in the checksum
    (source / N1).write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
    with pytest.raises(SourceError, match=r"session 01: reading trials .*damaged behind") as caught:
        nsd_zarr.convert(source, store, trials_per_shard=2)
    assert caught.value.path == source / N1
    with pytest.raises(nsd_zarr.StoreError):
        nsd_zarr.open_dataset(store)
    (source / N1).write_bytes(whole)
    nsd_zarr.convert(source, store, trials_per_shard=2)
    assert digest_tree(store) == digest_tree(tmp_path / "other.zarr")


@pytest.mark.parametrize("form", ["nifti", "nii", "fsaverage", "nativesurface"])
def test_interrupted_conversion_goes_on_and_gives_the_same_bytes(
    files, form, tmp_path, interrupt, convert, digest_tree
):
    source = files(form)
    store = interrupt(source, at_trial=17)
    nsd_zarr.convert(source, store, trials_per_shard=2, workers=2)
    assert digest_tree(store) == digest_tree(convert(source, "other.zarr"))


@pytest.mark.parametrize("form", ["nifti", "nii", "fsaverage", "nativesurface"])
def test_verify_finds_a_changed_source_and_repair_writes_lost_shards(files, form, tmp_path, convert, digest_tree):
    source = files(form)
    store = convert(source)
    before = digest_tree(store)
    shard = next((store / "betas/c/3").rglob("0"))
    while shard.is_dir():
        shard = shard / "0"
    shard.unlink()
    assert nsd_zarr.repair(store, source).rewritten == (shard.relative_to(store).as_posix(),)
    assert digest_tree(store) == before
    changed = sorted(source.iterdir())[-1]
    if form == "nativesurface":
        with h5py.File(changed, "r+") as file:
            file["betas"][11, 3] += 1
    else:
        data = bytearray(gzip.decompress(changed.read_bytes()) if form == "nifti" else changed.read_bytes())
        data[-2] ^= 1
        changed.write_bytes(gzip.compress(data) if form == "nifti" else data)
    (damage,) = nsd_zarr.verify(store, source).damages
    assert set(damage.trials) == {23}
    with pytest.raises(nsd_zarr.ResumeRefused, match="session 02: the source changed since it was converted: trial 11"):
        nsd_zarr.convert(source, store, trials_per_shard=2)


def test_python_alone_reads_what_the_fast_library_reads(files, monkeypatch, tmp_path):
    import zlib

    source = files("nifti")
    monkeypatch.setattr(gzip_stream, "_library", zlib)
    nsd_zarr.convert(source, tmp_path / "s.zarr")
    assert np.array_equal(zarr.open_group(tmp_path / "s.zarr", mode="r")["betas"][...], read_files(source))


# -- the pipeline ------------------------------------------------------------------------------------------------


class CountingReader:
    """Hands out its values, and notes which trials were asked for."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def read_into(self, trials, out, executor, check_stop, on_rows, on_read):
        check_stop()
        self.asked.append(trials)
        out[:] = self.values[trials.start : trials.stop]
        on_read(out.size)


@pytest.mark.parametrize("blocks", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_shards_are_read_once_in_order_and_written_with_their_own_trials(blocks, dtype):
    values = np.arange(14 * 5).reshape(14, 5).astype(dtype)
    reader, moments, counted = CountingReader(values), Moments((5,), dtype), []
    shards = [(number, range(2 * number, 2 * number + 2)) for number in range(7)]
    with ThreadPoolExecutor(2) as executor:
        written = write_in_order(
            shards,
            np.empty((blocks, 2, 5), dtype),
            reader,
            executor,
            lambda number, part: (number, part.tolist()),
            moments,
            lambda: None,
            counted.append,
        )
    assert written == [(number, values[trials.start : trials.stop].tolist()) for number, trials in shards]
    assert reader.asked == [trials for _, trials in shards]
    assert sum(counted) == 70
    assert np.array_equal(moments.finish().mean, compute_statistics(values).mean)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("where", ["read", "write"])
def test_error_in_any_thread_is_raised_and_no_task_is_left(blocks, where):
    reader, written = CountingReader(np.zeros((14, 5), "i2")), []

    def check():
        if where == "read" and len(reader.asked) == 3:
            raise DamageFound("lost")

    def write(number, part):
        written.append(number)
        if where == "write" and number == 3:
            raise DamageFound("lost")

    shards = [(number, range(2 * number, 2 * number + 2)) for number in range(7)]
    with ThreadPoolExecutor(2) as executor, pytest.raises(DamageFound, match="lost"):
        write_in_order(shards, np.empty((blocks, 2, 5), "i2"), reader, executor, write, None, check, lambda count: None)
    assert len(written) < 7


def test_stream_reads_each_byte_once_whatever_the_memory(files, tmp_path, monkeypatch):
    source, skipped = files("nifti"), []
    skip = gzip_stream.GzipStream.skip
    monkeypatch.setattr(
        gzip_stream.GzipStream, "skip", lambda self, count, *stop: (skipped.append(count), skip(self, count, *stop))
    )
    least = nsd_zarr.plan(source, tmp_path / "s.zarr", trials_per_shard=1).memory.peak_bytes
    for number, memory in enumerate((least, least - 1540)):
        nsd_zarr.convert(source, tmp_path / f"{number}.zarr", trials_per_shard=1, memory=memory, no_experiment=True)
    assert set(skipped) == {0, 352}
