import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from skmars import MarsSegmenter, __version__, cli
from skmars.cli import main
from skmars.datasets import load_image_folder

TINY = (
    *("--depth", "2", "--base-channels", "4", "--batch-size", "8", "--max-epochs", "1"),
    *("--precision", "float32", "--random-state", "0"),
)

# For each hyperparameter: words on the command line, and what reaches the estimator.
OPTIONS = {
    "depth": ("--depth 2", 2),
    "base_channels": ("--base-channels 8", 8),
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
    "scheduler": ("--scheduler None", None),
    "scheduler_params": ("--scheduler-params {'warmup':0.1}", {"warmup": 0.1}),
    "time_limit": ("--time-limit 300", 300),
    "validation_fraction": ("--validation-fraction None", None),
    "early_stopping": ("--no-early-stopping", False),
    "patience": ("--patience 5", 5),
    "freeze": ("--freeze encoder+bottleneck", "encoder+bottleneck"),
    "fine_tune_epochs": ("--fine-tune-epochs 2", 2),
    "fine_tune_learning_rate": ("--fine-tune-learning-rate 1e-5", 1e-5),
    "tta": ("--tta", True),
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


@pytest.fixture
def run(capsys):
    """Run the command line: its status, and what it printed on both streams."""

    def run(*argv):
        capsys.readouterr()
        status = main([str(word) for word in argv])
        return status, *capsys.readouterr()

    return run


class TestProcess:
    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys; from skmars.cli import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'sklearn', 'numpy', 'skorch', 'matplotlib', 'PIL', 'scipy'}\n"
            "sys.stderr.write(' '.join(heavy & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr == ""
        assert all(word in done.stdout for word in ("demo", "fit", "predict", "score", "info"))

    def test_python_m(self):
        command = [sys.executable, "-m", "skmars"]
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"skmars {__version__}\n")
        done = subprocess.run([*command, "fly"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("skmars: error: ")

    def test_threads_do_not_wait_busily(self, monkeypatch, run):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        run("info", "none.skmars")
        assert os.environ["GOMP_SPINCOUNT"] == "1000"
        monkeypatch.setenv("GOMP_SPINCOUNT", "7")
        run("info", "none.skmars")
        assert os.environ["GOMP_SPINCOUNT"] == "7"


class TestHyperparameters:
    def test_each_is_tested_here(self):
        assert [*OPTIONS, "callbacks"] == list(inspect.signature(MarsSegmenter).parameters)

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

    def test_one_dilation_rate(self):
        args = cli._make_parser(with_hyperparameters=True).parse_args(
            ["fit", "x.npz", "--output", "m", "--dilation-rates", "2"]
        )
        assert args.dilation_rates == (2,)

    def test_help_of_each_option(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["fit", "--help"])
        out = " ".join(capsys.readouterr().out.split())
        assert all(f"--{name.replace('_', '-')}" in out for name in OPTIONS)
        assert "[int, default=3] Encoder levels of the U-Net, 2 to 5." in out
        assert "--no-attention" in out
        assert "callbacks" not in out

    def test_texts_of_a_docstring(self):
        doc = inspect.cleandoc(
            """Summary.

            Parameters
            ----------
            a, b : int, default=1
                Of `a` and
                of b.

                More.
            c
                No type.

            Returns
            -------
            d : int
                Not a parameter.
            """
        )
        assert cli._parameter_texts(doc) == {
            "a": "[int, default=1] Of a and of b. More.",
            "b": "[int, default=1] Of a and of b. More.",
            "c": "No type.",
        }
        assert cli._parameter_texts("") == {}
        assert cli._parameter_texts("Parameters\n----------\na : int") == {"a": "[int]"}


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
        assert facts["best epoch"] == "1 of 1"
        assert "aspp" not in facts

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

    def test_labels_above_255(self, tmp_path):
        cli._write_folder([np.array([[0, 300]])], ["a"], tmp_path)
        with Image.open(tmp_path / "a.png") as mask:
            assert np.asarray(mask).tolist() == [[0, 300]]
        with pytest.raises(ValueError, match="from 0 to 65535; got -1 to 2"):
            cli._write_folder([np.array([[-1, 2]])], ["a"], tmp_path)


class TestDemo:
    def test_arguments(self, monkeypatch, run):
        from skmars import demo

        calls = []
        monkeypatch.setattr(demo, "run_demo", lambda *args, **kwargs: calls.append((args, kwargs)))
        assert run("demo")[0] == 0
        options = ("--output", "out", "--time-limit", "5", "--random-state", "1")
        assert run("demo", "mars.npz", *options)[0] == 0
        assert calls == [
            ((None, "demo"), {"time_limit": None, "random_state": 0}),
            (("mars.npz", "out"), {"time_limit": 5.0, "random_state": 1}),
        ]


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
            ("fit none.npz --output none/m", "--output must be a file"),
            ("fit none.npz --output .", "--output must be a file"),
            ("demo --time-limit soon", "soon"),
            ("demo none.npz --output out", "none.npz: No such file"),
            ("score none.skmars none.npz", "No such file"),
            ("predict none.skmars none.npz --output m.png", ".csv or .npz"),
            ("predict none.skmars none.npz --output none/m.csv", "no folder none"),
            ("info none.skmars", "none.skmars: No such file"),
        ],
    )
    def test_arguments(self, fails, monkeypatch, tmp_path, argv, words):
        monkeypatch.chdir(tmp_path)
        assert words in fails(*argv.split())

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

    def test_labels_that_the_model_does_not_know(self, fails, model, terrain, tmp_path):
        path = tmp_path / "more.npz"
        np.savez(path, training_set=np.stack(terrain, axis=1) + np.array([0, 5])[:, None, None])
        assert "labels [5, 6, 7, 8, 9]" in fails("score", model, path)

    def test_another_number_of_channels(self, fails, model, terrain, tmp_path):
        Image.fromarray(terrain[0][0]).convert("RGB").save(tmp_path / "a.png")
        assert "3 channels" in fails("predict", model, tmp_path, "--output", tmp_path / "m.npz")

    def test_a_bug_shows_its_traceback(self, monkeypatch):
        monkeypatch.setattr(cli, "_info", lambda args: {}["bug"])
        with pytest.raises(KeyError):
            main(["info"])

    def test_interrupt(self, monkeypatch, run):
        def interrupt(args):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "_info", interrupt)
        assert run("info") == (130, "", "skmars: interrupted\n")
