import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.config import parse_sessions
from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.find import (
    Choice,
    SessionFile,
    check_complete,
    find_session_files,
    format_sessions,
    select_sessions,
)
from nsd_zarr.source.forms.files import find_twin_notes

BETAS = "betas_fithrf_GLMdenoise_RR"


def create_files(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def create_betas(root, subject=1, space="func1pt8mm", betas=BETAS, sessions=(1, 2), surfaces=""):
    """A betas folder at the dataset's own place below *root*."""
    folder = root / "nsddata_betas" / "ppdata" / f"subj{subject:02d}" / space / betas
    return create_files(folder, *(f"{surfaces}betas_session{number:02d}.hdf5" for number in sessions))


def make_files(*numbers):
    return [SessionFile(SessionNumber(number), Path(f"folder/betas_session{number:02d}.hdf5")) for number in numbers]


def names_of(files):
    return [(int(file.session), file.path.name) for file in files]


# A folder


def test_folder_gives_its_session_files_by_number_and_nothing_else(tmp_path):
    create_files(
        tmp_path,
        "betas_session10.hdf5",
        "betas_session02.hdf5",
        "betas_session01.hdf5",
        "betas_session01.nii.gz",
        "betas_session03.hdf5.partial",
        "._betas_session04.hdf5",
        "meanbeta_session01.nii.gz",
        "R2_session05.hdf5",
        "ncsnr.nii.gz",
    )
    assert names_of(find_session_files([tmp_path])) == [
        (1, "betas_session01.hdf5"),
        (2, "betas_session02.hdf5"),
        (10, "betas_session10.hdf5"),
    ]


@pytest.mark.parametrize("make_word", [str, lambda path: path, os.path.relpath])
def test_folder_may_be_text_or_path_absolute_or_relative(tmp_path, make_word):
    create_files(tmp_path, "betas_session01.hdf5")
    assert names_of(find_session_files([make_word(tmp_path)])) == [(1, "betas_session01.hdf5")]


def test_numbers_may_have_any_width_and_names_any_case(tmp_path):
    create_files(tmp_path, "betas_session1.hdf5", "Betas_Session002.HDF5")
    assert names_of(find_session_files([tmp_path])) == [(1, "betas_session1.hdf5"), (2, "Betas_Session002.HDF5")]


@pytest.mark.parametrize("ending", ["hdf5", "mgh"])
def test_both_hemispheres_of_a_surface_are_one_session(tmp_path, ending):
    create_files(tmp_path, *(f"{side}.betas_session{n:02d}.{ending}" for side in ("rh", "lh") for n in (1, 2)))
    files = find_session_files([tmp_path])
    assert names_of(files) == [(1, f"lh.betas_session01.{ending}"), (2, f"lh.betas_session02.{ending}")]
    assert [file.right.name for file in files] == [f"rh.betas_session01.{ending}", f"rh.betas_session02.{ending}"]


@pytest.mark.parametrize("side", ["lh", "rh"])
def test_one_hemisphere_is_refused_unless_it_is_asked_for(tmp_path, side):
    create_files(tmp_path, *(f"{side}.betas_session{number:02d}.hdf5" for number in (1, 2)))
    other = {"lh": "rh", "rh": "lh"}[side]
    words = rf"session 01: {side}.betas_session01.hdf5 without {other}.betas_session01.hdf5.*--hemisphere {side}"
    for word in (tmp_path, str(tmp_path / f"{side}.*.hdf5")):
        with pytest.raises(SourceError, match=words):
            find_session_files([word])
        found = find_session_files([word], Choice(hemisphere=side))
        assert [(file.session, file.side, file.right) for file in found] == [(1, side, None), (2, side, None)]
    with pytest.raises(SourceError, match=f"no session files|none of the files is of --hemisphere {other}"):
        find_session_files([tmp_path], Choice(hemisphere=other))


TWINS = ("betas_session01.hdf5", "betas_session01.nii", "betas_session01.nii.gz")


@pytest.mark.parametrize("count", [2, 3])
def test_twins_are_named_and_the_first_form_is_read_unless_another_is_asked_for(tmp_path, count):
    create_files(tmp_path, *TWINS[:count], "betas_session02.nii.gz")
    (first, second) = find_session_files([tmp_path])
    assert (first.path.name, [twin.name for twin in first.twins]) == (TWINS[0], list(TWINS[1:count]))
    assert (second.path.name, second.twins) == ("betas_session02.nii.gz", ())
    (note,) = find_twin_notes([first, second])
    assert TWINS[1] in note
    assert "--form nifti takes them" in note
    (first, second) = find_session_files([tmp_path], Choice(form="nifti"))
    assert first.path.name == "betas_session01.nii"
    assert [file.path.name for file in find_session_files([tmp_path], Choice(form="hdf5"))] == [TWINS[0]]


@pytest.mark.parametrize("form", ["nativesurface", "fsaverage"])
def test_form_that_is_not_there_is_refused(tmp_path, form):
    create_files(tmp_path, *TWINS)
    with pytest.raises(SourceError, match="no session files"):
        find_session_files([tmp_path], Choice(form=form))
    with pytest.raises(SourceError, match=f"none of the files is of --form {form}"):
        find_session_files([tmp_path / name for name in TWINS], Choice(form=form))


def test_names_alone_are_touched(tmp_path):
    (tmp_path / "betas_session01.hdf5").symlink_to(tmp_path / "gone")
    assert names_of(find_session_files([tmp_path])) == [(1, "betas_session01.hdf5")]


# A folder to be searched


def test_root_is_searched_downward_for_its_one_betas_folder(tmp_path):
    folder = create_betas(tmp_path)
    create_files(tmp_path / "nsddata" / "ppdata", "betas_session01.nii.gz")
    for start in (tmp_path, tmp_path / "nsddata_betas", folder.parent, folder):
        assert [file.path.parent for file in find_session_files([start])] == [folder, folder]


def test_several_betas_folders_are_listed_and_the_options_named(tmp_path):
    create_betas(tmp_path, subject=1)
    create_betas(tmp_path, subject=2)
    create_betas(tmp_path, subject=2, betas="betas_assumehrf")
    with pytest.raises(SourceError) as caught:
        find_session_files([tmp_path])
    text = str(caught.value)
    assert "3 betas folders below this one, expected exactly one" in text
    for part in ("subj01/func1pt8mm/" + BETAS, "subj02/func1pt8mm/betas_assumehrf", "--subject", "--space", "--betas"):
        assert part in text
    assert len(caught.value.found) == 3


@pytest.mark.parametrize(
    "choice",
    [
        Choice(subject=2),
        Choice(space="func1mm"),
        Choice(betas="betas_assumehrf"),
        Choice(2, "func1mm", "betas_assumehrf"),
    ],
    ids=str,
)
def test_choice_picks_one_of_several_folders(tmp_path, choice):
    create_betas(tmp_path)
    wanted = create_betas(tmp_path, subject=2, space="func1mm", betas="betas_assumehrf")
    assert {file.path.parent for file in find_session_files([tmp_path], choice)} == {wanted}


def test_choice_that_leaves_several_lists_those(tmp_path):
    create_betas(tmp_path, subject=1)
    create_betas(tmp_path, subject=2)
    create_betas(tmp_path, subject=2, betas="betas_assumehrf")
    with pytest.raises(SourceError, match="2 betas folders for subj02 below") as caught:
        find_session_files([tmp_path], Choice(subject=2))
    assert "subj01" not in str(caught.value)


def test_choice_compares_whole_folder_names(tmp_path):
    create_betas(tmp_path, betas="betas_fithrf_GLMdenoise_RR")
    create_betas(tmp_path, betas="betas_fithrf")
    found = find_session_files([tmp_path], Choice(betas="betas_fithrf"))
    assert {file.path.parent.name for file in found} == {"betas_fithrf"}


def test_choice_that_nothing_fits_is_refused(tmp_path):
    folder = create_betas(tmp_path)
    for start in (tmp_path, folder):
        with pytest.raises(SourceError, match=r"no session files .* in this folder or below it for subj03, func1mm"):
            find_session_files([start], Choice(3, "func1mm"))


def test_choice_may_follow_from_folders_above(tmp_path):
    folder = create_betas(tmp_path, subject=4)
    assert len(find_session_files([folder.parent], Choice(subject=4))) == 2
    assert len(find_session_files([folder], Choice(4, "func1pt8mm", BETAS))) == 2


def test_folder_without_session_files_is_refused(tmp_path):
    create_files(tmp_path / "deep", "beta_session01.txt")
    with pytest.raises(
        SourceError, match=r"no session files \(betas_session\*\.hdf5, .*\) in this folder or below it\. Give"
    ):
        find_session_files([tmp_path])


def test_folder_that_may_not_be_listed_is_refused(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SourceError, match="cannot list the folder: Permission denied"):
        find_session_files([tmp_path])


# Globs and files


def test_glob_gives_what_it_matches(tmp_path):
    create_files(tmp_path, *(f"{side}.betas_session{number:02d}.hdf5" for side in ("lh", "rh") for number in (1, 2)))
    found = find_session_files([str(tmp_path / "lh.betas_session*.hdf5")], Choice(hemisphere="lh"))
    assert names_of(found) == [(1, "lh.betas_session01.hdf5"), (2, "lh.betas_session02.hdf5")]


def test_glob_may_cross_folders(tmp_path):
    for number in (1, 2):
        create_files(tmp_path / f"part{number}", f"betas_session{number:02d}.hdf5")
    assert len(find_session_files([str(tmp_path / "**" / "*.hdf5")])) == 2


def test_glob_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"no such file or folder\. Check the path of SOURCE\. \[.*\*\.hdf5\]"):
        find_session_files([str(tmp_path / "*.hdf5")])


def test_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no such file or folder"):
        find_session_files([tmp_path / "gone"])


def test_name_with_glob_characters_is_a_file_if_it_exists(tmp_path):
    create_files(tmp_path / "a[b]*", "betas_session07.hdf5")
    assert names_of(find_session_files([tmp_path / "a[b]*" / "betas_session07.hdf5"])) == [(7, "betas_session07.hdf5")]


def test_several_files_come_by_number_whatever_their_order(tmp_path):
    create_files(tmp_path, "x_session-3_run.h5", "session_12.hdf5", "subj01_session07_v2.hdf5")
    words = [tmp_path / name for name in ("session_12.hdf5", "x_session-3_run.h5", "subj01_session07_v2.hdf5")]
    assert [number for number, _ in names_of(find_session_files(words))] == [3, 7, 12]


def test_file_without_a_number_is_refused(tmp_path):
    create_files(tmp_path, "betas.hdf5")
    with pytest.raises(
        SourceError, match=r"no session number .*expected one as in betas_session07\.hdf5.*\[.*betas\.hdf5\]"
    ):
        find_session_files([tmp_path / "betas.hdf5"])


def test_session_0_is_refused(tmp_path):
    create_files(tmp_path, "betas_session00.hdf5", "betas_session01.hdf5")
    with pytest.raises(SourceError, match=r"no session number from 1 .*session00\.hdf5"):
        find_session_files([tmp_path])


def test_folder_among_several_sources_is_refused(tmp_path):
    create_files(tmp_path, "betas_session01.hdf5")
    with pytest.raises(SourceError, match="a folder among several sources"):
        find_session_files([tmp_path / "betas_session01.hdf5", tmp_path])


def test_no_source_at_all_is_refused():
    with pytest.raises(SourceError, match="no source was named"):
        find_session_files([])


@pytest.mark.parametrize(
    "names",
    [
        ("betas_session1.hdf5", "betas_session01.hdf5"),
        ("lh.betas_session01.hdf5", "lh.betas_session1.hdf5"),
        ("lh.betas_session01.hdf5", "betas_session01.hdf5"),
    ],
)
def test_two_files_for_one_session_are_refused(tmp_path, names):
    create_files(tmp_path, *names)
    for words in ([tmp_path], [tmp_path / name for name in names], [str(tmp_path / "*.hdf5")]):
        with pytest.raises(SourceError, match="session 01: two files for one session: ") as caught:
            find_session_files(words)
        assert all(name in str(caught.value) for name in names)
        assert "--form hdf5, nifti" in caught.value.hint


def test_one_file_named_twice_is_refused(tmp_path):
    create_files(tmp_path, "betas_session01.hdf5")
    with pytest.raises(SourceError, match="two files for one session"):
        find_session_files([tmp_path / "betas_session01.hdf5", tmp_path / "betas_session01.hdf5"])


# Which sessions


def test_sessions_without_a_gap_pass():
    check_complete(make_files(1, 2, 3), 1)
    check_complete(make_files(5, 6), 5)
    check_complete(make_files(1), 1)


@pytest.mark.parametrize(
    ("numbers", "first", "words"),
    [
        ((1, 2, 4), 1, "session 03 is missing: found 1-2,4, expected every session from 1 to 4"),
        ((2, 3), 1, "session 01 is missing: found 2-3, expected every session from 1 to 3"),
        ((1, 5, 9), 1, "sessions 2-4,6-8 are missing: found 1,5,9, expected every session from 1 to 9"),
        ((4, 6), 4, "session 05 is missing: found 4,6, expected every session from 4 to 6"),
    ],
)
def test_gap_is_refused_with_the_option_that_allows_it(numbers, first, words):
    with pytest.raises(SourceError) as caught:
        check_complete(make_files(*numbers), first)
    assert str(caught.value).startswith(words)
    assert f"--sessions {format_sessions(numbers)}." in caught.value.hint
    assert caught.value.found == list(numbers)
    assert caught.value.expected == list(range(first, max(numbers) + 1))


@pytest.mark.parametrize("wrap", [tuple, list, set, iter])
def test_selected_sessions_come_by_number_and_once(wrap):
    files = make_files(1, 2, 4, 7)
    assert [file.session for file in select_sessions(files, wrap([7, 2, 7]))] == [2, 7]


@pytest.mark.parametrize("wrap", [tuple, iter])
def test_selected_session_that_is_not_there_is_refused(wrap):
    words = r"^sessions 3,9 are missing: found 1-2,4, and --sessions asks for 1,3,9\. "
    with pytest.raises(SourceError, match=words) as caught:
        select_sessions(make_files(1, 2, 4), wrap([9, 3, 1]))
    assert (caught.value.expected, caught.value.found) == ([1, 3, 9], [1, 2, 4])


@given(st.sets(st.integers(1, 9999), min_size=1))
def test_sessions_survive_formatting_and_parsing(numbers):
    assert parse_sessions(format_sessions(numbers)) == tuple(sorted(numbers))


@given(st.sets(st.integers(1, 30), min_size=1))
def test_formatted_sessions_are_as_short_as_can_be(numbers):
    runs = sum(number - 1 not in numbers for number in numbers)
    assert format_sessions(numbers).count(",") == runs - 1


def test_sessions_are_formatted_as_the_option_takes_them():
    assert format_sessions([3, 1, 2, 5, 7, 8, 3]) == "1-3,5,7-8"
    assert format_sessions([]) == ""


@pytest.mark.parametrize("name", ["betas_nsdsynthetic.hdf5", "lh.betas_nsdimagery.mgh"])
def test_betas_of_experiments_of_one_session_are_session_1(name, tmp_path):
    create_files(tmp_path, name, name.replace("lh.", "rh."))
    (file,) = find_session_files([tmp_path])
    assert (file.session, file.path.name) == (1, name)


def test_other_files_beside_session_files_change_nothing(tmp_path):
    create_files(tmp_path, "betas_nsdsynthetic.hdf5", "betas_nsdimagery.nii.gz", "betas_session01.hdf5", "ncsnr.nii.gz")
    assert [file.path.name for file in find_session_files([tmp_path])] == ["betas_session01.hdf5"]
