"""For all tests: helpers beside them are importable, and no test is timed."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from olmo_mixlaw.datasets import open_dataset, train_tokenizer

SMALL = (
    "mixlaw:biography?n=64&seed=1&templates=2"
    "&pools=birth_date:60,birth_city:24,university:30,major:12,employer:26"
)

# Files of many minutes. They come first, so that no worker waits for another's at the end.
LONG = ("test_docs_run.py", "test_slurm_cluster.py", "test_run.py", "test_sharing.py")

sys.path.insert(0, str(Path(__file__).parent))
# A slow or busy machine fails no test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """The profile holds for one thread, and xdist collects and runs in another than this file's."""
    settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `olmo` need a trainer that can't be installed beside OLMo-core's."""
    if item.get_closest_marker("olmo") is not None:
        pytest.importorskip("olmo")


@pytest.fixture(scope="session")
def small_uri() -> str:
    """64 people with small pools: what the micro study learns."""
    return SMALL


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory):
    """A byte-level BPE of 600 entries, trained on biographies."""
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return train_tokenizer(open_dataset(SMALL).documents(0, 300), 600, path)
