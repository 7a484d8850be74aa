import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from skmars.datasets import make_terrain

AN2DL = np.array([0.2431, 0.3390, 0.2328, 0.1838, 0.0013])


@pytest.fixture(scope="module")
def terrain():
    return make_terrain(500, random_state=3)


def frequencies(y):
    return np.bincount(y.ravel(), minlength=5) / y.size


def mean_iou(y_true, y_pred):
    confusion = np.bincount(5 * y_true.ravel().astype(int) + y_pred.ravel(), minlength=25)
    confusion = confusion.reshape(5, 5)
    hits = np.diag(confusion)
    return np.mean(hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits))


@pytest.mark.parametrize("shape", [(64, 128), (8, 8), (37, 51), (8, 100), (130, 9)])
def test_shapes_types_and_labels(shape):
    X, y = make_terrain(6, shape=shape, random_state=0)
    assert X.shape == y.shape == (6, *shape)
    assert X.dtype == y.dtype == np.uint8
    assert y.max() <= 4
    assert len(np.unique(X)) > 10


def test_colour_shows_the_same_scenes():
    _, y_grey = make_terrain(3, shape=(32, 48), random_state=0)
    X, y = make_terrain(3, shape=(32, 48), n_channels=3, random_state=0)
    assert X.shape == (3, 32, 48, 3)
    np.testing.assert_array_equal(y, y_grey)
    red, _, blue = X.reshape(-1, 3).mean(axis=0)
    assert red > blue + 10


def test_same_seed_same_data():
    first, second = (make_terrain(4, random_state=7) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], make_terrain(4, random_state=8)[0])


def test_random_state_instance_moves_on():
    rng = np.random.RandomState(7)
    first, second = (make_terrain(2, random_state=rng)[0] for _ in range(2))
    np.testing.assert_array_equal(first, make_terrain(2, random_state=7)[0])
    assert not np.array_equal(first, second)


def test_int_seed_leaves_the_global_state_alone():
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    make_terrain(2, outliers=1, random_state=1)
    assert np.random.random() == expected  # noqa: NPY002


def test_no_seed_follows_the_global_state():
    np.random.seed(0)  # noqa: NPY002
    first = make_terrain(1)[0]
    second = make_terrain(1)[0]
    np.random.seed(0)  # noqa: NPY002
    np.testing.assert_array_equal(make_terrain(1)[0], first)
    assert not np.array_equal(first, second)


def test_more_samples_begin_with_the_same_images():
    X, y = make_terrain(40, random_state=5)
    X_few, y_few = make_terrain(3, random_state=5)
    np.testing.assert_array_equal(X[:3], X_few)
    np.testing.assert_array_equal(y[:3], y_few)


def test_default_frequencies_are_those_of_an2dl(terrain):
    _, y = terrain
    np.testing.assert_allclose(frequencies(y)[:4], AN2DL[:4], atol=0.03)
    assert 0.0008 < frequencies(y)[4] < 0.002
    assert 0.015 < (y == 4).any(axis=(1, 2)).mean() < 0.04


def test_composition_varies_from_image_to_image(terrain):
    _, y = terrain
    n_classes = [len(np.unique(mask)) for mask in y]
    assert min(n_classes) == 1
    assert max(n_classes) >= 4


@pytest.mark.parametrize(
    "asked",
    [(1, 1, 1, 1, 0), (0.1, 0.4, 0.2, 0.2, 0.1), (0, 0, 3, 1, 0), (0.2, 0.3, 0.1, 0.1, 0.3)],
)
def test_frequencies_as_asked_for(asked):
    _, y = make_terrain(250, shape=(16, 24), class_frequencies=asked, random_state=0)
    asked = np.array(asked) / np.sum(asked)
    np.testing.assert_allclose(frequencies(y), asked, atol=0.04)
    np.testing.assert_array_equal(frequencies(y)[asked == 0], 0)


@pytest.mark.parametrize("label", range(4))
def test_one_class_only(label):
    X, y = make_terrain(3, class_frequencies=np.eye(5)[label], random_state=0)
    assert (y == label).all()
    assert X.std() > 0


def test_background_lies_above_the_ground(terrain):
    _, y = terrain
    rows = np.arange(64)[:, None]
    mixed = [mask for mask in y if 0.2 < (mask == 0).mean() < 0.8]
    assert len(mixed) > 50
    for mask in mixed:
        is_sky = mask == 0
        assert (rows * is_sky).sum() / is_sky.sum() < (rows * ~is_sky).sum() / (~is_sky).sum()


def test_noise_is_of_the_size_asked_for():
    # Only the sensor noise differs between the two, as all else is drawn before it.
    quiet, noisy = (
        make_terrain(30, noise=noise, random_state=0)[0].astype(float) for noise in (0, 0.04)
    )
    assert 0.03 < (noisy - quiet).std() / 255 < 0.055


def test_grey_levels_of_the_classes_overlap(terrain):
    X, y = terrain
    means = [X[y == label].mean() for label in range(5)]
    spreads = [X[y == label].std() for label in range(5)]
    assert np.ptp(means[:4]) < 1.2 * min(spreads[:4])


def test_grey_level_does_not_tell_the_classes_apart(terrain):
    X, y = terrain
    train, test = slice(0, 300), slice(300, None)
    pick = np.random.RandomState(0).choice(X[train].size, 20_000)
    classifier = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    classifier.fit(X[train].reshape(-1, 1)[pick], y[train].ravel()[pick])
    guess = classifier.predict(np.arange(256)[:, None])[X[test]]
    assert mean_iou(y[test], guess) < 0.25


def test_texture_does(terrain):
    X, y = terrain
    images = X.astype(float)
    difference = np.abs(np.diff(images, axis=1, append=images[:, -1:]))
    roughness = np.array([np.median(difference[y == label]) for label in (0, 1, 2, 3)])
    background, soil, bedrock, sand = roughness
    assert background < soil < bedrock
    assert sand < soil


KINDS = ["sprite", "black", "saturated", "noise", "stripes", "blur", "duplicate"]


@pytest.fixture(scope="module")
def spoilt():
    X, y, kinds = make_terrain(
        40, outliers=dict.fromkeys(KINDS, 3), return_outliers=True, random_state=2
    )
    clean_X, clean_y = make_terrain(40, random_state=2)
    return X, y, kinds, clean_X, clean_y


def test_outliers_are_where_it_is_said(spoilt):
    X, y, kinds, clean_X, clean_y = spoilt
    names, counts = np.unique(kinds, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "": 40 - 21,
        **dict.fromkeys(KINDS, 3),
    }
    changed = (clean_X != X).any(axis=(1, 2))
    np.testing.assert_array_equal(changed, kinds != "")
    np.testing.assert_array_equal((y != clean_y).any(axis=(1, 2)), kinds == "sprite")


def test_sprites_share_one_mask_and_show_the_image_around(spoilt):
    X, y, kinds, clean_X, _ = spoilt
    is_sprite = kinds == "sprite"
    masks = y[is_sprite]
    assert (masks == masks[0]).all()
    assert len(np.unique(masks[0])) >= 3
    covered = (clean_X != X)[is_sprite].mean(axis=(1, 2))
    assert ((covered > 0.02) & (covered < 0.5)).all()


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        ("black", lambda image, clean: image.max() < 10),
        ("saturated", lambda image, clean: (image == 255).mean() > 0.5),
        ("noise", lambda image, clean: image.std() > 60),
        ("stripes", lambda image, clean: 0.3 < (image != clean).any(axis=1).mean() < 0.8),
        (
            "blur",
            lambda image, clean: (
                np.ptp(np.diff(image.astype(float))) < np.ptp(np.diff(clean.astype(float)))
            ),
        ),
    ],
)
def test_damaged_frames(spoilt, kind, holds):
    X, _, kinds, clean_X, _ = spoilt
    for i in np.flatnonzero(kinds == kind):
        assert holds(X[i], clean_X[i])


def test_duplicates_contradict_the_original(spoilt):
    X, y, kinds, _, _ = spoilt
    clean = np.flatnonzero(kinds == "")
    for i in np.flatnonzero(kinds == "duplicate"):
        originals = [j for j in clean if np.array_equal(X[j], X[i])]
        assert len(originals) == 1
        assert (y[originals[0]] != y[i]).mean() > 0.3


@pytest.mark.parametrize(("outliers", "count"), [(0, 0), (None, 0), (4, 4), (0.25, 5), (20, 20)])
def test_counts_and_shares_are_sprites(outliers, count):
    *_, kinds = make_terrain(
        20, shape=(16, 16), outliers=outliers, return_outliers=True, random_state=0
    )
    assert (kinds == "sprite").sum() == count
    assert (kinds == "").sum() == 20 - count


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_outlier_at_the_smallest_size_in_colour(kind):
    X, _, kinds = make_terrain(
        3, shape=(8, 8), n_channels=3, outliers={kind: 2}, return_outliers=True, random_state=0
    )
    assert X.shape == (3, 8, 8, 3)
    assert (kinds == kind).sum() == 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"n_samples": 2.5}, "n_samples"),
        ({"shape": (7, 8)}, "at least 8"),
        ({"shape": (64, 64, 3)}, "shape"),
        ({"shape": 64}, "shape"),
        ({"n_channels": 2}, "n_channels"),
        ({"noise": -1}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"class_frequencies": (1, 1)}, "five numbers"),
        ({"class_frequencies": (1, 1, -1, 1, 1)}, "five numbers"),
        ({"class_frequencies": (0, 0, 0, 0, 0)}, "five numbers"),
        ({"class_frequencies": (0.1, 0.1, 0.1, 0.1, np.nan)}, "five numbers"),
        ({"class_frequencies": (0, 0, 0, 0, 1)}, "at most half"),
        ({"outliers": "sprite"}, "outliers"),
        ({"outliers": True}, "outliers"),
        ({"outliers": 1.5}, "outliers"),
        ({"outliers": -1}, ">= 0"),
        ({"outliers": {"ufo": 1}}, "ufo"),
        ({"outliers": {"blur": 0.5}}, "blur"),
        ({"n_samples": 3, "outliers": 4}, "4 outliers"),
        ({"n_samples": 3, "outliers": {"duplicate": 3}}, "3 outliers"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_terrain(**parameters)
