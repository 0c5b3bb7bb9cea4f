"""A reader of stores by docs/format.md alone: NumPy, json, crc32c, xxh3, a Blosc decoder; nothing of this package."""

import json
import math
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.blosc import decompress
from xxhash import xxh3_128_hexdigest as digest


def open_root(store):
    """Attributes, and metadata of all arrays by name."""
    text = (Path(store) / "zarr.json").read_bytes()
    document = json.loads(text)
    about = document["attributes"]
    assert about["format"] in ("nsd_zarr", "nsd_zarr images")
    assert about["format_version"] == 1
    assert about["status"] == "complete"
    assert digest(text.replace(about["checksum"].encode(), b"0" * 32)) == about["checksum"]
    return about, document["consolidated_metadata"]["metadata"]


def check_crc(data):
    assert crc32c(data[:-4]) == int.from_bytes(data[-4:], "little")
    return data[:-4]


def read_file(store, manifest, key):
    data, (size, expected, *_) = (Path(store) / key).read_bytes(), manifest[key]
    assert (len(data), digest(data)) == (size, expected)
    return data


def decode(data, codecs, dtype, shape):
    """Values of one chunk."""
    body = check_crc(data)
    if codecs[0]["name"] == "vlen-utf8":
        texts, at = [], 4
        for _ in range(int.from_bytes(body[:4], "little")):
            length = int.from_bytes(body[at : at + 4], "little")
            texts.append(body[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return np.array(texts).reshape(shape)
    body = decompress(body) if codecs[1]["name"] == "blosc" else body
    return np.frombuffer(body, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def read_shard(store, manifest, key, sharding, dtype, shape):
    """Values of the chunks of one shard of *shape* that are within the array."""
    data, slots = read_file(store, manifest, key), shape[0]
    index_bytes = data[-(16 * slots + 4) :]
    index = np.frombuffer(check_crc(index_bytes), "<u8").reshape(slots, 2)
    index = index[index[:, 0] != 2**64 - 1].astype(int)
    assert (index[:, 0] == np.cumsum([0, *index[:-1, 1]])).all()
    last = index[-1].sum()
    assert digest(data[last - 4 : last] + index_bytes) == manifest[key][2]
    return np.concatenate(
        [decode(data[at : at + size], sharding["codecs"], dtype, (1, *shape[1:])) for at, size in index]
    )


def read_array(store, name):
    """All values of an array, as they are stored."""
    about, members = open_root(store)
    meta, manifest = members[name], about["manifest"]
    shape, chunk = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
    parts, sharded = [], meta["codecs"][0]["name"] == "sharding_indexed"
    for number in range(math.ceil(shape[0] / chunk[0])):
        key = "/".join([name, "c", str(number), *["0"] * (len(shape) - 1)])
        if sharded:
            configuration = meta["codecs"][0]["configuration"]
            parts.append(read_shard(store, manifest, key, configuration, meta["data_type"], chunk))
        else:
            data = read_file(store, manifest, key)
            parts.append(decode(data, meta["codecs"], meta["data_type"], chunk))
    return np.concatenate(parts)
