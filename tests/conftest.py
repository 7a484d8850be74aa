import os
import signal
import sys
from pathlib import Path
from types import MappingProxyType

# Before torch is loaded: OpenMP threads that wait for each other busily come nearly to a
# standstill beside another busy process.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes side by side share the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from skmars.cli import main
from skmars.datasets import make_terrain

BESIDE = Path(__file__).parents[2] / "shared" / "data" / "mars_terrain.npz"
REAL_DATA = Path(os.environ.get("SKMARS_DATA", BESIDE))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def hears_ctrl_c():
    """Let SIGINT be heard, which a shell lets its processes in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@pytest.fixture(scope="session")
def terrain():
    """Small generated scenes: images (24, 32, 48) and masks with all five classes."""
    X, y = make_terrain(24, shape=(32, 48), random_state=0)
    y[0, :4, :4] = 4
    y[1, :4, :4] = 4
    return X, y


@pytest.fixture(scope="session")
def fast_for_all():
    """The hyperparameters of `fast`, for fixtures that several tests share."""
    params = {
        "depth": 2,
        "base_channels": 4,
        "max_epochs": 2,
        "batch_size": 8,
        "precision": "float32",
        "tta": False,
        "random_state": 0,
        "n_threads": 1,
    }
    return MappingProxyType(params)


@pytest.fixture
def fast(fast_for_all):
    """Hyperparameters that make a fit take a moment, and predict what the net says."""
    return dict(fast_for_all)


@pytest.fixture(scope="session")
def real_file():
    """An npz file of real tiles, or a skipped test where there is none."""
    if not REAL_DATA.exists():
        pytest.skip("no real images at hand; name their npz file in SKMARS_DATA")
    return REAL_DATA


@pytest.fixture
def run(capsys):
    """Run the command line: its status, and what it printed on both streams."""

    def run(*argv):
        capsys.readouterr()
        status = main([str(word) for word in argv])
        return status, *capsys.readouterr()

    return run
