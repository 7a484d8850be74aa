import csv
import inspect
import os
import platform
import shutil
import signal
import subprocess
import sys

import matplotlib
import numpy as np
import optuna
import pytest
from PIL import Image
from sqlalchemy.exc import OperationalError

from skmars import Augmenter, Ensemble, MarsSegmenter, __version__
from skmars.cli import commands, main, parser
from skmars.cli.options import parameter_texts
from skmars.datasets import load_image_folder
from skmars.outliers import OutlierRemover
from skmars.tuning import SegmenterSearchCV, suggest_params
from skmars.tuning.storages import open_storage

matplotlib.use("agg")

TINY = (
    *("--depth", "2", "--base-channels", "4", "--batch-size", "8", "--max-epochs", "1"),
    *("--precision", "float32", "--random-state", "0"),
)

NEEDS_PROC = pytest.mark.skipif(
    not os.path.isdir("/proc"), reason="no folder that nobody can write to"
)

# For each hyperparameter: words on the command line, and what reaches the estimator.
OPTIONS = {
    "depth": ("--depth 2", 2),
    "base_channels": ("--base-channels 8", 8),
    "patch_size": ("--patch-size 1", 1),
    "block": ("--block plain", "plain"),
    "skip": ("--skip add", "add"),
    "attention": ("--no-attention", False),
    "aspp": ("--no-aspp", False),
    "dilation_rates": ("--dilation-rates 1,2", (1, 2)),
    "dropout": ("--dropout 0.25", 0.25),
    "loss": ("--loss focal+dice", "focal+dice"),
    "loss_params": ("--loss-params {'gamma':1.5}", {"gamma": 1.5}),
    "class_weight": ("--class-weight {1:2.0,2:1}", {1: 2.0, 2: 1}),
    "max_class_weight": ("--max-class-weight 9", 9),
    "ignore_label": ("--ignore-label 0", 0),
    "learning_rate": ("--learning-rate 1e-3", 1e-3),
    "weight_decay": ("--weight-decay 0", 0),
    "batch_size": ("--batch-size 4", 4),
    "max_epochs": ("--max-epochs 3", 3),
    "ema_decay": ("--ema-decay 0.9", 0.9),
    "scheduler": ("--scheduler None", None),
    "scheduler_params": ("--scheduler-params {'warmup':0.1}", {"warmup": 0.1}),
    "time_limit": ("--time-limit 300", 300),
    "validation_fraction": ("--validation-fraction None", None),
    "early_stopping": ("--early-stopping", True),
    "patience": ("--patience 5", 5),
    "calibration": ("--calibration temperature", "temperature"),
    "freeze": ("--freeze encoder+bottleneck", "encoder+bottleneck"),
    "fine_tune_epochs": ("--fine-tune-epochs 2", 2),
    "fine_tune_learning_rate": ("--fine-tune-learning-rate 1e-5", 1e-5),
    "augmentation": ("--augmentation none", None),
    "tta": ("--no-tta", False),
    "window": ("--window 64,128", (64, 128)),
    "overlap": ("--overlap 0.5", 0.5),
    "device": ("--device cuda:0", "cuda:0"),
    "precision": ("--precision float32", "float32"),
    "compile": ("--compile False", False),
    "n_threads": ("--n-threads 1", 1),
    "warm_start": ("--warm-start", True),
    "random_state": ("--random-state 3", 3),
    "verbose": ("--verbose --verbose", 2),
}


@pytest.fixture(scope="module")
def data_file(terrain, tmp_path_factory):
    X, y = terrain
    path = tmp_path_factory.mktemp("data") / "mars.npz"
    pairs = np.stack([X, y], axis=1)
    np.savez(
        path,
        training_set=pairs[:18],
        training_sol=np.arange(18) // 2,
        test_set=X[18:],
        test_masks=y[18:],
    )
    return path


@pytest.fixture(scope="module")
def folders(terrain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    for name, arrays in zip(("images", "masks"), terrain, strict=True):
        (folder / name).mkdir()
        for number, array in enumerate(arrays[:12]):
            Image.fromarray(array).save(folder / name / f"tile{number}.png")
    return folder


@pytest.fixture(scope="module")
def model(data_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "mars.skmars"
    assert main(["fit", str(data_file), "--output", str(path), "--ignore-label", "0", *TINY]) == 0
    return path


class TestProcess:
    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys; from skmars.cli import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'sklearn', 'numpy', 'skorch', 'matplotlib', 'PIL', 'scipy'}\n"
            "heavy |= {'optuna', 'imblearn', 'skmars.tuning', 'skmars.inspection'}\n"
            "sys.stderr.write(' '.join(heavy & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr == ""
        assert all(
            word in done.stdout
            for word in ("demo", "fit", "tune", "outliers", "predict", "score", "info")
        )

    def test_python_m(self):
        command = [sys.executable, "-m", "skmars"]
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"skmars {__version__}\n")
        done = subprocess.run([*command, "fly"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("skmars: error: ")

    def test_reader_that_has_gone(self):
        command = [sys.executable, "-m", "skmars", "info"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            process.stdout.close()
            assert (process.stderr.read(), process.wait()) == ("", 141)

    def test_threads_do_not_wait_busily(self, monkeypatch, run):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        run("info", "none.skmars")
        assert os.environ["GOMP_SPINCOUNT"] == "1000"
        monkeypatch.setenv("GOMP_SPINCOUNT", "7")
        run("info", "none.skmars")
        assert os.environ["GOMP_SPINCOUNT"] == "7"


class TestHyperparameters:
    def test_each_is_tested_here(self):
        tested = {*OPTIONS, "callbacks"}
        assert tested == set(inspect.signature(MarsSegmenter).parameters)

    @pytest.mark.parametrize("name", OPTIONS)
    def test_option_reaches_the_estimator(self, name, monkeypatch, data_file, tmp_path):
        words, expected = OPTIONS[name]
        seen = {}

        def fit(self, X, y, groups):
            seen.update(self.get_params(deep=False), groups=groups)
            raise ValueError("enough")

        monkeypatch.setattr(MarsSegmenter, "fit", fit)
        output = str(tmp_path / "model")
        assert main(["fit", str(data_file), "--output", output, *words.split(" ")]) == 2
        np.testing.assert_array_equal(seen.pop("groups"), np.arange(18) // 2)
        assert seen == {**MarsSegmenter().get_params(deep=False), name: expected}
        assert type(seen[name]) is type(expected)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("--augmentation-horizontal-flip", {}),
            (
                "--augmentation-brightness 0.2 --no-augmentation-horizontal-flip",
                {"brightness": 0.2, "horizontal_flip": False},
            ),
            ("--augmentation-crop-scale 0.5,1.2", {"crop_scale": (0.5, 1.2)}),
        ],
    )
    def test_options_of_the_augmentation(self, words, expected, monkeypatch, data_file, tmp_path):
        seen = {}

        def fit(self, X, y, groups):
            seen.update(self.augmentation.get_params())
            raise ValueError("enough")

        monkeypatch.setattr(MarsSegmenter, "fit", fit)
        output = str(tmp_path / "model")
        assert main(["fit", str(data_file), "--output", output, *words.split(" ")]) == 2
        assert seen == Augmenter(**expected).get_params()

    def test_augmentation_is_told_once(self, run, data_file, tmp_path):
        words = ["--augmentation", "None", "--augmentation-brightness", "0.2"]
        status, _, err = run("fit", data_file, "--output", tmp_path / "model", *words)
        assert status == 2
        assert "together" in err

    def test_one_dilation_rate(self):
        args = parser._make_parser("fit").parse_args(
            ["fit", "x.npz", "--output", "m", "--dilation-rates", "2"]
        )
        assert args.dilation_rates == (2,)

    def test_help_of_each_option(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["fit", "--help"])
        out = " ".join(capsys.readouterr().out.split())
        assert all(f"--{name.replace('_', '-')}" in out for name in OPTIONS)
        assert "[int, default=3] How often the encoder of the U-Net halves the resolution" in out
        assert "--no-attention" in out
        assert "callbacks" not in out

    def test_help_of_a_search(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["tune", "--help"])
        out = " ".join(capsys.readouterr().out.split())
        assert all(f"--{name.replace('_', '-')}" in out for name in OPTIONS)
        assert "those given are not searched" in out
        assert all(word in out for word in ("--trials", "--n-trials", "--workers", "--n-workers"))
        assert "[int or None, default=20] Trials of the study in all" in out
        assert "]_" not in out
        assert out.count("--random-state N of the search") == 1

    def test_texts_of_a_docstring(self):
        doc = inspect.cleandoc(
            """Summary.

            Parameters
            ----------
            a, b : int, default=1
                Of `a` [1]_ and
                of b [2]_.

                More.
            c
                No type.

            Returns
            -------
            d : int
                Not a parameter.
            """
        )
        assert parameter_texts(doc) == {
            "a": "[int, default=1] Of a and of b. More.",
            "b": "[int, default=1] Of a and of b. More.",
            "c": "No type.",
        }
        assert parameter_texts("") == {}
        assert parameter_texts("Parameters\n----------\na : int") == {"a": "[int]"}


class TestFile:
    def test_fit_prints_score_and_file(self, run, data_file, tmp_path):
        path = tmp_path / "m.skmars"
        status, out, err = run("fit", data_file, "--output", path, *TINY)
        segmenter = MarsSegmenter.load(path)
        iou = segmenter.history_[segmenter.best_epoch_]["valid_mean_iou"]
        assert (status, err) == (0, "")
        assert f"{iou:.4f}" in out
        assert str(path) in out

    def test_fit_without_validation(self, run, data_file, tmp_path):
        path = tmp_path / "m.skmars"
        extra = ("--validation-fraction", "None")
        status, out, _ = run("fit", data_file, "--output", path, *TINY, *extra)
        assert status == 0
        assert "no validation" in out
        assert "no validation" in run("info", path)[1]

    def test_score(self, run, data_file, model, terrain):
        status, out, err = run("score", model, data_file)
        expected = MarsSegmenter.load(model).score(terrain[0][18:], terrain[1][18:])
        assert (status, err) == (0, "")
        assert out.startswith("6 test images")
        assert "pixels labelled 0 are left out" in out
        words = out.split()
        assert float(words[-1]) == pytest.approx(expected, abs=1e-3)
        assert [line[0] for line in map(str.split, out.splitlines()[3:-1])] == [
            "soil", "bedrock", "sand", "big",
        ]  # fmt: skip

    def test_report(self, run, data_file, model, terrain, tmp_path):
        path = tmp_path / "report.html"
        status, out, err = run("report", model, data_file, "--output", path)
        expected = MarsSegmenter.load(model).score(terrain[0][18:], terrain[1][18:])
        assert (status, err) == (0, "")
        assert out.startswith("6 test images")
        page = path.read_text(encoding="utf-8")
        assert f"<th>mean IoU</th><td>{expected:.3f}</td>" in page
        assert "IoU of big rock" in page
        assert "data:image/png" in page

    def test_report_finds_its_folder_missing_before_it_works(self, run, data_file, model):
        status, _, err = run("report", model, data_file, "--output", "nowhere/report.html")
        assert status == 2
        assert "nowhere" in err

    @pytest.mark.parametrize(
        "words",
        [
            "score m.skmars --no-tta data.npz",
            "report m.skmars --output r.html data.npz",
            "report --output r.html m.skmars --window 16,16 data.npz --no-tta",
        ],
    )
    def test_data_may_follow_the_options(self, words, run, monkeypatch):
        seen = []
        monkeypatch.setattr(commands, words.split()[0], seen.append)
        assert run(*words.split())[0] == 0
        assert (seen[0].model, seen[0].data) == ("m.skmars", "data.npz")

    def test_score_of_the_training_set(self, run, model, terrain, tmp_path):
        path = tmp_path / "train.npz"
        np.savez(path, training_set=np.stack(terrain, axis=1), test_set=terrain[0][:2])
        assert run("score", model, path)[1].startswith("24 training images")

    def test_predict_csv(self, run, data_file, model, terrain, tmp_path):
        path = tmp_path / "submission.csv"
        status, out, _ = run("predict", model, data_file, "--output", path)
        assert status == 0
        assert "6 test images" in out
        rows = np.loadtxt(path, delimiter=",", skiprows=1, dtype=int)
        expected = MarsSegmenter.load(model).predict(terrain[0][18:])
        np.testing.assert_array_equal(rows[:, 1:], expected.reshape(6, -1))

    def test_predict_npz_of_the_training_set(self, run, model, terrain, tmp_path):
        data, path = tmp_path / "train.npz", tmp_path / "masks.npz"
        np.savez(data, training_set=np.stack(terrain, axis=1)[:3])
        assert "3 training images" in run("predict", model, data, "--output", path)[1]
        expected = MarsSegmenter.load(model).predict(terrain[0][:3])
        np.testing.assert_array_equal(np.load(path)["masks"], expected)

    def test_predict_folder(self, run, data_file, model, tmp_path):
        folder = tmp_path / "masks"
        assert run("predict", model, data_file, "--output", folder)[0] == 0
        assert sorted(path.name for path in folder.iterdir()) == [f"{i}.png" for i in range(6)]

    def test_info(self, run, model):
        status, out, _ = run("info", model)
        facts = dict(line.split("  ", 1) for line in out.splitlines())
        facts = {name: value.strip() for name, value in facts.items()}
        segmenter = MarsSegmenter.load(model)
        assert status == 0
        assert facts["depth"] == "2"
        assert facts["precision"] == "'float32'"
        assert facts["classes"] == "1, 2, 3, 4"
        assert facts["parameters"] == f"{segmenter.n_parameters_:,}"
        assert facts["kept epoch"] == "1 of 1"
        assert "aspp" not in facts

    @pytest.mark.skipif(
        platform.machine() not in {"x86_64", "AMD64"}, reason="only x86 heeds ONEDNN_MAX_CPU_ISA"
    )
    def test_arithmetic_is_not_bfloat16_where_that_is_imitated(self):
        words = [sys.executable, "-m", "skmars", "info"]
        slow = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
        out = subprocess.run(words, env=slow, capture_output=True, text=True, check=True).stdout
        facts = dict(line.split(maxsplit=1) for line in out.splitlines())
        assert facts["precision"] == "float32"

    def test_info_of_the_system(self, run):
        status, out, _ = run("info")
        assert status == 0
        names = [line.split("  ")[0] for line in out.splitlines()]
        assert names == [
            "skmars", "python", "torch", "scikit-learn", "skorch",
            "device", "precision", "layout", "threads",
        ]  # fmt: skip


class TestFolders:
    def test_round_trip(self, run, folders, tmp_path):
        pairs = ("--images", folders / "images", "--masks", folders / "masks")
        path, masks = tmp_path / "m.skmars", tmp_path / "predicted"
        assert run("fit", *pairs, "--output", path, *TINY)[0] == 0
        status, out, _ = run("score", path, *pairs)
        assert status == 0
        assert out.startswith("12 images")
        assert "left out" not in out
        assert run("predict", path, folders / "images", "--output", masks)[0] == 0
        predicted = load_image_folder(folders / "images", masks)
        segmenter = MarsSegmenter.load(path)
        np.testing.assert_array_equal(predicted.target, segmenter.predict(predicted.images))
        score = segmenter.score(*load_image_folder(*pairs[1::2], return_X_y=True))
        assert float(out.split()[-1]) == pytest.approx(score, abs=1e-3)

    def test_different_sizes(self, run, model, terrain, tmp_path):
        for number, size in enumerate([20, 30]):
            Image.fromarray(terrain[0][0, :size]).save(tmp_path / f"t{number}.png")
        status, _, err = run("predict", model, tmp_path, "--output", tmp_path / "m.csv")
        assert status == 2
        assert "different sizes need a folder" in err
        assert run("predict", model, tmp_path, "--output", tmp_path / "out")[0] == 0
        with Image.open(tmp_path / "out" / "t1.png") as mask:
            assert mask.size == (48, 30)

    def test_images_are_not_overwritten(self, run, model, folders):
        status, _, err = run("predict", model, folders / "images", "--output", folders / "images")
        assert status == 2
        assert "another folder" in err

    def test_file_where_a_folder_should_be(self, run, model, folders, tmp_path, monkeypatch):
        monkeypatch.setattr(MarsSegmenter, "predict", None)
        (tmp_path / "masks").touch()
        words = ("predict", model, folders / "images", "--output", tmp_path / "masks")
        status, _, err = run(*words)
        assert status == 2
        assert "--output must be a folder" in err


class TestDemo:
    def test_arguments(self, monkeypatch, run):
        from skmars.cli import demo

        calls = []
        monkeypatch.setattr(demo, "run_demo", lambda *args, **kwargs: calls.append((args, kwargs)))
        assert run("demo")[0] == 0
        options = ("--output", "out", "--time-limit", "5", "--random-state", "1")
        assert run("demo", "mars.npz", *options)[0] == 0
        assert calls == [
            ((None, "demo"), {"time_limit": None, "random_state": 0}),
            (("mars.npz", "out"), {"time_limit": 5.0, "random_state": 1}),
        ]


class TestTune:
    FIXED = (*TINY, "--n-threads", "1")

    @pytest.fixture
    def search(self, run, data_file):
        """Run a small search with further options."""

        def search(*options):
            words = ("tune", data_file, "--cv", 2, "--trials", 2, "--quiet", "--pruner", "none")
            return run(*words, *self.FIXED, *options)

        return search

    @pytest.fixture
    def seen(self, monkeypatch):
        """The search that a command has made, which ends before it begins."""
        seen = {}

        def fit(self, X, y, groups):
            seen.update(self.get_params(deep=False), groups=groups)
            raise ValueError("enough")

        monkeypatch.setattr(SegmenterSearchCV, "fit", fit)
        return seen

    def test_missing_images_leave_no_study_behind(self, run, tmp_path):
        storage = f"journal://{tmp_path}/study.log"
        assert run("tune", tmp_path / "none.npz", "--storage", storage)[0] == 2
        assert not list(tmp_path.iterdir())

    def test_prints_what_was_found_and_saves_it(self, search, data_file, tmp_path):
        path = tmp_path / "best.skmars"
        storage = f"journal://{tmp_path}/study.log"
        status, out, err = search("--storage", storage, "--study", "mars", "--output", path)
        assert (status, err) == (0, "")
        study = optuna.load_study(study_name="mars", storage=open_storage(storage))
        lines = out.splitlines()
        best = study.best_trial
        assert lines[0] == f"best mean_iou  {best.value:.4f} (trial {best.number})"
        params = dict(line.split(maxsplit=1) for line in lines if line.startswith("  "))
        assert params["dropout"] == repr(best.params["dropout"])
        assert not {"depth", "base_channels", "random_state"} & params.keys()
        assert lines[-2:] == [
            "trials      2 complete, 0 pruned, 0 failed",
            f"saved to    {path}",
        ]
        segmenter = MarsSegmenter.load(path)
        assert segmenter.dropout == best.params["dropout"]
        assert (segmenter.depth, segmenter.random_state) == (2, 0)

    def test_what_was_found_is_saved_before_it_is_told(
        self, run, data_file, model, monkeypatch, tmp_path
    ):
        def fit(self, X, y, groups):
            self.best_estimator_ = MarsSegmenter.load(model)

        def fail(search):
            raise OSError("disk full")

        monkeypatch.setattr(SegmenterSearchCV, "fit", fit)
        monkeypatch.setattr(commands, "_print_search", fail)
        path = tmp_path / "best.skmars"
        status, _, err = run("tune", data_file, "--output", path)
        assert (status, err) == (2, "skmars: error: disk full\n")
        assert MarsSegmenter.load(path).depth == 2

    def test_study_that_exists_is_gone_on_with_only_when_asked_to(self, search, tmp_path):
        stored = ("--storage", f"journal://{tmp_path}/study.log")
        assert search(*stored, "--resume")[0] == 0
        before = (tmp_path / "study.log").read_bytes()
        status, _, err = search(*stored)
        assert status == 2
        assert err == (
            "skmars: error: the storage already has a study 'skmars': give --resume to go on "
            "with it, or another --study\n"
        )
        assert (tmp_path / "study.log").read_bytes() == before
        assert "3 complete" in search(*stored, "--resume", "--trials", 3)[1]
        assert "2 complete" in search(*stored, "--study", "other")[1]

    @pytest.mark.slow
    def test_workers(self, search, tmp_path):
        status, out, err = search("--workers", 2)
        assert (status, err) == (0, "")
        assert "2 complete" in out

    def test_two_aims(self, search):
        status, out, _ = search("--scoring", "mean_iou,n_parameters")
        assert status == 0
        front = out[out.index("front") : out.index("trials  ")].splitlines()
        assert front[0].split() == ["front", "trial", "mean_iou", "n_parameters"]
        assert all(len(row.split()) == 3 for row in front[1:])
        assert 1 <= len(front) - 1 <= 2

    def test_outliers(self, search, tmp_path):
        path = tmp_path / "best.skmars"
        status, out, _ = search("--outliers", "--output", path)
        assert status == 0
        assert "segment__dropout" in out
        assert "segment__depth" not in out
        assert MarsSegmenter.load(path).depth == 2

    def test_progress_on_stderr(self, run, data_file):
        words = ("tune", data_file, "--cv", 2, "--trials", 1, "--pruner", "none")
        _, out, err = run(*words, *self.FIXED)
        assert "1/1" in err
        assert "1/1" not in out

    @pytest.mark.usefixtures("hears_ctrl_c")
    def test_ctrl_c_keeps_what_was_found(self, search, monkeypatch, tmp_path):
        path = tmp_path / "best.skmars"
        fit, n_fits = MarsSegmenter.fit, []

        def press(self, *args, **kwargs):
            n_fits.append(1)
            if len(n_fits) == 3:
                signal.raise_signal(signal.SIGINT)
            return fit(self, *args, **kwargs)

        monkeypatch.setattr(MarsSegmenter, "fit", press)
        status, out, _ = search("--trials", 50, "--output", path)
        assert status == 0
        assert "trials      1 complete, 0 pruned, 0 failed" in out
        assert MarsSegmenter.load(path).depth == 2

    def test_failed_trials_are_counted_and_the_last_error_is_told(self, search, monkeypatch):
        fit, n_fits = MarsSegmenter.fit, []

        def fail_third(self, *args, **kwargs):
            n_fits.append(1)
            if len(n_fits) == 3:
                raise RuntimeError("out of\nmemory")
            return fit(self, *args, **kwargs)

        monkeypatch.setattr(MarsSegmenter, "fit", fail_third)
        status, out, err = search()
        assert (status, err) == (0, "")
        assert out.splitlines()[-2:] == [
            "trials      1 complete, 0 pruned, 1 failed",
            "last error  RuntimeError: out of memory",
        ]

    def test_ctrl_c_in_the_first_trial(self, search, monkeypatch, hears_ctrl_c):
        monkeypatch.setattr(
            MarsSegmenter, "fit", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT)
        )
        assert search() == (130, "", "skmars: interrupted\n")

    def test_pixels_ignored_in_training_may_tell_outliers(self, run, data_file, seen):
        run("tune", data_file, "--outliers", "--ignore-label", 3)
        steps = seen["estimator"].named_steps
        assert (steps["outliers"].ignore_label, steps["segment"].ignore_label) == (None, 3)
        run("tune", data_file, "--outliers", "--outliers-ignore-label", 2)
        steps = seen["estimator"].named_steps
        assert (steps["outliers"].ignore_label, steps["segment"].ignore_label) == (2, None)
        assert run("tune", data_file, "--outliers-ignore-label", 2)[0] == 2

    def test_options_reach_the_search(self, run, data_file, seen):
        options = (
            "--trials 7 --timeout 60 --storage journal:///tmp/none.log --study s --resume "
            "--workers 2 --cv 4 --scoring iou_4 --sampler random --pruner median --random-state 5"
        )
        run("tune", data_file, *options.split())
        expected = {
            "n_trials": 7,
            "timeout": 60.0,
            "storage": "journal:///tmp/none.log",
            "study_name": "s",
            "n_workers": 2,
            "cv": 4,
            "scoring": "iou_4",
            "sampler": "random",
            "pruner": "median",
            "random_state": 5,
            "verbose": 1,
            "refit": False,
        }
        assert {name: seen[name] for name in expected} == expected
        assert seen["estimator"].random_state == 5
        np.testing.assert_array_equal(seen["groups"], np.arange(18) // 2)

    def test_defaults_of_the_search(self, run, data_file, seen):
        run("tune", data_file)
        ours = SegmenterSearchCV(None).get_params(deep=False)
        differing = {name for name in ours if seen[name] != ours[name]}
        assert differing == {
            *("estimator", "space", "study_name", "refit", "random_state", "verbose"),
        }
        run("tune", data_file, "--timeout", 60)
        assert seen["n_trials"] is None

    @pytest.mark.parametrize("name", [name for name in OPTIONS if name != "random_state"])
    def test_given_hyperparameters_are_not_searched(self, name, run, data_file, seen):
        words, expected = OPTIONS[name]
        run("tune", data_file, *words.split(" "))
        defaults = MarsSegmenter(random_state=0).get_params(deep=False)
        assert seen["estimator"].get_params(deep=False) == {**defaults, name: expected}
        chosen = suggest_params(optuna.create_study().ask(), seen["space"])
        assert name not in chosen
        seen.clear()
        run("tune", data_file, "--outliers", *words.split(" "))
        assert f"segment__{name}" not in suggest_params(optuna.create_study().ask(), seen["space"])

    def test_given_augmentation_is_not_searched(self, run, data_file, seen):
        run("tune", data_file, "--augmentation-brightness", 0.3)
        assert seen["estimator"].augmentation.brightness == 0.3
        chosen = suggest_params(optuna.create_study().ask(), seen["space"])
        assert not any(name.startswith("augmentation") for name in chosen)


class TestOutliers:
    @pytest.fixture
    def spoilt(self, terrain, tmp_path):
        """A data set whose images 2, 5 and 8 share an intricate mask."""
        X = terrain[0]
        y = np.random.default_rng(0).integers(0, 3, X.shape, dtype=np.uint8)
        y[[2, 5, 8]] = y[2]
        path = tmp_path / "mars.npz"
        np.savez(
            path,
            training_set=np.stack([X, y], axis=1).astype(float),
            training_sol=np.arange(24),
            names=np.array([f"tile{i}" for i in range(24)]),
            test_set=X + 1,
            test_sol=np.arange(24) + 100,
            version=np.array(3),
        )
        return path

    def test_lists_them_with_the_reasons(self, run, spoilt):
        status, out, err = run("outliers", spoilt, "--method", "repeated_mask")
        assert (status, err) == (0, "")
        assert out.splitlines() == [
            *(f"{row:>2}  shares its mask with 2 other images" for row in (2, 5, 8)),
            f"3 outliers of 24 images of {spoilt}",
        ]

    def test_none(self, run, data_file):
        assert run("outliers", data_file, "--method", "repeated_mask")[1].startswith("0 outliers")

    def test_csv(self, run, spoilt, tmp_path):
        path = tmp_path / "outliers.csv"
        assert run("outliers", spoilt, "--method", "repeated_mask", "--output", path)[0] == 0
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows] == ["2", "5", "8"]
        assert all(float(row["score"]) > 0 for row in rows)
        assert rows[0]["reason"] == "shares its mask with 2 other images"

    def test_npz_keeps_all_arrays_aligned(self, run, spoilt, tmp_path):
        path = tmp_path / "clean.npz"
        assert run("outliers", spoilt, "--method", "repeated_mask", "--output", path)[0] == 0
        kept = np.setdiff1d(np.arange(24), [2, 5, 8])
        with np.load(spoilt) as before, np.load(path) as after:
            assert set(before) == set(after)
            for name in before:
                is_cut = name in ("training_set", "training_sol", "names")
                expected = before[name][kept] if is_cut else before[name]
                np.testing.assert_array_equal(after[name], expected)
                assert after[name].dtype == before[name].dtype
        assert {file.name for file in tmp_path.iterdir()} == {"mars.npz", "clean.npz"}
        assert run("outliers", path, "--method", "repeated_mask")[1].startswith("0 outliers")

    def test_picture(self, run, spoilt, tmp_path):
        path = tmp_path / "sheet.png"
        out = run("outliers", spoilt, "--method", "repeated_mask", "--picture", path)[1]
        assert str(path) in out
        with Image.open(path) as picture:
            assert min(picture.size) > 100

    def test_contamination(self, run, spoilt):
        options = ("--method", "appearance", "--contamination", "0.25")
        assert "6 outliers of 24 images" in run("outliers", spoilt, *options)[1]

    def test_options_reach_the_remover(self, run, data_file, monkeypatch):
        seen = {}

        def fit(self, X, y):
            seen.update(self.get_params(deep=False))
            raise ValueError("enough")

        monkeypatch.setattr(OutlierRemover, "fit", fit)
        defaults = {**OutlierRemover().get_params(deep=False), "random_state": 0}
        run("outliers", data_file)
        assert seen == defaults
        options = "--method label_quality --contamination 0.1 --cv 3 --ignore-label 0"
        run("outliers", data_file, *options.split(), "--random-state", 4)
        given = {"method": "label_quality", "contamination": 0.1, "cv": 3, "ignore_label": 0}
        assert seen == {**defaults, **given, "random_state": 4}

    def test_pixels_without_a_label(self, run, spoilt, tmp_path):
        with np.load(spoilt) as archive:
            pairs = archive["training_set"]
        pairs[[2, 5, 8], 1, :2] = 9
        np.savez(tmp_path / "void.npz", training_set=pairs)
        options = (tmp_path / "void.npz", "--method", "repeated_mask")
        status, _, err = run("outliers", *options)
        assert (status, "[9]" in err) == (2, True)
        assert "3 outliers of 24 images" in run("outliers", *options, "--ignore-label", 9)[1]


class TestErrors:
    @pytest.fixture
    def fails(self, run):
        """Check that arguments are refused in one line, and return it."""

        def fails(*argv):
            status, _, err = run(*argv)
            assert status == 2
            assert err.startswith("skmars: error: ")
            assert err.count("\n") == 1
            return err

        return fails

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            ("", "COMMAND"),
            ("fly", "fly"),
            ("fit x.npz", "--output"),
            ("fit x.npz --output m --hight 3", "--hight"),
            ("fit x.npz --output m --dep 3", "--dep"),
            ("fit --output m", "give either DATA, or both --images and --masks"),
            ("fit --output m --images a", "give either DATA"),
            ("fit x.npz --output m --images a --masks b", "give either DATA"),
            ("fit none.npz --output m", "none.npz: No such file or directory"),
            ("fit none.npz --output none/m", "--output must be a regular file"),
            ("fit none.npz --output .", "--output must be a regular file"),
            pytest.param(
                "fit none.npz --output /proc/m", "cannot write to /proc", marks=NEEDS_PROC
            ),
            ("demo --time-limit soon", "soon"),
            ("demo none.npz --output out", "none.npz: No such file"),
            ("score none.skmars none.npz", "No such file"),
            ("predict none.skmars none.npz --output m.png", ".csv or .npz"),
            ("predict none.skmars none.npz --output none/m.csv", "must be a regular file"),
            ("info none.skmars", "none.skmars: No such file"),
            ("tune", "give either DATA"),
            ("tune none.npz", "none.npz: No such file"),
            ("tune none.npz --output none/m", "--output must be a regular file"),
            ("tune none.npz --resume", "--resume needs the --storage"),
            ("tune none.npz --study mars", "--study needs the --storage"),
            ("tune none.npz --trials many", "many"),
            ("tune none.npz --hight 3", "--hight"),
            ("outliers none.npz", "none.npz: No such file"),
            ("outliers none.npz --output m.txt", ".csv or .npz"),
            ("outliers none.npz --picture sheet.bmpp", "png"),
            ("outliers none.npz --picture none/sheet.png", "--picture must be a regular file"),
        ],
    )
    def test_arguments(self, fails, monkeypatch, tmp_path, argv, words):
        monkeypatch.chdir(tmp_path)
        assert words in fails(*argv.split())

    @pytest.mark.parametrize(
        ("storage", "words"),
        [
            ("study.log", "journal:///"),
            ("journal:///no/such/study.log", "no folder"),
            ("oracle9://x", "oracle9"),
        ],
    )
    def test_bad_storages(self, fails, data_file, storage, words):
        assert words in fails("tune", data_file, "--storage", storage)

    @pytest.mark.parametrize(
        "option",
        [
            "--depth 9",
            "--depth deep",
            "--dropout -1",
            "--loss none_such",
            "--dilation-rates 0",
            "--dilation-rates wide",
            "--class-weight heavy",
            "--loss-params {'gamm':1}",
            "--device abacus",
            "--batch-size None",
        ],
    )
    def test_values(self, fails, data_file, tmp_path, option):
        name = option.split()[0][2:].replace("-", "_").replace("_params", "")
        message = fails("fit", data_file, "--output", tmp_path / "m", *TINY, *option.split())
        assert name in message
        assert not (tmp_path / "m").exists()

    @pytest.mark.parametrize(
        ("option", "word"),
        [
            ("--cv 1", "2"),
            ("--trials 0", "n_trials"),
            ("--workers 0", "n_workers"),
            ("--scoring beauty", "'mean_iou', 'weighted_iou'"),
            ("--scoring mean_iou,", "iou_<label>"),
            ("--scoring n_parameters,mean_iou", "first objective"),
            ("--sampler luck", "sampler"),
            ("--pruner shears", "pruner"),
            ("--depth 9", "depth"),
        ],
    )
    def test_values_of_a_search(self, fails, data_file, tmp_path, option, word):
        words = ("--cv", 2, "--trials", 1, "--quiet", *TINY, "--output", tmp_path / "m")
        assert word in fails("tune", data_file, *words, *option.split())
        assert not (tmp_path / "m").exists()

    def test_values_of_a_remover(self, fails, data_file):
        assert "method" in fails("outliers", data_file, "--method", "magic")
        assert "contamination" in fails("outliers", data_file, "--contamination", "2")

    def test_files_of_another_kind(self, fails, data_file, model, tmp_path):
        other = tmp_path / "other.npz"
        np.savez(other, images=np.ones(3))
        text = tmp_path / "text.npz"
        text.write_text("no archive")
        output = ("--output", tmp_path / "m")
        assert "training_set" in fails("fit", other, *output)
        assert "npz" in fails("predict", model, other, *output)
        fails("fit", text, *output)
        fails("fit", tmp_path, *output)
        for wrong in (other, text):
            assert "not a saved segmenter" in fails("info", wrong)
            assert "not a saved segmenter" in fails("score", wrong, data_file)

    @pytest.mark.parametrize(
        ("command", "victim"),
        [
            ("fit {data} --output {data}", "data"),
            ("tune {data} --output {data}", "data"),
            ("outliers {data} --output {data}", "data"),
            ("predict {model} {data} --output {data}", "data"),
            ("report {model} {data} --output {model}", "model"),
            ("report {model} {data} --output {data}", "data"),
            ("export {model} {model}", "model"),
        ],
    )
    def test_what_is_read_is_not_overwritten(
        self, fails, data_file, model, tmp_path, command, victim
    ):
        paths = {"data": tmp_path / "data.npz", "model": tmp_path / "model.skmars"}
        shutil.copy(data_file, paths["data"])
        shutil.copy(model, paths["model"])
        before = paths[victim].read_bytes()
        message = fails(*command.format(**paths).split())
        assert f"must be another file than {paths[victim]}" in message
        assert paths[victim].read_bytes() == before

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no special files")
    def test_special_files_are_not_replaced(self, fails, data_file, tmp_path):
        path = tmp_path / "m"
        os.mkfifo(path)
        message = fails("fit", data_file, "--output", path, *TINY)
        assert "--output must be a regular file" in message
        assert path.is_fifo()

    @NEEDS_PROC
    def test_links_into_a_folder_that_nobody_can_write_to(self, fails, data_file, tmp_path):
        link = tmp_path / "m"
        link.symlink_to("/proc/m")
        assert "cannot write to /proc" in fails("fit", data_file, "--output", link, *TINY)

    def test_damaged_files(self, fails, data_file, terrain, tmp_path):
        content = bytearray(data_file.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 40] = bytes(40)
        damaged = tmp_path / "damaged.npz"
        damaged.write_bytes(content)
        assert "damaged.npz is damaged" in fails("fit", damaged, "--output", tmp_path / "m")
        folder = tmp_path / "images"
        folder.mkdir()
        Image.fromarray(terrain[0][0]).save(folder / "half.png")
        half = (folder / "half.png").read_bytes()[:300]
        (folder / "half.png").write_bytes(half)
        words = ("--images", folder, "--masks", folder, "--output", tmp_path / "m")
        assert "half.png cannot be read" in fails("fit", *words)

    def test_training_that_diverges_leaves_no_file(self, fails, data_file, tmp_path):
        words = ("--learning-rate", "1e30", "--max-epochs", 5)
        message = fails("fit", data_file, "--output", tmp_path / "m", *TINY, *words)
        assert "diverged" in message
        assert not list(tmp_path.iterdir())

    def test_missing_package_is_told_with_its_extra(self, fails, data_file, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        message = fails("outliers", data_file, "--picture", tmp_path / "sheet.png")
        assert "--picture needs matplotlib, which the extra 'plot'" in message

    def test_storage_that_fails(self, fails, data_file, monkeypatch):
        def fit(self, X, y, groups):
            raise OperationalError("SELECT 1", {}, Exception("disk full"))

        monkeypatch.setattr(SegmenterSearchCV, "fit", fit)
        message = fails("tune", data_file)
        assert "the storage of the study has failed" in message
        assert "disk full" in message

    def test_labels_that_the_model_does_not_know(self, fails, model, terrain, tmp_path):
        path = tmp_path / "more.npz"
        np.savez(path, training_set=np.stack(terrain, axis=1) + np.array([0, 5])[:, None, None])
        assert "labels [5, 6, 7, 8, 9]" in fails("score", model, path)

    def test_another_number_of_channels(self, fails, model, terrain, tmp_path):
        Image.fromarray(terrain[0][0]).convert("RGB").save(tmp_path / "a.png")
        assert "3 channels" in fails("predict", model, tmp_path, "--output", tmp_path / "m.npz")

    def test_a_bug_shows_its_traceback(self, monkeypatch):
        monkeypatch.setattr(commands, "info", lambda args: {}["bug"])
        with pytest.raises(KeyError):
            main(["info"])

    def test_interrupt(self, monkeypatch, run):
        def interrupt(args):
            raise KeyboardInterrupt

        monkeypatch.setattr(commands, "info", interrupt)
        assert run("info") == (130, "", "skmars: interrupted\n")


class TestEnsembles:
    @pytest.fixture(scope="class")
    def ensemble(self, terrain, fast_member, tmp_path_factory):
        path = tmp_path_factory.mktemp("model") / "ensemble.skmars"
        fitted = Ensemble(fast_member, n_members=2, random_state=0).fit(*terrain)
        fitted.save(path)
        return path

    @pytest.fixture(scope="class")
    def fast_member(self):
        return MarsSegmenter(depth=2, base_channels=4, max_epochs=1, ignore_label=0)

    def test_they_predict_and_are_scored(self, run, ensemble, data_file, terrain, tmp_path):
        output = tmp_path / "masks.npz"
        assert run("predict", ensemble, data_file, "--output", output)[0] == 0
        with np.load(output) as archive:
            masks = archive[archive.files[0]]
        np.testing.assert_array_equal(masks, Ensemble.load(ensemble).predict(terrain[0][18:]))
        assert "mean IoU" in run("score", ensemble, data_file)[1]

    def test_they_are_reported_on(self, run, ensemble, data_file, terrain, tmp_path):
        path = tmp_path / "report.html"
        assert run("report", ensemble, data_file, "--output", path)[0] == 0
        expected = Ensemble.load(ensemble).score(terrain[0][18:], terrain[1][18:])
        page = path.read_text(encoding="utf-8")
        assert f"<th>mean IoU</th><td>{expected:.3f}</td>" in page

    def test_they_are_described(self, run, ensemble):
        out = run("info", ensemble)[1]
        assert "n_members" in out
        assert "1, 2, 3, 4" in out

    def test_they_are_not_exported(self, run, ensemble, tmp_path):
        status, _, err = run("export", ensemble, tmp_path / "model.onnx")
        assert (status, "is an ensemble" in err) == (2, True)
