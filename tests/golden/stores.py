"""Stores of every kind from inputs that do not depend on this package, and the digest of each.

`python tests/golden/stores.py FOLDER` makes them in an empty folder with the package on PYTHONPATH, and prints the
digests.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import xxhash
from scipy.io import savemat

import nsd_zarr

TRIALS, VOLUME = 26, (5, 7, 3)
COLUMNS = [
    *("SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "TIME", "ISOLD", "ISCORRECT", "RT", "CHANGEMIND"),
    *("MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT", "ISCORRECTCURRENT", "TOTAL1", "TOTAL2", "BUTTON", "MISSINGDATA"),
]


def make_values(session, shape, dtype):
    """Values that tell their place, and of floats also NaN, infinity and negative zero."""
    places = np.arange(math.prod(shape)).reshape(shape) * 13 + session * 1_009
    if np.dtype(dtype).kind != "f":
        return (places % 65_521 - 32_761).astype(dtype)
    values = (places * 0.25 - 431.125).astype(dtype)
    values.reshape(-1)[::17] = np.nan
    values.reshape(-1)[3:6] = np.inf, -np.inf, -0.0
    return values


def write_sessions(folder, shape=(TRIALS, *VOLUME), dtype="<i2", sessions=(1, 2)):
    folder.mkdir(parents=True)
    for session in sessions:
        with h5py.File(folder / f"betas_session{session:02d}.hdf5", "w", libver="earliest") as file:
            chunks = (shape[0], *(1 for _ in shape[1:]))
            file.create_dataset("betas", data=make_values(session, shape, dtype), chunks=chunks)
    return folder


def write_table(path):
    rows = []
    for number in range(2 * TRIALS):
        session, trial = divmod(number, TRIALS)
        run, inside = divmod(trial, 3)
        image = number % 20 + 1
        presses = ["NaN"] * 10 if number % 5 == 0 else [1, 700.5 + number, 0, "NaN", "NaN", 1, 0, 2, 0, 1]
        rows.append([1, session + 1, run + 1, inside + 1, 100 + image, image, session + trial / 1024, int(number > 19)])
        rows[-1] += [*presses, 0]
    path.write_text("\n".join("\t".join(map(str, row)) for row in [COLUMNS, *rows]) + "\n")


def write_volume(path, values):
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values.T), np.diag([1.8, 1.8, 1.8, 1])), path)


def write_experiment(folder):
    """Files of an experiment; the options that name them."""
    places = np.arange(math.prod(VOLUME)).reshape(VOLUME)
    folder.mkdir(parents=True)
    write_table(folder / "responses.tsv")
    write_volume(folder / "brainmask.nii", (places % 3 > 0).astype("i2"))
    write_volume(folder / "ncsnr.nii", np.where(places % 11, places / 64, np.nan).astype("f4"))
    write_volume(folder / "regions.nii", (places % 6 - 1).astype("i2"))
    for session in (1, 2):
        write_volume(folder / f"valid_session{session:02d}.nii", (places % (session + 4) > 0).astype("i2"))
    names = {"trial_table": "responses.tsv", "brainmask": "brainmask.nii", "ncsnr": "ncsnr.nii", "roi": "regions.nii"}
    return {option: folder / name for option, name in names.items()} | {"valid": str(folder / "valid_session*.nii")}


def write_design(path):
    """A design that agrees with the table; of its first 30 sessions it shows images 17 to 20 twice."""
    ordering = [number % 20 + 1 for number in range(2 * TRIALS)] + [13, 14, 15, 16]
    ordering += [image for image in range(21, 21 + 10 * TRIALS) for _ in range(3)] + [17, 18, 19, 20]
    images = np.tile(np.arange(101, 101 + max(ordering)), (8, 1))
    savemat(path, {"masterordering": np.array(ordering, "f8"), "subjectim": images.astype("f8")})
    return path


def make_stores(folder):
    """A store of every kind in a new folder; their paths by kind."""
    kinds = {
        "int16 volumes": {},
        "int16 surfaces": {"shape": (TRIALS, 23)},
        "float32 volumes": {"dtype": "<f4"},
        "big-endian float64 volumes": {"dtype": ">f8"},
        "uint8 volumes": {"dtype": "u1"},
    }
    stores = {}
    for number, (kind, options) in enumerate(kinds.items()):
        source, stores[kind] = write_sessions(folder / f"source{number}", **options), folder / f"{number}.zarr"
        nsd_zarr.convert(source, stores[kind], trials_per_shard=13, workers=2)
    source, options = folder / "source0", write_experiment(folder / "experiment")
    for kind, name, codec in (("with an experiment", "experiment", {}), ("zstd", "zstd", {"codec": "zstd"})):
        stores[kind] = folder / f"{name}.zarr"
        nsd_zarr.convert(source, stores[kind], trials_per_shard=13, workers=2, **options, **codec)
    stores["attached"] = folder / "attached.zarr"
    nsd_zarr.convert(source, stores["attached"], trials_per_shard=13)
    nsd_zarr.attach(stores["attached"], **options)
    regions = folder / "experiment/regions.nii"
    for side in ("lh", "rh"):
        shutil.copy(regions, regions.with_name(f"{side}.sides.nii"))
    options["roi"] = [regions, *(regions.with_name(f"{side}.sides.nii") for side in ("lh", "rh"))]
    stores["format 1.1"] = folder / "minor.zarr"
    options["expdesign"] = write_design(folder / "experiment/nsd_expdesign.mat")
    nsd_zarr.convert(source, stores["format 1.1"], trials_per_shard=13, **options)
    with h5py.File(folder / "stimuli.hdf5", "w", libver="earliest") as file:
        file.create_dataset("imgBrick", data=make_values(0, (29, 7, 5, 3), "u1"))
    stores["images"] = folder / "images.zarr"
    nsd_zarr.convert_images(folder / "stimuli.hdf5", stores["images"], images_per_shard=8)
    return stores


def digest_store(store: Path) -> str:
    """One digest over all files of a store, library versions and sizes of source files set aside."""
    digest = xxhash.xxh3_128()
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path == store / "zarr.json":
            document = json.loads(data)
            attributes = document["attributes"]
            del attributes["libraries"], attributes["checksum"]
            for file in [*attributes["sources"], *attributes.get("experiment", [])]:
                del file["size"]  # Of HDF5 and NIfTI files, which other libraries wrote.
            for file in attributes.get("experiment", []):
                del file["digest"]
            data = json.dumps(document).encode()
        digest.update(f"{path.relative_to(store).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


if __name__ == "__main__":
    for kind, path in make_stores(Path(sys.argv[1])).items():
        print(f'    "{kind}": "{digest_store(path)}",')
