"""What stands where the store shall be: recognised, gone on with, or refused with nothing written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

OPTIONS = ("--trials-per-shard", 2, "--workers", 1)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "subj01.zarr"


# -- something else ----------------------------------------------------------------------------------------------


def _make_file(store):
    store.write_bytes(b"a file")


def _make_folder_with_stuff(store):
    store.mkdir()
    (store / "thesis.docx").write_bytes(b"the only copy")


def _make_foreign_zarr(store):
    zarr.save_array(store, np.arange(7))


def _make_zarr_2(store):
    store.mkdir()
    (store / ".zgroup").write_text('{"zarr_format": 2}')


def _make_dangling_link(store):
    store.symlink_to(store.parent / "nowhere")


def _make_store_without_root(store):
    (store / "betas" / "c" / "0").mkdir(parents=True)


OTHERS = [_make_file, _make_folder_with_stuff, _make_foreign_zarr, _make_zarr_2, _make_dangling_link]


@pytest.mark.parametrize("fresh", [False, True], ids=["", "fresh"])
@pytest.mark.parametrize("make", [*OTHERS, _make_store_without_root])
@pytest.mark.parametrize("command", ["plan", "convert"])
def test_target_that_is_something_else_is_refused(command, make, fresh, source, store, check_refused):
    make(store)
    words = ("--fresh",) if fresh else ()
    paragraph = check_refused(4, command, source, store, *OPTIONS, *words)
    assert ("--fresh forgets an unfinished run" if fresh else "something else stands") in paragraph
    assert "subj01.zarr" in paragraph


def test_target_below_a_file_is_refused(source, tmp_path, check_refused):
    (tmp_path / "file").write_bytes(b"")
    assert "cannot write: Not a directory" in check_refused(4, "convert", source, tmp_path / "file" / "subj01.zarr")


@pytest.mark.parametrize("mode", [0o555, 0o444, 0], ids=oct)
def test_target_that_may_not_be_written_is_refused(mode, source, tmp_path, run_child, without_privileges, digest_tree):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(mode)
    outcome = run_child("convert", source, folder / "subj01.zarr", prefix=without_privileges)
    folder.chmod(0o755)
    assert outcome.code == 4, outcome.err
    refusal = "this user may not write in the folder of the store" if mode == 0o555 else "Permission denied"
    assert refusal in outcome.paragraph
    assert list(folder.iterdir()) == []


def test_target_name_that_is_too_long_is_refused(source, tmp_path, check_refused):
    refusal = "a name of 300 bytes, expected at most 251"
    assert refusal in check_refused(2, "convert", source, tmp_path / ("x" * 300))


def test_run_folder_that_is_something_else_is_refused(source, store, check_refused):
    run_folder = store.with_name("subj01.zarr.run")
    run_folder.mkdir()
    (run_folder / "marathon.gpx").write_bytes(b"42.195")
    for words in ((), ("--fresh",)):
        assert "not the record of a run of nsd-zarr" in check_refused(4, "convert", source, store, *words)
    shutil.rmtree(run_folder)
    run_folder.write_bytes(b"a file")
    assert "not the record of a run of nsd-zarr" in check_refused(4, "convert", source, store)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": "nsd_zarr run"}', b'{"format": "nsd_zarr run", "sources": {"1": {}}}']
)
def test_run_document_that_is_damaged_is_refused(content, source, interrupt, check_refused):
    store = interrupt(source)
    (store.with_name("subj01.zarr.run") / "run.json").write_bytes(content)
    assert "or it is damaged" in check_refused(4, "convert", source, store, *OPTIONS)


def test_store_of_a_later_format_is_refused(source, convert, check_refused):
    store = convert(source)
    text = (store / "zarr.json").read_text()
    # Sealed anew, as a later version would write it.
    from nsd_zarr.store.format import make_root_metadata

    document = json.loads(text)
    attributes = document["attributes"] | {"format_version": 2}
    members = document["consolidated_metadata"]["metadata"]
    (store / "zarr.json").write_bytes(make_root_metadata(attributes, members))
    assert "format version 2, expected 1. Update nsd-zarr" in check_refused(4, "convert", source, store, *OPTIONS)
