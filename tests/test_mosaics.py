import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skmars import MarsSegmenter
from skmars.datasets import make_terrain
from skmars.metrics import predictive_entropy
from skmars.prediction.mosaics import fitting_side
from skmars.prediction.windows import cover

HEIGHT, WIDTH = 150, 210
FIXED = {
    "depth": 2,
    "base_channels": 4,
    "max_epochs": 1,
    "batch_size": 8,
    "precision": "float32",
    "tta": False,
    "random_state": 0,
    "n_threads": 1,
}


def train():
    X, y = make_terrain(12, shape=(32, 48), random_state=0)
    y[0, :4, :4] = 4
    return MarsSegmenter(**FIXED, window=(40, 48), overlap=0.5).fit(X, 10 * y.astype(np.int16))


@pytest.fixture(scope="module")
def segmenter():
    return train()


@pytest.fixture(scope="module")
def source():
    return np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(segmenter, source):
    return segmenter.predict(source[None])[0]


@pytest.fixture
def segmenter_without_window(segmenter):
    yield segmenter.set_params(window=None)
    segmenter.set_params(window=(40, 48), overlap=0.5)


class Sliced:
    """An array that only gives what is sliced in two directions, and counts how often."""

    def __init__(self, array, fail_after=None):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.regions, self.fail_after, self.n_written = [], fail_after, 0

    def _check(self, region):
        assert len(region) == 2
        for part, side in zip(region, self.shape[:2], strict=True):
            assert isinstance(part, slice)
            assert part.step is None
            assert 0 <= part.start < part.stop <= side

    def __getitem__(self, region):
        self._check(region)
        self.regions.append(region)
        return self.array[region]

    def __setitem__(self, region, values):
        self._check(region)
        self.n_written += 1
        if self.fail_after is not None and self.n_written > self.fail_after:
            raise KeyboardInterrupt
        self.array[region] = values


# What goes in and what comes out


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i4", np.int64, np.uint64])
def test_labels_are_those_of_predict(dtype, segmenter, source, expected):
    target = np.full((HEIGHT, WIDTH), 99, dtype)
    assert segmenter.predict_large(source, target) is target
    np.testing.assert_array_equal(target, expected)
    assert target.dtype == dtype


def test_arrays_that_only_slice(segmenter, source, expected):
    reads, writes = Sliced(source), Sliced(np.zeros((HEIGHT, WIDTH), np.uint8))
    segmenter.predict_large(reads, writes)
    np.testing.assert_array_equal(writes.array, expected)
    # Never more than a window, or one of the patches of 64 pixels that are looked at first.
    assert max(a.stop - a.start for a, _ in reads.regions) <= 64
    assert max(b.stop - b.start for _, b in reads.regions) <= 64


def test_memory_maps(segmenter, source, expected, tmp_path):
    np.save(tmp_path / "source.npy", source)
    maps = np.load(tmp_path / "source.npy", mmap_mode="r")
    target = np.lib.format.open_memmap(
        tmp_path / "target.npy", mode="w+", dtype=np.uint8, shape=source.shape
    )
    segmenter.predict_large(maps, target, checkpoint=tmp_path / "checkpoint")
    del target
    np.testing.assert_array_equal(np.load(tmp_path / "target.npy"), expected)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("chunks", [(64, 64), (150, 210)])
def test_zarr(chunks, segmenter, source, expected, tmp_path):
    zarr = pytest.importorskip("zarr")
    stored = zarr.create_array(
        store=tmp_path / "source.zarr", shape=source.shape, dtype="uint8", chunks=chunks
    )
    stored[:] = source
    target = zarr.create_array(
        store=tmp_path / "target.zarr", shape=source.shape, dtype="int16", chunks=chunks
    )
    segmenter.predict_large(stored, target, checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "target.zarr", mode="r")[:], expected)
    only_read = zarr.open_array(tmp_path / "target.zarr", mode="r")
    with pytest.raises(ValueError, match="target cannot be written"):
        segmenter.predict_large(stored, only_read)


def test_hdf5(segmenter, source, expected, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        stored = file.create_dataset("source", data=source, chunks=(64, 64))
        target = file.create_dataset("target", source.shape, dtype="uint8", chunks=(64, 64))
        segmenter.predict_large(stored, target)
        np.testing.assert_array_equal(target[:], expected)


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, ">f4", np.float16, np.longdouble])
def test_channels_and_dtypes(n_channels, dtype, source):
    X, y = make_terrain(6, shape=(32, 48), random_state=0)
    rgb = np.stack([X, 255 - X, X // 2], axis=-1)[..., :n_channels]
    segmenter = MarsSegmenter(**FIXED, window=(40, 48)).fit(rgb, y)
    mosaic = np.stack([source, 255 - source, source // 2], axis=-1)[..., :n_channels]
    target = np.zeros(source.shape, np.uint8)
    segmenter.predict_large(mosaic.astype(dtype), target)
    np.testing.assert_array_equal(target, segmenter.predict(mosaic[None])[0])


def test_mean_over_flips(segmenter, source):
    segmenter.set_params(tta=True)
    try:
        target = np.zeros(source.shape, np.uint8)
        segmenter.predict_large(source, target)
        np.testing.assert_array_equal(target, segmenter.predict(source[None])[0])
    finally:
        segmenter.set_params(tta=False)


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (40, 48), (41, 48), (151, 49)])
def test_any_shape(shape, segmenter):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    target = np.zeros(shape, np.uint8)
    segmenter.predict_large(image, target)
    np.testing.assert_array_equal(target, segmenter.predict(image[None])[0])


def test_window_of_its_own(segmenter_without_window):
    segmenter = segmenter_without_window
    image = np.random.default_rng(0).integers(0, 255, (60, 1500), dtype=np.uint8)
    reads, target = Sliced(image), np.zeros(image.shape, np.uint8)
    segmenter.predict_large(reads, target)
    extents = [(b.start, b.stop) for _, b in reads.regions if b.stop - b.start > 64]
    assert extents == [(0, 756), (744, 1500)]
    segmenter.set_params(window=(60, 756), overlap=12 / 756)
    np.testing.assert_array_equal(target, segmenter.predict(image[None])[0])


def test_window_of_its_own_can_be_the_whole_image(segmenter_without_window):
    segmenter = segmenter_without_window
    image = np.random.default_rng(0).integers(0, 255, (70, 700), dtype=np.uint8)
    target = np.zeros(image.shape, np.uint8)
    segmenter.predict_large(image, target)
    np.testing.assert_array_equal(target, segmenter.predict(image[None])[0])


@pytest.mark.parametrize("grid", [4, 8, 16, 32])
@pytest.mark.parametrize("length", [1, 30, 767, 768, 769, 1500, 5976, 14142])
def test_sides_that_fit(length, grid):
    side = fitting_side(length, grid)
    spans = cover(length, side, 3 * grid / 768, grid)
    assert side <= 768
    # No more windows than the longest would need, and hardly more pixels than the overlap takes.
    assert len(spans) == len(cover(length, 768, 3 * grid / 768, grid))
    n_shared = sum(span.stop - span.start for span in spans) - length
    assert n_shared <= (len(spans) - 1) * 3 * grid + len(spans) * grid


def test_bar(segmenter, source, capsys):
    target = np.zeros(source.shape, np.uint8)
    segmenter.predict_large(source, target)
    assert capsys.readouterr().err == ""
    segmenter.predict_large(source, target, progress=True)
    assert "100%" in capsys.readouterr().err


# Resuming


def interrupt(segmenter, source, target, path, n_strips, **params):
    # One write is the test whether it can be written to.
    stops = Sliced(target, fail_after=1 + n_strips)
    with pytest.raises(KeyboardInterrupt):
        segmenter.predict_large(source, stops, checkpoint=path, **params)
    assert path.exists()


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("n_strips", [0, 1, 3])
def test_resumed_run_gives_the_same_labels(n_strips, overlap, segmenter, source, tmp_path):
    segmenter.set_params(overlap=overlap)
    try:
        target = np.full(source.shape, 99, np.uint8)
        interrupt(segmenter, source, target, tmp_path / "checkpoint", n_strips)
        again = Sliced(target)
        reads = Sliced(source)
        segmenter.predict_large(reads, again, checkpoint=tmp_path / "checkpoint")
        np.testing.assert_array_equal(target, segmenter.predict(source[None])[0])
        assert list(tmp_path.iterdir()) == []
        whole = Sliced(np.zeros_like(target))
        segmenter.predict_large(source, whole)
        assert again.n_written == whole.n_written - n_strips
    finally:
        segmenter.set_params(overlap=0.5)


CHILD = """
import time
import numpy as np
from skmars import MarsSegmenter

source = np.load("source.npy", mmap_mode="r")
target = np.load("target.npy", mmap_mode="r+")

class Stuck:
    shape, dtype = source.shape, source.dtype
    n_read = 0

    def __getitem__(self, region):
        Stuck.n_read += 1
        if Stuck.n_read > 60:
            print("reading", flush=True)
            time.sleep(1000)
        return source[region]

segmenter = MarsSegmenter.load("model.skmars")
segmenter.predict_large(Stuck(), target, checkpoint="checkpoint")
"""


def run_child(code, folder):
    # The environment of a user, not one that an earlier test has changed.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def test_resumed_after_a_kill(segmenter, source, expected, tmp_path):
    segmenter.save(tmp_path / "model.skmars")
    np.save(tmp_path / "source.npy", source)
    np.save(tmp_path / "target.npy", np.full(source.shape, 99, np.uint8))
    child = run_child(CHILD, tmp_path)
    assert child.stdout.readline() == "reading\n"
    child.kill()
    child.wait()
    n_done = len(json.loads((tmp_path / "checkpoint").read_text(encoding="utf-8"))["strips"])
    target = np.load(tmp_path / "target.npy", mmap_mode="r+")
    assert n_done > 0
    assert (target == 99).any()
    assert (target != 99).any()
    counted = Sliced(target)
    segmenter.predict_large(source, counted, checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(np.load(tmp_path / "target.npy"), expected)
    assert not (tmp_path / "checkpoint").exists()
    n_strips = 7
    assert counted.n_written == 1 + n_strips - n_done


def test_strips_that_were_damaged_are_predicted_again(segmenter, source, expected, tmp_path):
    target = np.full(source.shape, 99, np.uint8)
    interrupt(segmenter, source, target, tmp_path / "checkpoint", 3)
    target[60] = 7
    segmenter.predict_large(source, target, checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(target, expected)


def test_other_target_with_a_checkpoint(segmenter, source, tmp_path):
    path = tmp_path / "checkpoint"
    interrupt(segmenter, source, np.zeros(source.shape, np.uint8), path, 2)
    other = np.full(source.shape, 99, np.uint8)
    with pytest.raises(ValueError, match=r"target does not hold.*checkpoint"):
        segmenter.predict_large(source, other, checkpoint=path)
    assert (other == 99).all()
    with pytest.raises(ValueError, match="another run, with another target"):
        segmenter.predict_large(source, other.astype(np.int16), checkpoint=path)


def changed(source):
    other = source.copy()
    other[-1, -1] += 1
    return other


def heated(segmenter):
    segmenter.net_.temperature = 2.0
    return segmenter


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s, x: (heated(s), x), "temperature"),
        (lambda s, x: (s, changed(x)), "source"),
        (lambda s, x: (s, x.astype(np.int32)), "source"),
        (lambda s, x: (s.set_params(window=(48, 48)), x), "window"),
        (lambda s, x: (s.set_params(overlap=0.25), x), "overlap"),
        (lambda s, x: (s.set_params(tta=True, batch_size=3), x), "tta, batch_size"),
        (lambda s, x: (s.partial_fit(x[None, :32, :48], np.zeros((1, 32, 48), int)), x), "model"),
    ],
)
def test_checkpoint_of_another_run(change, match, source, tmp_path):
    segmenter = train()
    path = tmp_path / "checkpoint"
    target = np.full(source.shape, 99, np.uint8)
    interrupt(segmenter, source, target, path, 2)
    before, content = target.copy(), path.read_bytes()
    other, image = change(segmenter, source)
    with pytest.raises(ValueError, match=f"another run, with another {match};"):
        other.predict_large(image, target, checkpoint=path)
    np.testing.assert_array_equal(target, before)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", ["", "nonsense", "[1, 2]", "{}", '{"format": 1, "run": 3}'])
def test_file_that_is_no_checkpoint(content, segmenter, source, tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"thesis.txt.*not a checkpoint"):
        segmenter.predict_large(source, np.zeros(source.shape, np.uint8), checkpoint=path)
    assert path.read_text(encoding="utf-8") == content


def test_checkpoint_of_a_later_version(segmenter, source, tmp_path):
    path = tmp_path / "checkpoint"
    path.write_text('{"format": 9, "run": {}, "strips": []}', encoding="utf-8")
    with pytest.raises(ValueError, match="format 9"):
        segmenter.predict_large(source, np.zeros(source.shape, np.uint8), checkpoint=path)


def test_checkpoint_that_cannot_be_written_shows_at_once(segmenter, source, tmp_path):
    target = np.full(source.shape, 99, np.uint8)
    with pytest.raises(OSError, match="nowhere"):
        segmenter.predict_large(source, target, checkpoint=tmp_path / "nowhere" / "checkpoint")
    assert (target == 99).all()


# Wrong input


def read_only(shape):
    array = np.zeros(shape, np.uint8)
    array.flags.writeable = False
    return array


SHAPE = (HEIGHT, WIDTH)
BAD_TARGETS = {
    "other height": (np.zeros((HEIGHT - 1, WIDTH), np.uint8), r"\(150, 210\).*\(149, 210\)"),
    "transposed": (np.zeros((WIDTH, HEIGHT), np.uint8), r"\(150, 210\)"),
    "with channels": (np.zeros((*SHAPE, 1), np.uint8), r"\(150, 210\)"),
    "too narrow a dtype": (np.zeros(SHAPE, bool), r"bool cannot hold.*10, 20"),
    "fractions": (np.zeros(SHAPE), "integer dtype, got float64"),
    "objects": (np.zeros(SHAPE, object), "integer dtype"),
    "not writeable": (read_only(SHAPE), "cannot be written"),
    "None": (None, "target must be an array"),
    "a list": ([[0] * WIDTH] * HEIGHT, "target must be an array"),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_wrong_targets(name, segmenter, source):
    target, match = BAD_TARGETS[name]
    with pytest.raises((ValueError, TypeError), match=match):
        segmenter.predict_large(source, target)


def test_labels_beyond_the_dtype_of_the_target(source):
    X, y = make_terrain(6, shape=(32, 48), random_state=0)
    for label, dtype in [(300, np.uint8), (-1, np.uint16)]:
        segmenter = MarsSegmenter(**FIXED).fit(X, np.where(y == 1, label, y.astype(np.int64)))
        target = np.full(source.shape, 99, dtype)
        with pytest.raises(ValueError, match=rf"cannot hold the labels \[{label}\]"):
            segmenter.predict_large(source, target)
        assert (target == 99).all()


BAD_SOURCES = {
    "many images": (np.zeros((2, *SHAPE, 1), np.uint8), "4 dimensions"),
    "a row": (np.zeros(WIDTH, np.uint8), "1 dimensions"),
    "three channels": (np.zeros((*SHAPE, 3), np.uint8), "3 channels"),
    "strings": (np.full(SHAPE, "x"), "real numbers"),
    "complex": (np.zeros(SHAPE, complex), "real numbers"),
    "a list": ([[0] * WIDTH] * HEIGHT, "source must be an array"),
    "None": (None, "source must be an array"),
    "NaN": (np.full(SHAPE, np.nan), "NaN"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_wrong_sources(name, segmenter):
    source, match = BAD_SOURCES[name]
    target = np.full(SHAPE, 99, np.uint8)
    with pytest.raises((ValueError, TypeError), match=match):
        segmenter.predict_large(source, target)
    assert (target == 99).all()


def test_empty_source(segmenter):
    with pytest.raises(ValueError, match="empty"):
        segmenter.predict_large(np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8))


def test_source_that_lies_about_its_shape(segmenter, source):
    liar = Sliced(source)
    liar.shape = (2 * HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"empty|part of shape"):
        segmenter.predict_large(liar, np.zeros(liar.shape, np.uint8))


def test_target_on_top_of_the_source(segmenter, source):
    both = source.copy()
    with pytest.raises(ValueError, match="share memory"):
        segmenter.predict_large(both, both)
    np.testing.assert_array_equal(both, source)


def test_not_fitted(source):
    with pytest.raises(NotFittedError):
        MarsSegmenter().predict_large(source, np.zeros(source.shape, np.uint8))


# Memory


MEMORY = """
import resource
import numpy as np
from skmars import MarsSegmenter

class Virtual:
    dtype = np.dtype(np.uint8)

    def __init__(self, *shape):
        self.shape = shape

    def __getitem__(self, region):
        height, width = (part.stop - part.start for part in region)
        return np.arange(height * width, dtype=np.uint8).reshape(height, width)

    def __setitem__(self, region, values):
        pass

segmenter = MarsSegmenter.load("model.skmars").set_params(window=(256, 256), overlap=0.1)
# Not the net's own memory is in question.
segmenter.net_.predictor = lambda: lambda x: x[:, [0] * 5].float()
for shape in [(600, 1500), (8000, 1500), (600, 20000)]:
    segmenter.predict_large(Virtual(*shape), Virtual(*shape))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_image(segmenter, tmp_path):
    segmenter.save(tmp_path / "model.skmars")
    child = run_child(MEMORY, tmp_path)
    said, _ = child.communicate(timeout=100)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    small, high, wide = (int(line) / unit for line in said.split())
    # Both images have 12 megapixels: 240 MB as probabilities of five classes.
    assert high - small < 15
    # Of the wide one a row of windows has 5 megapixels, 100 MB as probabilities.
    assert wide - high < 40


# Pixels without data


def without_data(source, empty, dtype, nodata):
    """A mosaic that has none in some places, and the same one filled with the mean by hand."""
    image = np.maximum(source, 1).astype(dtype)
    filled = image.copy()
    image[empty] = nodata
    return image, filled


BORDER = np.indices((HEIGHT, WIDTH))[1] < 20


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        (np.float32, np.nan),
        (np.float16, np.float64("nan")),
        (np.longdouble, np.nan),
        (np.float64, -9999),
        (">f4", -3.4028235e38),
        (np.float32, -np.inf),
        (np.uint8, 0),
        (np.uint8, 0.0),
        (np.int16, np.int64(-32768)),
    ],
)
def test_pixels_without_data_have_a_label_of_their_own(dtype, nodata, tta, segmenter, source):
    image, filled = without_data(source, BORDER, dtype, nodata)
    mean = segmenter.mean_[0]
    filled[BORDER] = mean if filled.dtype.kind == "f" else round(mean)
    target = np.zeros(source.shape, np.uint8)
    segmenter.set_params(tta=tta)
    try:
        segmenter.predict_large(image, target, nodata=nodata, nodata_label=255)
        expected = segmenter.predict(filled[None])[0]
    finally:
        segmenter.set_params(tta=False)
    np.testing.assert_array_equal(target[~BORDER], expected[~BORDER])
    assert (target[BORDER] == 255).all()


def test_label_of_pixels_without_data_may_be_a_class(segmenter, source):
    image, filled = without_data(source, BORDER, np.float32, np.nan)
    filled[BORDER] = segmenter.mean_[0]
    target = np.zeros(source.shape, np.int16)
    segmenter.predict_large(image, target, nodata=np.nan, nodata_label=np.int64(10))
    expected = np.where(BORDER, 10, segmenter.predict(filled[None])[0])
    np.testing.assert_array_equal(target, expected)


def test_pixels_without_data_have_none_in_any_channel(source):
    X, y = make_terrain(6, shape=(32, 48), random_state=0)
    segmenter = MarsSegmenter(**FIXED, window=(40, 48))
    segmenter.fit(np.stack([X, 255 - X, X // 2], axis=-1), y)
    data = np.maximum(source, 2)
    image = np.stack([data, 256 - data.astype(np.int16), data // 2], axis=-1).astype(np.int16)
    # One channel alone may have the value.
    image[50:60, 100:120, 1] = 0
    filled = image.copy()
    image[BORDER] = 0
    filled[BORDER] = np.rint(segmenter.mean_)
    target = np.zeros(source.shape, np.uint8)
    segmenter.predict_large(image, target, nodata=0, nodata_label=9)
    expected = np.where(BORDER, 9, segmenter.predict(filled[None])[0])
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("tta", [False, True])
def test_windows_without_data_do_not_go_through_the_net(tta, segmenter, source):
    rows, columns = np.indices(source.shape)
    empty = columns - rows > 60
    image, filled = without_data(source, empty, np.float32, np.nan)
    filled[empty] = segmenter.mean_[0]
    infer, seen = segmenter.net_.predictor(), []

    def counted(x):
        seen.append(len(x))
        return infer(x)

    target = np.zeros(source.shape, np.uint8)
    segmenter.set_params(tta=tta)
    segmenter.net_.predictor = lambda: counted
    try:
        segmenter.predict_large(image, target, nodata=np.nan, nodata_label=255)
    finally:
        del segmenter.net_.predictor
        expected = segmenter.predict(filled[None])[0]
        segmenter.set_params(tta=False)
    with_data = [
        not empty[a.start : a.stop, b.start : b.stop].all()
        for a in cover(HEIGHT, 40, 0.5, 4)
        for b in cover(WIDTH, 48, 0.5, 4)
    ]
    assert sum(seen) == (1 + tta) * sum(with_data) < (1 + tta) * len(with_data)
    assert (target[empty] == 255).all()
    # Fewer windows at once may round otherwise.
    assert np.mean(target[~empty] == expected[~empty]) > 0.999


def test_mosaic_without_any_data(segmenter):
    target = np.zeros((HEIGHT, WIDTH), np.uint8)
    image = np.full((HEIGHT, WIDTH), np.nan)
    segmenter.predict_large(image, target, nodata=np.nan, nodata_label=7)
    assert (target == 7).all()


def test_resumed_run_with_pixels_without_data(segmenter, source, tmp_path):
    path, (image, _) = tmp_path / "checkpoint", without_data(source, BORDER, np.float32, np.nan)
    target, undisturbed = np.full((2, *source.shape), 99, np.uint8)
    segmenter.predict_large(image, undisturbed, nodata=np.nan, nodata_label=255)
    interrupt(segmenter, image, target, path, 3, nodata=np.nan, nodata_label=255)
    with pytest.raises(ValueError, match="another run, with another nodata;"):
        segmenter.predict_large(image, target, checkpoint=path, nodata=np.nan, nodata_label=254)
    segmenter.predict_large(image, target, checkpoint=path, nodata=np.nan, nodata_label=255)
    np.testing.assert_array_equal(target, undisturbed)
    assert not path.exists()


def test_checkpoint_with_another_value_of_pixels_without_data(segmenter, source, tmp_path):
    path, target = tmp_path / "checkpoint", np.zeros(source.shape, np.uint8)
    interrupt(segmenter, source, target, path, 2, nodata=3, nodata_label=255)
    for other in ({}, {"nodata": 4, "nodata_label": 255}, {"nodata": 3, "nodata_label": 254}):
        with pytest.raises(ValueError, match="another run, with another nodata;"):
            segmenter.predict_large(source, target, checkpoint=path, **other)


def test_checkpoint_that_does_not_tell_of_missing_data(segmenter, source, expected, tmp_path):
    path, target = tmp_path / "checkpoint", np.full(source.shape, 99, np.uint8)
    interrupt(segmenter, source, target, path, 2)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["run"]["nodata"]
    path.write_text(json.dumps(content), encoding="utf-8")
    counted = Sliced(target)
    segmenter.predict_large(source, counted, checkpoint=path)
    np.testing.assert_array_equal(target, expected)
    assert counted.n_written == 1 + 7 - 2


@pytest.mark.parametrize(
    ("nodata", "label", "match"),
    [
        (0, None, "need each other.*nodata_label=None"),
        (None, 255, "need each other.*nodata=None"),
        ("0", 255, "nodata must be a number"),
        (0, 255.0, "nodata_label must be an integer"),
        (0, 256, r"uint8 cannot hold the labels \[256\]"),
        (0, -1, r"uint8 cannot hold the labels \[-1\]"),
        (-9999, 255, "uint8 has no pixel of nodata=-9999"),
        (0.5, 255, "uint8 has no pixel of nodata=0.5"),
        (np.nan, 255, "uint8 has no pixel of nodata=nan"),
    ],
)
def test_wrong_nodata(nodata, label, match, segmenter, source):
    target = np.full(source.shape, 99, np.uint8)
    with pytest.raises((ValueError, TypeError), match=match):
        segmenter.predict_large(source, target, nodata=nodata, nodata_label=label)
    assert (target == 99).all()


def test_nodata_beyond_the_dtype_of_fractions(segmenter, source):
    target = np.full(source.shape, 99, np.uint8)
    with pytest.raises(ValueError, match="float16 has no pixel of nodata"):
        segmenter.predict_large(
            source.astype(np.float16), target, nodata=-3.4e38, nodata_label=255
        )
    assert (target == 99).all()


@pytest.mark.parametrize("sliced", [False, True])
def test_masked_pixels_of_a_mosaic_are_refused(sliced, segmenter, source):
    hidden = np.ma.masked_array(source, np.zeros(source.shape, dtype=bool))
    hidden[5, 7] = np.ma.masked
    target = np.full(source.shape, 99, np.uint8)
    with pytest.raises(TypeError, match=r"source has masked pixels.*give it as nodata"):
        segmenter.predict_large(Sliced(hidden) if sliced else hidden, target)
    assert (target == 99).all()


# Uncertainty


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_uncertainty_is_the_entropy_of_the_probabilities(dtype, tta, segmenter, source):
    target, uncertainty = np.zeros(source.shape, np.uint8), np.zeros(source.shape, dtype)
    segmenter.set_params(tta=tta)
    try:
        segmenter.predict_large(source, target, uncertainty=uncertainty)
        probabilities = segmenter.predict_proba(source[None])[0]
        np.testing.assert_array_equal(target, segmenter.predict(source[None])[0])
    finally:
        segmenter.set_params(tta=False)
    close = {"atol": 1e-3 if dtype == np.float16 else 1e-5}
    np.testing.assert_allclose(uncertainty, predictive_entropy(probabilities), **close)


def test_uncertainty_of_pixels_without_data_is_nan(segmenter, source):
    image, _ = without_data(source, BORDER, np.float32, np.nan)
    target, uncertainty = np.zeros(source.shape, np.uint8), np.zeros(source.shape)
    segmenter.predict_large(
        image, target, nodata=np.nan, nodata_label=255, uncertainty=uncertainty
    )
    np.testing.assert_array_equal(np.isnan(uncertainty), BORDER)


def test_resumed_run_gives_the_same_uncertainty(segmenter, source, expected, tmp_path):
    target, uncertainty = np.zeros(source.shape, np.uint8), np.zeros(source.shape)
    whole = np.zeros(source.shape)
    segmenter.predict_large(source, np.zeros(source.shape, np.uint8), uncertainty=whole)
    path = tmp_path / "checkpoint"
    interrupt(segmenter, source, target, path, 2, uncertainty=uncertainty)
    with pytest.raises(ValueError, match="another run, with another uncertainty"):
        segmenter.predict_large(source, target, checkpoint=path)
    # Those that were emptied are not taken for written.
    with pytest.raises(ValueError, match="target does not hold"):
        segmenter.predict_large(
            source, target, checkpoint=path, uncertainty=np.zeros_like(uncertainty)
        )
    interrupt(segmenter, source, target, path, 1, uncertainty=uncertainty)
    segmenter.predict_large(source, target, checkpoint=path, uncertainty=uncertainty)
    np.testing.assert_array_equal(target, expected)
    np.testing.assert_array_equal(uncertainty, whole)


BAD_UNCERTAINTIES = {
    "integers": (np.zeros(SHAPE, np.uint8), "uncertainty must be of a floating dtype, got uint8"),
    "other height": (np.zeros((HEIGHT - 1, WIDTH)), r"uncertainty must have.*\(149, 210\)"),
    "not writeable": (read_only(SHAPE), "uncertainty cannot be written"),
    "a list": ([[0.0] * WIDTH] * HEIGHT, "uncertainty must be an array"),
}


@pytest.mark.parametrize("name", BAD_UNCERTAINTIES)
def test_wrong_uncertainties(name, segmenter, source):
    uncertainty, match = BAD_UNCERTAINTIES[name]
    target = np.full(source.shape, 99, np.uint8)
    with pytest.raises((ValueError, TypeError), match=match):
        segmenter.predict_large(source, target, uncertainty=uncertainty)
    assert (target == 99).all()


def test_uncertainty_on_top_of_the_target(segmenter, source):
    both = np.zeros(source.shape, np.float32)
    with pytest.raises(ValueError, match="target and uncertainty must not share memory"):
        segmenter.predict_large(source, both.view(np.int32), uncertainty=both)
