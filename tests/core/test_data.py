"""The mixture's loader in OLMo-core's Trainer: exact resumption, processes, workers, mistakes."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import core_run
import numpy as np
import pytest
import torch
from core_run import BATCH, LENGTH, ROWS, STEPS, seen, tokenizer, trainer, weights
from olmo_core.data import InstanceFilterConfig
from olmo_core.data.numpy_dataset import NumpyDatasetBase

from olmo_mixlaw.errors import CheckpointError, ConfigError, DataError
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.opened import open_mixture
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.training_core.data import MixtureDataLoader, repeats

Load = Callable[..., MixtureDataLoader]


@pytest.fixture
def load(tokens: Path, tmp_path: Path) -> Load:
    """A loader of a mixture in `tokens`; keyword arguments go to it, or to the mixture."""

    def load(mixture: str = "ramp", run: RunLength | None = None, **changes: object):
        config = MixtureConfig(
            file=str(tokens / f"{mixture}.yaml"), allow_change=bool(changes.pop("change", False))
        )
        opened = open_mixture(
            config,
            {},
            run or RunLength(STEPS, ROWS, LENGTH),
            tokenizer=str(tokens / "tokenizer.json"),
            vocab_size=300,
            eos_token_id=0,
            seed=5,
        )
        known: dict = {
            "n_steps": STEPS,
            "sequence_length": LENGTH,
            "tokenizer": tokenizer(tokens),
            "work_dir": tmp_path,
            "global_batch_size": BATCH,
        }
        return MixtureDataLoader(opened, **{**known, **changes})

    return load


def batches(loader: MixtureDataLoader) -> list[dict[str, torch.Tensor]]:
    loader.reshuffle(1)
    return list(loader)


def same(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def test_batches_are_those_of_the_plan(load: Load) -> None:
    loader = load()
    found = batches(loader)
    assert len(found) == len(loader) == STEPS
    tokens, sources = loader.mixture.sequences(np.arange(STEPS * ROWS))
    assert torch.equal(torch.cat([b["input_ids"] for b in found]), torch.from_numpy(tokens))
    assert torch.equal(torch.cat([b["source"] for b in found]), torch.from_numpy(sources))
    assert torch.cat([b["index"] for b in found]).tolist() == list(range(STEPS * ROWS))
    assert loader.tokens_processed == STEPS * BATCH


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_every_batch_without_overlap(load: Load, world: int) -> None:
    parts = [batches(load(dp_world_size=world, dp_rank=rank)) for rank in range(world)]
    for step, whole in enumerate(batches(load())):
        shares = [part[step] for part in parts]
        order = torch.cat([share["index"] for share in shares]).argsort()
        for key in whole:
            assert torch.equal(torch.cat([share[key] for share in shares])[order], whole[key])


@pytest.mark.parametrize("workers", [1, 2])
def test_data_workers_change_nothing_from_any_place(load: Load, workers: int) -> None:
    whole = batches(load())
    loader = load(num_workers=workers)
    state = {**loader.state_dict(), "tokens_processed": 5 * BATCH, "epoch": 1}
    loader.load_state_dict(state)
    assert same(batches(loader), whole[5:])


def test_it_can_be_sent_to_a_spawned_worker(load: Load) -> None:
    loader = load()
    assert same(batches(pickle.loads(pickle.dumps(loader))), batches(load()))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert same(batches(load(num_workers=1)), batches(load()))
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_a_batch_size_that_grows_takes_every_example_once(load: Load) -> None:
    loader = load()
    loader.reshuffle(1)
    found = []
    for batch in loader:
        found += batch["index"].tolist()
        if loader.batches_processed == 4 and loader.global_batch_size == BATCH:
            loader.global_batch_size = 2 * BATCH
    assert found == list(range(STEPS * ROWS))
    assert len(loader) == STEPS // 2


def test_the_filter_of_instances_is_olmo_cores(load: Load) -> None:
    limits = InstanceFilterConfig(3, 1, 4)
    rows = np.random.default_rng(1).integers(0, 3, (64, LENGTH))
    theirs = [
        NumpyDatasetBase._validate_instance(None, torch.from_numpy(row), limits) for row in rows
    ]
    assert [not repeats(row, limits) for row in rows] == theirs
    assert set(theirs) == {True, False}
    loader = load(instance_filter=limits)
    loader.mixture = replace(loader.mixture, sources=(Same(rows[0]), Same(rows[1])))
    for batch in batches(loader):
        assert batch["instance_mask"].tolist() == [theirs[k] for k in batch["source"].tolist()]


class Same:
    """A source of one sequence, over and over."""

    n_sequences = None

    def __init__(self, row: np.ndarray) -> None:
        self.row = row

    def sequence(self, index: int) -> np.ndarray:
        return self.row


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch_size": BATCH + 1}, "129 tokens are not whole sequences of 16; "),
        ({"dp_world_size": 3}, "on 3 processes; take a multiple of 48"),
        ({"sequence_length": 32}, "sequence_length: is 16, but that of the run is 32"),
        ({"n_steps": STEPS + 1}, "plans 96 examples, but 13 steps of 8 need 104"),
    ],
)
def test_a_run_unlike_the_mixture_is_refused(load: Load, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(**changes)


@pytest.mark.parametrize("change", [{"eos_token_id": 7}, {"identifier": "other.json"}])
def test_another_tokenizer_is_refused(load: Load, tokens: Path, change: dict) -> None:
    key = next(iter(change))
    with pytest.raises(ConfigError, match=f"tokenizer.{key}: is .* of the run is {change[key]}"):
        load(tokenizer=tokenizer(tokens, **change))


def test_a_token_beyond_the_vocabulary_is_refused(load: Load) -> None:
    loader = load()
    loader.vocab_size = 40
    with pytest.raises(DataError, match=r"step 1 holds token .* beyond the 40 of the model"):
        batches(loader)


def test_a_second_epoch_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match="plans 12 steps, and the run goes on"):
        load().reshuffle(2)


def test_a_checkpoint_under_another_mixture_is_refused(load: Load) -> None:
    state = {**load().state_dict(), "tokens_processed": 5 * BATCH}
    with pytest.raises(CheckpointError, match=r"not that of the checkpoint: .*schedule.name was"):
        load("flat").load_state_dict(state)
    changed = load("flat", change=True)
    changed.load_state_dict(state)
    assert changed.batches_processed == 5
    with pytest.raises(CheckpointError, match="640 tokens, which are not whole batches"):
        load(global_batch_size=2 * BATCH, n_steps=6).load_state_dict(state)
    with pytest.raises(CheckpointError, match="not trained on a mixture"):
        load().load_state_dict({"dataset_type": "fsl", "tokens_processed": 0})


def test_a_run_resumed_at_every_one_of_its_steps_ends_the_same(
    tokens: Path, tmp_path: Path
) -> None:
    whole = trainer(tokens, tmp_path / "whole")
    whole.fit()
    parts = tmp_path / "parts"
    for stop in range(1, STEPS + 1):
        part = trainer(tokens, parts, stop=stop)
        part.fit()
        assert part.global_step == stop
    assert seen(parts) == seen(tmp_path / "whole")
    ours, theirs = weights(part), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("metrics.csv", "mixture.json"):
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


SCRIPT = """
import sys
from pathlib import Path
import torch
from olmo_core.train import prepare_training_environment, teardown_training_environment
sys.path.insert(0, {tests!r})
from core_run import BATCH, trainer, weights

if __name__ == "__main__":
    tokens, folder = Path(sys.argv[1]), Path(sys.argv[2])
    prepare_training_environment(backend="gloo")
    first = trainer(tokens, folder, stop=6, dp=sys.argv[3], micro=BATCH // 4, workers=2)
    first.fit()
    teardown_training_environment()
"""


@pytest.mark.parametrize("dp", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_see_the_same_examples_and_one_goes_on(
    tokens: Path, tmp_path: Path, dp: str
) -> None:
    whole = trainer(tokens, tmp_path / "whole")
    whole.fit()
    folder, script = tmp_path / "two", tmp_path / "two.py"
    script.write_text(SCRIPT.format(tests=str(Path(core_run.__file__).parent)))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *command, str(tokens), str(folder), dp], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alone = trainer(tokens, folder)
    alone.fit()
    expected = seen(tmp_path / "whole")
    shares = [seen(folder, rank)[:6] for rank in (0, 1)]
    for step, pair in enumerate(zip(*shares, strict=True)):
        assert sorted(pair[0]["index"] + pair[1]["index"]) == expected[step]["index"]
        assert set(pair[0]["index"]).isdisjoint(pair[1]["index"])
        mean = np.mean([one["loss"] for one in pair])
        assert mean == pytest.approx(expected[step]["loss"], rel=1e-5)
    for one, other in zip(seen(folder)[6:], expected[6:], strict=True):
        assert (one["index"], one["digest"]) == (other["index"], other["digest"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(alone)[name], value, rtol=1e-3, atol=1e-5)
    ours, theirs = (
        np.genfromtxt(path / "metrics.csv", delimiter=",", names=True)
        for path in (folder, tmp_path / "whole")
    )
    assert ours.dtype.names == theirs.dtype.names
    for name in ours.dtype.names:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3)
