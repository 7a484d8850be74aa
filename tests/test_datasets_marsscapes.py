"""`fetch_marsscapes`, against servers on this machine that serve well, badly, or not at all."""

import inspect
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from conftest import REAL_DATA
from flaky_server import serving
from small_panoramas import ZIP, make_world, naive_tiles

from skmars.datasets import _download, _marsscapes, fetch_marsscapes

RAW = REAL_DATA.parent / "marsscapes_raw"
ARRAYS = ("images", "target", "groups", "subsets", "panoramas", "positions")
LARGE = "/image/1_1.png"


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(world):
    with serving(dict(world[1])) as server:
        yield server


@pytest.fixture
def fetch(world, server, tmp_path, monkeypatch):
    """`fetch_marsscapes` for the generated panoramas, at small tiles and without waiting."""
    monkeypatch.setattr(_marsscapes, "read_manifest", lambda: world[0])

    def call(**options):
        small = {"tile": (8, 16), "scale": 2, "delay": 0, "base_url": server.url}
        return fetch_marsscapes(**{"data_home": tmp_path, **small, **options})

    return call


PROGRAM = """
import json, os, resource, sys
from skmars.datasets import _marsscapes
world = json.load(open(sys.argv[1]))
_marsscapes.read_manifest = lambda: world["manifest"]
if "limit" in world:
    resource.setrlimit(resource.RLIMIT_FSIZE, (world["limit"], world["limit"]))
print("ready", flush=True)
sys.stdin.readline()
if world.get("twice"):
    os.fork()
try:
    data = _marsscapes.fetch_marsscapes(**world["options"])
    print(len(data.images), int(data.images.sum()), int(data.target.sum()))
except OSError as error:
    print("OSError:", error)
"""


@pytest.fixture
def processes(world, server, tmp_path):
    """Starts processes that call `fetch_marsscapes`, or `twice`, once they are sent a line."""
    started = []

    def start(**more):
        options = {"data_home": str(tmp_path), "tile": (8, 16), "scale": 2, "delay": 0}
        options["base_url"] = server.url
        file = tmp_path / f"{len(started)}.json"
        file.write_text(json.dumps({"manifest": world[0], "options": options, **more}))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(file)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(process):
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in ARRAYS)


def files_in(folder):
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


# --- what comes back


@pytest.mark.parametrize(
    ("scale", "overlap", "max_void", "stride"),
    [(2, 0.0, 0.25, (8, 16)), (3, 0.5, 0.1, (4, 8)), (1, 0.0, 1.0, (8, 16))],
)
def test_tiles_are_those_of_plain_loops(world, fetch, scale, overlap, max_void, stride):
    data = fetch(scale=scale, overlap=overlap, max_void=max_void, subset="test")
    expected = naive_tiles(*world[2]["2_1"], (8, 16), scale, stride, max_void)
    images, labels, positions = (np.array(part) for part in zip(*expected, strict=True))
    assert len(images) > 3
    np.testing.assert_array_equal(data.positions, positions)
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.target, labels)
    assert data.images.dtype == data.target.dtype == np.uint8


def test_bunch_tells_where_tiles_are_from(fetch):
    data = fetch()
    n = len(data.images)
    assert {len(data[key]) for key in ARRAYS} == {n}
    origin = set(zip(data.panoramas, data.groups, data.subsets, strict=True))
    assert origin == {("1_1", 1, "train"), ("1_2", 1, "train"), ("2_1", 2, "test")}
    assert data.target_names == ["background", "soil", "bedrock", "sand", "big rock"]
    assert f"{n} tiles of 8 x 16 pixels (all), of 3 panoramas of 2 sols" in data.DESCR
    X, y = fetch(return_X_y=True)
    assert np.array_equal(X, data.images)
    assert np.array_equal(y, data.target)


def test_subset_downloads_its_own_panoramas_only(server, fetch):
    train = fetch(subset="train")
    assert {path for path, _ in server.requests} == {ZIP, LARGE, "/image/1_2.png"}
    both, test = fetch(), fetch(subset="test")
    assert np.array_equal(both.images, np.concatenate([train.images, test.images]))


def test_manifest_is_that_of_the_publication():
    manifest = _marsscapes.read_manifest()
    rows = manifest["panoramas"]
    sols = {s: {row["sol"] for row in rows if row["subset"] == s} for s in ("train", "test")}
    assert (len(rows), len(sols["train"]), len(sols["test"])) == (84, 49, 20)
    assert not sols["train"] & sols["test"]
    assert sum(row["bytes"] for row in rows) == 190_054_402
    assert set(manifest["label_colours"]) == set(_marsscapes._LABELS)


def test_real_panoramas_give_the_tiles_of_the_real_file(real_file, tmp_path, monkeypatch):
    if not RAW.exists():
        pytest.skip("no real panoramas at hand")
    manifest = _marsscapes.read_manifest()
    manifest["panoramas"] = [row for row in manifest["panoramas"] if row["sol"] in (340, 351)]
    monkeypatch.setattr(_marsscapes, "read_manifest", lambda: manifest)
    files = {f"/{p.relative_to(RAW)}": p.read_bytes() for p in RAW.rglob("*") if p.is_file()}
    with serving(files) as server:
        data = fetch_marsscapes(data_home=tmp_path, overlap=0.5, base_url=server.url + "/")
    cut = {pair.tobytes() for pair in np.stack([data.images, data.target], axis=1)}
    with np.load(real_file) as archive:
        sol = archive["training_sol"]
        sol[archive["training_outliers"]] = -1
        tiles = archive["training_set"][np.isin(sol, (340, 351))]
    assert len(tiles) == 44
    assert sum(tile.tobytes() in cut for tile in tiles) == 44


# --- downloads that go wrong


def test_cut_connection_goes_on_where_it_ended(server, fetch):
    server.faults[LARGE] = [70_000, 30_000]
    fetch(subset="train")
    spans = [span for path, span in server.requests if path == LARGE]
    assert spans == [None, "bytes=70000-", "bytes=100000-"]


def test_cut_connection_begins_anew_without_ranges(server, fetch):
    server.ranges = False
    server.faults[LARGE] = [70_000]
    fetch(subset="train")
    assert [span for path, span in server.requests if path == LARGE] == [None, "bytes=70000-"]


def test_what_came_is_kept_for_the_next_call(server, fetch, tmp_path):
    server.faults[LARGE] = [50_000] * 2
    with pytest.raises(OSError, match=r"1_1.png .* 2 attempt.* after 100000 of \d+ bytes"):
        fetch(subset="train", n_retries=1)
    assert files_in(tmp_path) == {"semantic.zip", "1_1.png.part"}
    fetch(subset="train", n_retries=0)
    assert (LARGE, "bytes=100000-") in server.requests
    assert {"1_1.png", "1_2.png"} < files_in(tmp_path)
    assert "1_1.png.part" not in files_in(tmp_path)


@pytest.mark.parametrize("size", [50_000, 10_000_000, None])
def test_wrong_parts_are_discarded(world, server, fetch, tmp_path, size):
    part = tmp_path / "marsscapes" / "image" / "1_1.png.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (size or len(world[1][LARGE])))
    fetch(subset="train")
    assert server.requests[-1] == ("/image/1_2.png", None)
    assert (LARGE, None) in server.requests


def test_whole_part_needs_no_request(world, server, fetch, tmp_path):
    part = tmp_path / "marsscapes" / "image" / "1_1.png.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(world[1][LARGE])
    fetch(subset="train")
    assert LARGE not in [path for path, _ in server.requests]


@pytest.mark.parametrize(
    ("faults", "spans"),
    [
        ([500, 404, 503], [None] * 4),
        (["wrong"], [None, None]),
        # A page in place of the file does not take the place of what has come.
        ([70_000, "page"], [None, "bytes=70000-", "bytes=70000-"]),
        ([70_000, 416], [None, "bytes=70000-", None]),
        ([70_000, "shifted"], [None, "bytes=70000-", None]),
        ([70_000, 500, 90_000], [None, "bytes=70000-", "bytes=70000-", "bytes=160000-"]),
    ],
)
def test_faults_that_pass_are_outlasted(world, server, fetch, tmp_path, faults, spans):
    server.faults[LARGE] = list(faults)
    fetch(subset="train")
    assert [span for path, span in server.requests if path == LARGE] == spans
    path = tmp_path / "marsscapes" / "image" / "1_1.png"
    assert path.read_bytes() == world[1][LARGE]


def test_wrong_hash_ends_in_an_error_and_leaves_nothing(server, fetch, tmp_path):
    server.faults[LARGE] = ["wrong"] * 3
    with pytest.raises(OSError, match=r"3 attempt.*SHA-256 is [0-9a-f]{64}, expected"):
        fetch(n_retries=2)
    assert files_in(tmp_path) == {"semantic.zip"}


def test_missing_file_ends_in_an_error_that_names_it(server, fetch):
    del server.files[LARGE]
    with pytest.raises(OSError, match=r"image/1_1.png .* 4 attempt.*HTTP status 404"):
        fetch()
    assert [path for path, _ in server.requests] == [ZIP] + [LARGE] * 4


def test_no_server_ends_in_an_error(fetch):
    with pytest.raises(OSError, match=r"semantic.zip could not be downloaded.*refused"):
        fetch(base_url="http://127.0.0.1:1", n_retries=1)


def test_any_number_of_attempts(fetch, monkeypatch):
    def fail(file):
        raise _download.TransferError("refused")

    monkeypatch.setattr(_download, "_transfer", fail)
    with pytest.raises(OSError, match="2001 attempt"):
        fetch(n_retries=2000, delay=0.0)


def test_waits_double(server, fetch, monkeypatch):
    waits = []
    monkeypatch.setattr(_download.time, "sleep", waits.append)
    server.faults[ZIP] = [500] * 9
    fetch(n_retries=9, delay=0.5, subset="test")
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_full_disk_is_told_and_another_call_goes_on(server, processes, fetch, tmp_path):
    process = processes(limit=100_000)
    go(process)
    message = process.communicate(timeout=60)[0]
    assert message.startswith("OSError: [Errno 27] File too large, while 1_1.png was downloaded")
    assert files_in(tmp_path / "marsscapes") == {"semantic.zip", "1_1.png.part"}
    assert len(fetch().images)
    begun = [span for path, span in server.requests if path == LARGE]
    assert begun == [None, "bytes=100000-"]


def test_killed_process_is_gone_on_with(server, processes, fetch, tmp_path):
    event = threading.Event()
    server.faults[LARGE] = [(150_000, event)]
    process = processes()
    go(process)
    part = tmp_path / "marsscapes" / "image" / "1_1.png.part"
    wait_until(lambda: part.exists() and part.stat().st_size >= 2**16)
    process.kill()
    process.wait()
    event.set()
    size = part.stat().st_size
    assert len(fetch().images)
    assert [span for path, span in server.requests if path == LARGE][1:] == [f"bytes={size}-"]


def test_processes_at_the_same_time_download_once(world, server, processes, fetch, tmp_path):
    event = threading.Event()
    server.faults[LARGE] = [(150_000, event)]
    both = processes(twice=True)
    go(both)
    wait_until(lambda: (LARGE, None) in server.requests)
    time.sleep(0.5)
    event.set()
    answers = both.communicate(timeout=60)[0]
    data = fetch(download_if_missing=False)
    assert answers == f"{len(data.images)} {data.images.sum()} {data.target.sum()}\n" * 2
    counts = Counter(path for path, _ in server.requests)
    assert counts == {path: 1 + (path == LARGE) for path in world[1]}
    whole = {"semantic.zip", "1_1.png", "1_2.png", "2_1.png"}
    assert {name for name in files_in(tmp_path / "marsscapes") if "npz" not in name} == whole


# --- what is kept


def test_second_call_reads_the_tiles_alone(server, fetch, tmp_path):
    first = fetch()
    n_requests = len(server.requests)
    for path in (tmp_path / "marsscapes" / "image").glob("*.png"):
        path.unlink()
    assert same(fetch(download_if_missing=False), first)
    assert len(server.requests) == n_requests
    with pytest.raises(OSError, match=r"3 of 4 files .* download_if_missing is False"):
        fetch(download_if_missing=False, overlap=0.5)


def test_other_parameters_are_cut_offline(server, fetch):
    first = fetch()
    n_requests = len(server.requests)
    for other in ({"tile": [16, 16]}, {"scale": np.int64(3)}, {"overlap": 0.5}, {"max_void": 1}):
        data = fetch(base_url=None, **other)
        assert not same(data, first), other
    assert len(server.requests) == n_requests


def test_damaged_tiles_are_cut_anew(fetch, tmp_path):
    first = fetch()
    (cache,) = (tmp_path / "marsscapes" / "tiles").iterdir()
    for content in (b"", cache.read_bytes()[:5000], b"PK" + bytes(500)):
        cache.write_bytes(content)
        assert same(fetch(base_url=None), first)


def test_tiles_that_cannot_be_kept_are_given_with_a_warning(fetch, tmp_path):
    first = fetch()
    other = tmp_path / "other"
    (other / "marsscapes").mkdir(parents=True)
    (other / "marsscapes" / "tiles").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="not kept for the next call") as caught:
        data = fetch(data_home=other)
    assert caught[0].filename == __file__
    assert same(data, first)


def test_damaged_panorama_is_downloaded_anew(server, fetch, tmp_path):
    first = fetch()
    path = tmp_path / "marsscapes" / "image" / "1_2.png"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(OSError, match=r"1 of 4 files .*1_2\.png"):
        fetch(overlap=0.5, download_if_missing=False)
    fetch(overlap=0.5)
    assert Counter(server.requests)["/image/1_2.png", None] == 2
    assert same(fetch(), first)


def test_nothing_at_hand_and_no_download_is_an_error(server, fetch):
    with pytest.raises(OSError, match="4 of 4 files"):
        fetch(download_if_missing=False)
    assert not server.requests


def test_folder_is_that_of_scikit_learn(fetch, tmp_path, monkeypatch):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    fetch(data_home=None)
    assert (tmp_path / "home" / "marsscapes" / "image" / "1_1.png").exists()


# --- parameters


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subset": "valid"}, "subset must be one of"),
        ({"tile": 64}, "tile must be"),
        ({"tile": (64, 0)}, "tile must be"),
        ({"tile": (64, 12.5)}, "tile must be"),
        ({"scale": 0}, "scale must be"),
        ({"scale": 1.5}, "scale must be"),
        ({"overlap": 1.0}, "overlap must be"),
        ({"overlap": -0.1}, "overlap must be"),
        ({"max_void": 25}, "max_void must be"),
        ({"max_void": float("nan")}, "max_void must be"),
        ({"n_retries": -1}, "n_retries must be"),
        ({"n_retries": 1.5}, "n_retries must be"),
        ({"delay": -1}, "delay must be"),
        ({"delay": float("inf")}, "delay must be"),
        ({"base_url": "file:///etc"}, "base_url must be"),
        ({"base_url": 5}, "base_url must be"),
    ],
)
def test_wrong_parameters_are_refused_before_any_request(server, fetch, wrong, message):
    with pytest.raises(ValueError, match=message):
        fetch(**wrong)
    assert not server.requests


def test_tiles_larger_than_every_panorama_are_refused(fetch):
    with pytest.raises(ValueError, match=r"no panorama has a tile of \(500, 16\) pixels"):
        fetch(tile=(500, 16))


def test_parameters_are_keywords_with_these_defaults():
    parameters = inspect.signature(fetch_marsscapes).parameters.values()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    assert {p.name: p.default for p in parameters if p.name in ("tile", "scale", "overlap")} == {
        "tile": (64, 128),
        "scale": 3,
        "overlap": 0.0,
    }
