import copy
import inspect
import multiprocessing
import pickle
from pathlib import Path

import pytest

from nsd_zarr import errors
from nsd_zarr.errors import (
    ConfigError,
    DamageFound,
    DoesNotFit,
    MissingLibrary,
    NsdZarrError,
    ResumeRefused,
    SourceError,
    StoreError,
)

CLASSES = {
    NsdZarrError: (70, Exception),
    ConfigError: (2, ValueError),
    SourceError: (3, OSError),
    StoreError: (4, OSError),
    ResumeRefused: (5, RuntimeError),
    DoesNotFit: (6, MemoryError),
    DamageFound: (1, ValueError),
}
ATTRIBUTES = {
    "hint": "Fetch it again.",
    "path": Path("folder/betas_session07.hdf5"),
    "session": 7,
    "expected": (750, 83, 104, 81),
    "found": (749, 83, 104, 81),
}


def make_error(kind):
    return kind("shape (749, 83, 104, 81), expected (750, 83, 104, 81)", **ATTRIBUTES)


def raise_in_a_worker(kind):
    raise make_error(kind)


def test_every_class_of_the_module_is_tested_here():
    found = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
    assert found == {*CLASSES, MissingLibrary}


def test_missing_library_says_what_to_install_also_after_pickling():
    error = MissingLibrary("h5py", "nsd-zarr convert", "convert")
    for each in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(each) == 'nsd-zarr convert needs h5py: pip install "nsd-zarr[convert]"'
        assert (type(each), vars(each), each.exit_code) == (MissingLibrary, vars(error), 2)
        assert isinstance(each, ImportError)


@pytest.mark.parametrize("kind", CLASSES)
def test_exit_code_and_bases_are_those_of_the_interface(kind):
    code, built_in = CLASSES[kind]
    assert kind.exit_code == code
    assert issubclass(kind, NsdZarrError)
    assert issubclass(kind, built_in)
    with pytest.raises(built_in):
        raise make_error(kind)


@pytest.mark.parametrize("kind", CLASSES)
def test_message_tells_where_what_and_what_to_do(kind):
    assert str(make_error(kind)) == (
        "session 07: shape (749, 83, 104, 81), expected (750, 83, 104, 81). Fetch it again. "
        "[folder/betas_session07.hdf5]"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "it broke."),
        ({"session": 12}, "session 12: it broke."),
        ({"session": 0}, "session 00: it broke."),
        ({"session": 123}, "session 123: it broke."),
        ({"hint": "Mend it."}, "it broke. Mend it."),
        ({"path": "a.zarr"}, "it broke. [a.zarr]"),
        ({"path": Path("a.zarr"), "hint": "Mend it."}, "it broke. Mend it. [a.zarr]"),
        ({"expected": 1, "found": 2}, "it broke."),
    ],
)
def test_message_leaves_out_what_is_not_known(options, text):
    assert str(NsdZarrError("it broke", **options)) == text
    assert str(NsdZarrError("it broke.", **options)) == text


@pytest.mark.parametrize("kind", CLASSES)
def test_message_follows_what_is_learned_on_the_way_up(kind):
    error = kind("it broke")
    error.session, error.path = 3, Path("b.hdf5")
    assert str(error) == "session 03: it broke. [b.hdf5]"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", CLASSES)
def test_error_survives_pickling_with_all_attributes(kind, protocol):
    error = make_error(kind)
    error.session = 8
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    unset = {"subject": None, "report": None}
    assert vars(again) == vars(error) == {"problem": error.problem, **ATTRIBUTES, "session": 8, **unset}
    assert str(again) == str(error)
    assert again.args == error.args


@pytest.mark.parametrize("kind", CLASSES)
def test_error_is_copied_with_all_attributes(kind):
    again = copy.copy(make_error(kind))
    assert (type(again), vars(again)) == (kind, vars(make_error(kind)))


def test_errors_cross_a_process_as_they_were_raised():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind in CLASSES:
            with pytest.raises(kind) as caught:
                pool.apply(raise_in_a_worker, [kind])
            assert type(caught.value) is kind
            assert str(caught.value) == str(make_error(kind))


def test_source_error_has_no_errno_that_a_handler_could_mistake():
    assert SourceError("it broke").errno is None
    assert StoreError("it broke").filename is None
