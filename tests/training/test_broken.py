"""What is broken on disk, or in the loss, ends a run in one line that says what to mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("olmo")

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import CheckpointError, DataError, NonFiniteLossError
from olmo_mixlaw.training.launch import train
from olmo_mixlaw.training.trainer import MixTrainer

Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["model", "optim", "train"])
@pytest.mark.parametrize("how", ["cut", "empty", "gone", "zeroed"])
def test_a_half_written_checkpoint_is_named_and_the_one_before_it_serves(
    write: Write, name: str, how: str, capsys: pytest.CaptureFixture
) -> None:
    config = write(save_num_unsharded_checkpoints_to_keep=-1)
    train(config, ["--stop_at=8"])
    folder = config.with_suffix("")
    file = folder / "step8-unsharded" / f"{name}.pt"
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        half = content[: len(content) // 2]
        file.write_bytes({"cut": half, "empty": b"", "zeroed": bytes(len(content))}[how])
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert cli.run(cli.app, ["train", str(config)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert f"{config}: {file}: is {'missing' if how == 'gone' else 'not whole'}" in line
    assert f"Remove {folder / 'step8-unsharded'} to go on from the checkpoint before it" in line
    assert sorted(folder.rglob("*")) == before
    (folder / "step8-unsharded").rename(folder / "broken")
    assert train(config).name == "step12-unsharded"


@pytest.mark.parametrize("name", ["model", "optim", "train"])
def test_a_checkpoint_of_other_content_is_one_line(
    write: Write, name: str, capsys: pytest.CaptureFixture
) -> None:
    config = write()
    train(config, ["--stop_at=8"])
    file = config.with_suffix("") / "step8-unsharded" / f"{name}.pt"
    torch.save({"what": torch.ones(3)}, file)
    capsys.readouterr()
    assert cli.run(cli.app, ["train", str(config)]) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert len(lines) == 1
    assert str(file.parent) in lines[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"step,\xff\xfe\n1,2\n", "is no table of a run"),
        (b"HEAD\nx,1\n", "line 2: step: 'x' is no whole number; mend it, or move it away"),
        (b"HEAD\n\n", "line 2: step: '' is no whole number"),
        (b"HEAD\n3,1\n", "step 3: 2 columns of 13"),
    ],
)
def test_a_metrics_file_that_cannot_be_read_is_one_line_and_stays(
    write: Write, content: bytes, message: str
) -> None:
    config = write()
    train(config, ["--stop_at=4"])
    metrics = config.with_suffix("") / "metrics.csv"
    whole = metrics.read_bytes()
    head = whole.split(b"\n", 1)[0]
    metrics.write_bytes(content.replace(b"HEAD", head))
    with pytest.raises(DataError) as error:
        train(config)
    assert f"{metrics}: {message}" in str(error.value)
    assert "\n" not in str(error.value)
    assert metrics.read_bytes() == content.replace(b"HEAD", head)
    metrics.write_bytes(whole)
    train(config)
    assert metrics.read_bytes().startswith(whole)


def test_rows_of_a_mixture_that_was_changed_are_kept(write: Write, tokens: Path) -> None:
    config = write()
    train(config, ["--stop_at=4"])
    folder = config.with_suffix("")
    before = (folder / "metrics.csv").read_bytes()
    data = {"datasets": {"web": [str(tokens / "high.npy")]}}
    write(data=data, mixture={"ratios": {"web": 1.0}, "allow_change": True})
    train(config)
    assert (folder / "metrics.until-step4.csv").read_bytes() == before
    assert b"loss_web" in (folder / "metrics.csv").read_bytes()


@pytest.mark.parametrize(
    ("step", "saved"), [(6, "the checkpoint of step 5 is in"), (1, "no step before it was trained")]
)
def test_a_loss_whose_perplexity_is_beyond_a_float_ends_the_run_with_a_checkpoint(
    write: Write, monkeypatch: pytest.MonkeyPatch, step: int, saved: str
) -> None:
    forward = MixTrainer.model_forward

    def large(self: MixTrainer, *args: object, **kwargs: object) -> tuple:
        losses, z_losses, logits = forward(self, *args, **kwargs)  # type: ignore[arg-type]
        return losses * (200 if self.global_step == step else 1), z_losses, logits

    monkeypatch.setattr(MixTrainer, "model_forward", large)
    message = rf"the loss of step {step} is 1\d+ nats a token"
    with pytest.raises(NonFiniteLossError, match=message) as error:
        train(write())
    assert saved in str(error.value)


def test_a_checkpoint_folder_that_is_none_is_refused(write: Write, tmp_path: Path) -> None:
    empty = tmp_path / "step9-unsharded"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"step9-unsharded/model\.pt: is missing"):
        train(write(load_path=str(empty)))


def test_an_optimizer_that_is_reset_need_not_be_there(write: Write, tmp_path: Path) -> None:
    final = train(write("first", max_duration=2))
    (final / "optim.pt").unlink()
    more = write("more", load_path=str(final))
    with pytest.raises(CheckpointError, match=r"optim\.pt: is missing"):
        train(more)
    reset = ["--reset_optimizer_state=true", "--reset_trainer_state=true"]
    assert train(more, reset).name == "step12-unsharded"
