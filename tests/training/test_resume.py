"""Stopped anywhere and started again, a run ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("olmo")

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.mixture import Plan, RunLength
from olmo_mixlaw.mixture.opened import Mixture
from olmo_mixlaw.mixture.schedule import Constant
from olmo_mixlaw.training.launch import train
from olmo_mixlaw.training.loader import MixtureBatches

Write = Callable[..., Path]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint / "model.pt", weights_only=True)


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("stop", [1, 4, 7, 11])
def test_a_run_stopped_at_any_step_ends_the_same(write: Write, stop: int) -> None:
    whole = train(write("whole"))
    config = write("parts")
    partial = train(config, [f"stop_at={stop}"])
    assert partial.name == f"step{stop}-unsharded"
    final = train(config)
    assert final.name == whole.name == "step12-unsharded"
    assert same_weights(final, whole)
    for name in ("metrics.csv", "mixture.json"):
        assert (final.parent / name).read_bytes() == (whole.parent / name).read_bytes()


@pytest.mark.parametrize("stop", [1, 7])
def test_a_run_that_begins_from_another_resumes_as_itself(write: Write, stop: int) -> None:
    base = train(write("base", seed=3))
    begins = {"load_path": str(base), "reset_trainer_state": True, "reset_optimizer_state": True}
    whole = train(write("whole", **begins))
    assert whole.name == "step12-unsharded"
    assert not same_weights(whole, train(write("cold")))
    config = write("parts", **begins)
    train(config, [f"stop_at={stop}"])
    final = train(config)
    assert final.name == whole.name
    assert same_weights(final, whole)
    names = ("metrics.csv", "mixture.json")
    assert all((final.parent / n).read_bytes() == (whole.parent / n).read_bytes() for n in names)


def test_rows_after_the_resumed_checkpoint_are_written_again(write: Write) -> None:
    whole = train(write("whole", metrics_interval=3))
    config = write("killed", metrics_interval=3)
    train(config, ["stop_at=7"])
    folder = config.with_suffix("")
    # As if killed after step 7 was logged but before its checkpoint was complete.
    (folder / "step7-unsharded").rename(folder / "step7-unsharded-tmp")
    with open(folder / "metrics.csv", "a") as file:
        file.write("9,99,1.0\n10,half a ro")
    train(config)
    assert (folder / "metrics.csv").read_bytes() == (whole.parent / "metrics.csv").read_bytes()
    assert same_weights(folder / "step12-unsharded", whole)


def test_a_finished_run_is_not_trained_again(write: Write) -> None:
    config = write()
    final = train(config)
    before = (final / "model.pt").stat().st_mtime_ns
    assert train(config) == final
    assert (final / "model.pt").stat().st_mtime_ns == before


def test_a_run_ends_at_max_duration_in_steps_or_tokens(write: Write) -> None:
    assert train(write("steps")).name == "step12-unsharded"
    tokens = 5 * 8 * 16
    assert train(write("tokens", max_duration=f"{tokens}T")).name == "step5-unsharded"
    assert train(write("more", max_duration=f"{tokens + 1}T")).name == "step6-unsharded"


def test_gradient_accumulation_changes_nothing_that_is_recorded(write: Write) -> None:
    one = train(write("one"))
    two = train(write("two", device_train_microbatch_size=4))
    a = np.genfromtxt(one.parent / "metrics.csv", delimiter=",", names=True)
    b = np.genfromtxt(two.parent / "metrics.csv", delimiter=",", names=True)
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
    np.testing.assert_allclose(a["loss_low"], b["loss_low"], rtol=1e-4)
    assert (a["tokens_high"] == b["tokens_high"]).all()


def test_the_recorded_loss_is_the_mean_over_predicted_tokens(write: Write) -> None:
    """Against a plain forward pass of the untrained model over the first batch."""
    from olmo.model import OLMo
    from olmo.torch_util import seed_all

    from olmo_mixlaw.training.config import load

    path = write(max_duration=1)
    rows = np.genfromtxt(train(path).parent / "metrics.csv", delimiter=",", names=True)
    config = load(path)
    seed_all(config.seed)
    config.model.init_device, config.model.precision = "cpu", "fp32"
    model = OLMo(config.model)
    plan = Plan(
        Constant(("high", "low"), ratios=config.mixture.ratios).pieces(RunLength(1, 8, 16)),
        (2500, 250),
        ("high", "low"),
        3,
        32,
    )
    files = [config.data.datasets[label][0] for label in ("high", "low")]
    data = [np.fromfile(file, np.uint16).reshape(-1, 16) for file in files]
    sources, indices = plan.locate(np.arange(8))
    batch = torch.tensor(
        np.stack([data[k][i] for k, i in zip(sources, indices, strict=True)])
    ).long()
    with torch.no_grad():
        logits = model(batch).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), batch[:, 1:], reduction="none"
    ).mean(dim=1)
    assert float(rows["loss"]) == pytest.approx(losses.mean().item(), rel=1e-5)
    low = losses[torch.tensor(sources == 1)].mean().item()
    assert float(rows["loss_low"]) == pytest.approx(low, rel=1e-5)


class Numbers:
    """A source whose sequences say where they come from."""

    def __init__(self, start: int, n_sequences: int | None) -> None:
        self.start, self.n_sequences = start, n_sequences

    def sequence(self, index: int) -> np.ndarray:
        return np.array([self.start + index, index])


def batches(world_size: int, start_step: int = 0, workers: int = 0) -> np.ndarray:
    """All batches from `start_step` on, joined over processes as the trainer would see them."""
    pieces = Constant(("a", "b"), ratios={"a": 0.4, "b": 0.6}).pieces(RunLength(20, 8, 2))
    sources = (Numbers(0, None), Numbers(10**6, 33))
    plan = Plan(pieces, (None, 33), ("a", "b"), 7, 32)
    mixture = Mixture(("a", "b"), (("a",), ("b",)), sources, plan)
    parts = []
    for rank in range(world_size):
        dataset = MixtureBatches(
            mixture, global_batch_size=8, n_steps=20, world_size=world_size, rank=rank
        )
        dataset.start_index = start_step * 8
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
        parts.append(np.stack([batch["input_ids"].numpy() for batch in loader]))
    return np.stack(parts, axis=2).reshape(parts[0].shape[0], 8, 2)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_on_any_number_of_processes_and_workers(
    world_size: int, workers: int
) -> None:
    expected = batches(1)
    assert expected.shape == (20, 8, 2)
    assert (batches(world_size, workers=workers) == expected).all()
    assert (batches(world_size, start_step=13, workers=workers) == expected[13:]).all()


def test_workers_train_the_same_model(write: Write) -> None:
    one = train(write("none"))
    data = {"datasets": _datasets(write), "num_workers": 2, "prefetch_factor": 2}
    two = train(write("two", data=data))
    assert same_weights(one, two)


def _datasets(write: Write) -> dict:
    import yaml

    return yaml.safe_load(write("plain").read_text())["data"]["datasets"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture": {"ratios": {"low": 0.4, "high": 0.6}, "block_size": 32}}, "ratios"),
        ({"seed": 4}, "seed was 3, is 4"),
        ({"mixture": {"ratios": {"low": 0.3, "high": 0.7}}}, "block_size was 32, is 256"),
    ],
)
def test_a_changed_mixture_is_refused_on_resume(write: Write, change: dict, message: str) -> None:
    train(write(), ["stop_at=4"])
    with pytest.raises(CheckpointError, match=message) as error:
        train(write(**change))
    assert "mixture.allow_change=true" in str(error.value)


def test_a_changed_mixture_is_accepted_when_told_so(write: Write) -> None:
    train(write(), ["stop_at=4"])
    mixture = {"ratios": {"low": 0.4, "high": 0.6}, "block_size": 32, "allow_change": True}
    assert train(write(mixture=mixture)).name == "step12-unsharded"


def moved(write: Write, tmp_path: Path, **files: np.ndarray) -> dict:
    """Sources in another folder: those of `write`, but for tokens given here."""
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    data: dict = {"datasets": {}}
    for label, (name,) in _datasets(write).items():
        tokens = files.get(label, np.fromfile(name, np.uint16))
        path = tmp_path / "elsewhere" / f"{label}-tokens.npy"
        tokens.tofile(path)
        data["datasets"][label] = [str(path)]
    return data


def test_a_run_goes_on_when_its_inputs_have_been_moved(write: Write, tmp_path: Path) -> None:
    whole = train(write("whole"))
    train(write("parts"), ["stop_at=4"])
    final = train(write("parts", data=moved(write, tmp_path)))
    assert same_weights(final, whole)


def test_other_inputs_are_refused_under_any_name(write: Write, tmp_path: Path) -> None:
    name = _datasets(write)["low"][0]
    other = np.fromfile(name, np.uint16)
    other[16:-16] = np.roll(other[16:-16], 1)  # as many tokens, the same at both ends
    train(write(), ["stop_at=4"])
    with pytest.raises(
        CheckpointError, match=r"sources\.low\.content was \w+, is \w+; sources"
    ) as e:
        train(write(data=moved(write, tmp_path, low=other)))
    assert "sources.high" not in str(e.value)
    train(write("copy", data=moved(write, tmp_path)), ["stop_at=4"])
    with pytest.raises(CheckpointError, match=r"sources\.low\.content was \w+, is \w+ \(mixture"):
        train(write("copy", data=moved(write, tmp_path, low=other)))


def test_checkpoints_that_do_not_say_what_they_read_go_by_names(
    write: Write, tmp_path: Path
) -> None:
    checkpoint = train(write(), ["stop_at=4"])
    state = torch.load(checkpoint / "train.pt", weights_only=False)
    for source in state["olmo_mixlaw"]["mixture"]["sources"].values():
        del source["content"]
    torch.save(state, checkpoint / "train.pt")
    with pytest.raises(CheckpointError, match=r"sources\.high\.uris was .*, is "):
        train(write(data=moved(write, tmp_path)))
    assert train(write()).name == "step12-unsharded"


def test_a_schedule_from_a_file_is_what_the_file_says(write: Write, tmp_path: Path) -> None:
    text = "at,low,high\n0,0.3,0.7\n0.75,0.7,0.3\n"
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    for path in (one, other):
        path.write_text(text)
    mixtures = [{"schedule": {"name": "csv", "file": str(path)}} for path in (one, other)]
    train(write(mixture=mixtures[0]), ["stop_at=4"])
    other.write_text(text.replace("0.75", "0.85"))
    with pytest.raises(CheckpointError, match=r"schedule\.content was"):
        train(write(mixture=mixtures[1]))
    other.write_text(text)
    assert train(write(mixture=mixtures[1])).name == "step12-unsharded"


def test_a_mixture_file_is_compared_and_may_allow_a_change(write: Write, tmp_path: Path) -> None:
    """What it says counts as if it stood in the training file."""
    import yaml

    path = tmp_path / "m.yaml"
    stages = {"name": "stages", "knots": [{"at": 0, "ratios": {"low": 0.3, "high": 0.7}}]}
    path.write_text(yaml.safe_dump({"schedule": stages}))
    train(write(mixture={"file": str(path)}), ["stop_at=4"])
    linear = {**stages, "name": "linear"}
    path.write_text(yaml.safe_dump({"schedule": linear}))
    with pytest.raises(CheckpointError, match=r"schedule\.name was stages, is linear"):
        train(write(mixture={"file": str(path)}))
    path.write_text(yaml.safe_dump({"schedule": linear, "allow_change": True}))
    assert train(write(mixture={"file": str(path)})).name == "step12-unsharded"


def test_another_run_in_the_folder_is_neither_mixed_up_nor_lost(write: Write) -> None:
    first = train(write())
    with pytest.raises(CheckpointError, match="holds the checkpoints of another run"):
        train(write(try_load_latest_save=False))
    assert first.is_dir()
    again = train(write(try_load_latest_save=False, save_overwrite=True, max_duration=4))
    assert again.name == "step4-unsharded"
    assert not first.exists()


def test_a_model_with_experts_resumes_exactly_and_a_dense_one_stays_plain(write: Write) -> None:
    from olmo.config import TrainConfig

    from olmo_mixlaw.training.config import load

    model = load(write("dense")).plain()["model"]
    TrainConfig.load(train(write("dense", max_duration=1)) / "config.yaml")
    model["moe"] = {"num_experts": 4, "top_k": 2, "expert_size": 16}
    whole = train(write("whole", model=model))
    config = write("parts", model=model)
    train(config, ["stop_at=5"])
    final = train(config)
    assert same_weights(final, whole)
    assert any("ff_proj" in key for key in weights(final))
