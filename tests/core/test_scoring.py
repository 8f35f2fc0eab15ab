"""Checkpoints of OLMo-core are scored as they are, exported, and begun from public weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.training_core import saved

try:
    saved.require_core("tests")
except CheckpointError as reason:
    pytest.skip(str(reason), allow_module_level=True)

from core_checkpoints import BIO, LENGTH, ROWS, SHAPES, SHAPES_OF_ONE, VOCAB, olmo2, write

from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.evaluation.generation import generate
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.provenance import newest_checkpoint, record_of
from olmo_mixlaw.evaluation.run import evaluate
from olmo_mixlaw.evaluation.scorer import encode_pairs, loglikelihoods
from olmo_mixlaw.evaluation.tasks import Request
from olmo_mixlaw.training_core.from_hf import weights_from_hf
from olmo_mixlaw.training_core.to_hf import export


def pairs() -> list[tuple[str, str]]:
    """Continuations that share contexts, so that keys are kept and taken again."""
    documents = [open_dataset(BIO).document(i)[:150] for i in range(4)]
    ends = [" was born in Paris.", " studied law", " x", " and then, on the next day, he left."]
    return [(text, end) for text in documents for end in ends] + [("", "One"), ("", "Two more")]


def score(folder: Path) -> list[float]:
    model = load_model(folder, device="cpu")
    encoded = encode_pairs(model, pairs(), strict=False, truncate=True, where="pairs")
    return [found.sum_logits for found in loglikelihoods(model, encoded)]


@pytest.mark.parametrize("name", SHAPES)
def test_scores_equal_those_of_the_exported_folder(
    tmp_path: Path, tokenizer_file: Path, name: str
) -> None:
    folder, _ = write(tmp_path / "step2", SHAPES[name](), tokenizer_file)
    out = export(folder, tmp_path / "hf")
    ours, theirs = score(folder), score(out)
    assert max(ours) - min(ours) > 5  # they tell the continuations apart
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    settings = json.loads((out / "config.json").read_text())
    assert settings["model_type"] == ("olmo3" if "olmo3" in name else "olmo2")
    assert settings["vocab_size"] == ROWS
    assert settings["max_position_embeddings"] == LENGTH


@pytest.mark.parametrize("name", SHAPES)
def test_a_model_begun_from_the_exported_folder_has_the_same_logits(
    tmp_path: Path, tokenizer_file: Path, name: str
) -> None:
    folder, model = write(tmp_path / "step2", SHAPES[name](), tokenizer_file)
    shape, state = weights_from_hf(export(folder, tmp_path / "hf"))
    begun = shape.build(init_device="cpu")
    begun.load_state_dict(state)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        torch.testing.assert_close(begun.eval()(ids), model(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*SHAPES, *SHAPES_OF_ONE])
def test_reading_in_parts_gives_the_logits_of_reading_at_once(
    tmp_path: Path, tokenizer_file: Path, name: str
) -> None:
    shape = (SHAPES | SHAPES_OF_ONE)[name]()
    folder, model = write(tmp_path / "step2", shape, tokenizer_file)
    loaded = load_model(folder, device="cpu")
    ids = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(ids)
        whole, _ = loaded.logits(ids)
        torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)
        _, cache = loaded.read(ids[:, :20], keep_cache=True)
        swapped = torch.tensor([1, 0, 1])
        cache = loaded.take(cache, swapped)
        some, cache = loaded.logits(ids[swapped, 20:27], cache, keep_cache=True)
        one, cache = loaded.logits(ids[swapped, 27:28], cache, keep_cache=True)
        rest, _ = loaded.logits(ids[swapped, 28:], cache)
        again, _ = loaded.logits(ids[swapped, 28:], cache)  # the cache is as it was
    found = torch.cat([some, one, rest], dim=1)
    torch.testing.assert_close(found, expected[swapped, 20:], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(again, rest, rtol=0, atol=0)


@pytest.mark.parametrize("name", SHAPES_OF_ONE)
def test_a_model_that_no_class_holds_is_not_exported(
    tmp_path: Path, tokenizer_file: Path, name: str
) -> None:
    folder, _ = write(tmp_path / "step2", SHAPES_OF_ONE[name](), tokenizer_file)
    expected = "mixture of experts" if name == "moe" else "model: (has no class|as Olmo2)"
    with pytest.raises(CheckpointError, match=expected):
        export(folder, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_greedy_text_equals_that_of_the_exported_folder(checkpoint: Path, tmp_path: Path) -> None:
    out = export(checkpoint, tmp_path / "hf")
    requests = [Request(context=c, continuation="", max_tokens=12) for c, _ in pairs()[:8]]
    texts = [
        [answer["continuation"] for answer in generate(load_model(f, device="cpu"), requests)]
        for f in (checkpoint, out)
    ]
    assert texts[0] == texts[1]


SHARDED = """
import json, sys
import torch
from torch.distributed.device_mesh import init_device_mesh
from olmo_core.distributed.checkpoint import save_model_and_optim_state
from olmo_core.nn.transformer import TransformerConfig

torch.distributed.init_process_group("gloo")
settings = json.load(open(sys.argv[1] + "/config.json"))["model"]
model = TransformerConfig.from_dict(settings).build(init_device="cpu")
model.load_state_dict(torch.load(sys.argv[2]))
model.apply_fsdp(dp_mesh=init_device_mesh("cpu", (2,)))
save_model_and_optim_state(sys.argv[1] + "/model_and_optim", model)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_shards_of_two_ranks_are_read_by_one_process(
    checkpoint: Path, tmp_path: Path, tokenizer_file: Path
) -> None:
    before = score(checkpoint)
    _, model = write(tmp_path / "other" / "step2", olmo2(), tokenizer_file)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    (tmp_path / "script.py").write_text(SHARDED)
    shutil.rmtree(checkpoint / "model_and_optim")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(tmp_path / "script.py"), str(checkpoint), str(tmp_path / "state.pt")]
    subprocess.run([*launcher, *arguments], check=True, capture_output=True)
    assert len({p.name[:4] for p in (checkpoint / "model_and_optim").glob("*.distcp")}) == 2
    assert score(checkpoint) == before


def test_a_run_is_scored_at_its_newest_whole_checkpoint(
    checkpoint: Path, tmp_path: Path, tokenizer_file: Path
) -> None:
    run = checkpoint.parent
    assert newest_checkpoint(run) == checkpoint
    later, _ = write(run / "step10", olmo2(), tokenizer_file)
    assert newest_checkpoint(run) == later
    (later / "model_and_optim" / ".metadata").unlink()
    assert newest_checkpoint(run) == checkpoint
    (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is whole"):
        newest_checkpoint(run)


def test_what_the_run_read_is_known_of_the_checkpoint_and_of_its_export(
    checkpoint: Path, tmp_path: Path
) -> None:
    read = {"bio": [BIO], "web/code": ["mixlaw:text?corpus=code"]}
    assert record_of(checkpoint).sources == read
    assert record_of(export(checkpoint, tmp_path / "hf")).sources == read


def test_the_files_of_a_run_are_those_of_its_export(checkpoint: Path, tmp_path: Path) -> None:
    """One row a metric, alike to 1e-5, and the same files."""
    folders = {"core": checkpoint.parent, "hf": export(checkpoint, tmp_path / "hf")}
    tasks = [{"task_name": "bio_recall", "limit": 6}]
    found = {
        name: evaluate(folder, tasks, tmp_path / f"{name}-scores", device="cpu")
        for name, folder in folders.items()
    }
    assert list(found["core"].metric) == list(found["hf"].metric)
    assert found["core"].value.tolist() == pytest.approx(found["hf"].value.tolist(), rel=1e-5)
    names = [sorted(p.name for p in (tmp_path / f"{n}-scores").iterdir()) for n in folders]
    assert names[0] == names[1]
    metrics = json.loads((tmp_path / "core-scores" / "metrics.json").read_text())
    assert metrics["model_config"]["model_type"] == "olmo-core"
    assert metrics["model_config"]["max_length"] == LENGTH
