import pickle

import pytest

from nsd_zarr.errors import ConfigError
from nsd_zarr.simulate import Simulation


def test_recipe_without_options_is_subject_1_at_1pt8_mm():
    recipe = Simulation()
    assert (recipe.sessions, recipe.shape, recipe.layout, recipe.seed) == (3, (750, 83, 104, 81), "nsd", 0)
    assert (recipe.trials_per_session, recipe.volume_shape, recipe.voxel_mm) == (750, (83, 104, 81), 1.8)
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ({"shape": (6, 5, 7)}, "shape"),
        ({"shape": (1, 5, 7, 3)}, "shape"),
        ({"shape": (6, 5, 7, 1)}, "shape"),
        ({"shape": (6, 5, 7.0, 3)}, "shape"),
        ({"sessions": 0}, "sessions"),
        ({"sessions": 41}, "sessions"),
        ({"sessions": True}, "sessions"),
        ({"subject": 9}, "subject"),
        ({"layout": "zip"}, "layout"),
        ({"space": "fsaverage"}, "space"),
        ({"betas": "betas"}, "betas"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"sessions": 40, "shape": (751, 5, 7, 3)}, "30,040 trials"),
    ],
)
def test_recipe_that_cannot_be_made_is_refused_with_a_hint(option, word):
    with pytest.raises(ConfigError, match=word) as caught:
        Simulation(**option)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_recipe_of_a_whole_experiment_is_accepted():
    assert Simulation(sessions=40, shape=(750, 150, 150, 100)).trials_per_session == 750
