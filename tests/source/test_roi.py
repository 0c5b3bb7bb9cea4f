"""Regions: the names of labels as CF flags, and one volume from two hemispheres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nsd_zarr.errors import SourceError
from nsd_zarr.source.roi import RoiFiles, group_rois, join_hemispheres, make_flags, parse_labels

PATH = Path("prf-visualrois.mgz.ctab")


def test_labels_are_one_number_and_name_a_line():
    data = b"0 Unknown\n1 V1v\n2  V1d \r\n\n# a comment\n10 IPS 0\n"
    assert parse_labels(data, PATH) == {0: "Unknown", 1: "V1v", 2: "V1d", 10: "IPS 0"}


def test_colours_of_freesurfers_own_files_are_no_part_of_the_name():
    assert parse_labels(b"  1  V1v     25  5  25  0\n2 area 4 2 3\n", PATH) == {1: "V1v", 2: "area 4 2 3"}


@pytest.mark.parametrize("line", ["V1v", "1", "1.5 V1v", "99999 V1v", "1 V1v\n1 V1d", "<html>"])
def test_line_that_is_none_is_refused(line):
    with pytest.raises(SourceError, match=r"line \d is .*expected a label number that comes once and its name"):
        parse_labels(f"0 Unknown\n{line}\n".encode(), PATH)


def test_flags_name_the_codes_below_the_labels_where_the_file_does_not():
    assert make_flags("x", {1: "V1v", 2: "V1d"}, np.array([-1, 0, 2])) == {
        -1: "not_cortex",
        0: "unlabelled",
        1: "V1v",
        2: "V1d",
    }
    assert make_flags("x", {0: "Unknown", 1: "V1v"}, np.array([])) == {-1: "not_cortex", 0: "Unknown", 1: "V1v"}


def test_flags_without_a_label_file_are_named_after_the_regions():
    assert make_flags("nsdgeneral", {}, np.array([-1, 0, 1])) == {-1: "not_cortex", 0: "unlabelled", 1: "nsdgeneral"}
    assert make_flags("mine", {}, np.array([1, 4]))[4] == "label_4"
    assert make_flags("mine", {1: "a"}, np.array([1, 4])) == {-1: "not_cortex", 0: "unlabelled", 1: "a", 4: "label_4"}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("calcarine sulcus", "calcarine_sulcus"),
        ("<script>alert('x')</script>", "_script_alert__x____script_"),
        ("a\tb\x1b[31m", "a_b__31m"),
        ("V1&V2", "V1_V2"),
        ("ecc4+", "ecc4+"),
        ("FFA-1", "FFA-1"),
        ("a/../b", "a_.._b"),
    ],
)
def test_label_is_one_plain_word_whatever_it_holds(name, word):
    assert make_flags("x", parse_labels(f"1 {name}\n".encode(), PATH), np.array([]))[1] == word


def test_hemispheres_are_joined_as_the_authors_join_them():
    """Source: analysis_surfaceroistovolume.m: the left volume, and the right one where the left is -1."""
    left, right = np.array([-1, -1, 0, 3, 0, 2, -1]), np.array([-1, 0, -1, 0, 5, 4, 1])
    assert join_hemispheres(left, right).tolist() == [-1, 0, 0, 3, 0, 2, 1]
    assert join_hemispheres(left, None).tolist() == left.tolist()
    assert join_hemispheres(None, right).tolist() == right.tolist()


def test_hemispheres_of_a_volume_without_minus_one_are_joined_by_their_labels():
    assert join_hemispheres(np.array([0, 2, 0, 1]), np.array([0, 0, 3, 4])).tolist() == [0, 2, 3, 1]


def test_two_labels_that_become_one_word_are_refused():
    with pytest.raises(SourceError, match=r"labels 1 \(a b\) and 3 \(a_b\) of mine are both called a_b"):
        make_flags("mine", {1: "a b", 2: "c", 3: "a_b"}, np.array([1]), PATH)


def test_files_of_one_set_are_grouped_and_labels_of_templates_end_otherwise(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/MTL.ctab").write_text("1 CA1\n")
    paths = [tmp_path / name for name in ("MTL.nii.gz", "lh.MTL.nii.gz", "rh.MTL.nii.gz", "rh.alone.nii")]
    found = list(group_rois(paths, [tmp_path, tmp_path / "templates"]))
    assert found == [
        RoiFiles("MTL", *paths[:3], tmp_path / "templates/MTL.ctab"),
        RoiFiles("alone", None, None, paths[3], None),
    ]
    assert found[1].volumes == (paths[3],)
