import h5py
import numpy as np

from nsd_zarr.simulate import make_image_features, make_images


def test_stimulus_file_lies_at_its_own_place_only_when_asked_for(make_root):
    assert not make_root("none").stimuli.exists()
    made = make_root(images=71, image_size=13, seed=3)
    assert made.stimuli.relative_to(made.root).as_posix() == "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    with h5py.File(made.stimuli) as file:
        assert list(file) == ["imgBrick"]
        assert (file["imgBrick"].shape, file["imgBrick"].dtype) == ((71, 13, 13, 3), np.uint8)
        assert np.array_equal(file["imgBrick"][...], make_images(0, 71, 13, seed=3))


def test_features_can_be_read_from_an_image():
    images, features = make_images(5, 300, 16), make_image_features(np.arange(5, 300))
    patches = images[..., 0].reshape(-1, 2, 8, 4, 4).mean(axis=(2, 4)).reshape(-1, 8)
    assert np.abs((patches - 128) / 36 - features).max() < 0.02 + np.abs(features).max() - 127 / 36
    inside = np.abs(features) < 3.5
    assert np.abs((patches - 128) / 36 - features)[inside].max() <= 0.5 / 36 + 1e-6


def test_images_differ_and_change_when_turned():
    images = make_images(0, 60, 11)
    assert len({image.tobytes() for image in images}) == 60
    for axis in (1, 2):
        assert not (images == np.flip(images, axis)).all(axis=(1, 2, 3)).any()
    assert not np.array_equal(images, images.swapaxes(1, 2))
