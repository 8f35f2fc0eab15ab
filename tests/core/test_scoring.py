"""Checkpoints of OLMo-core are scored as they are, exported, and begun from public weights."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.training_core import saved

try:
    saved.require_core("tests")
except CheckpointError as reason:
    pytest.skip(str(reason), allow_module_level=True)

from olmo_core.distributed.checkpoint import save_model_and_optim_state
from olmo_core.nn.attention import (
    AttentionBackendName,
    GateConfig,
    GateGranularity,
    SlidingWindowAttentionConfig,
)
from olmo_core.nn.moe import MoEConfig, MoERouterConfig, MoEType
from olmo_core.nn.rope import YaRNRoPEScalingConfig
from olmo_core.nn.transformer import TransformerBlockType, TransformerConfig, TransformerType
from tokenizers import Tokenizer

from olmo_mixlaw.datasets import open_dataset, train_tokenizer
from olmo_mixlaw.evaluation.generation import generate
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.provenance import newest_checkpoint, record_of
from olmo_mixlaw.evaluation.run import evaluate
from olmo_mixlaw.evaluation.scorer import encode_pairs, loglikelihoods
from olmo_mixlaw.evaluation.tasks import Request
from olmo_mixlaw.training_core import cpu_moe
from olmo_mixlaw.training_core.from_hf import weights_from_hf
from olmo_mixlaw.training_core.to_hf import export

BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"
VOCAB, ROWS, LENGTH = 400, 512, 96  # the embedding has rows that no token has
WINDOWS = SlidingWindowAttentionConfig(
    force_full_attention_on_first_layer=False,
    force_full_attention_on_last_layer=True,
    pattern=[8, 8, 8, -1],
)


def olmo2(**changes: Any) -> TransformerConfig:
    shape: dict[str, Any] = {
        "d_model": 32,
        "vocab_size": ROWS,
        "n_layers": 2,
        "n_heads": 4,
        "qk_norm": True,
        "rope_theta": 10_000,
        "layer_norm_eps": 1e-6,
        "hidden_size_multiple_of": 32,
        "block_name": TransformerBlockType.reordered_norm,
    }
    return TransformerConfig.llama_like(**shape | changes)


def moe() -> TransformerConfig:
    return olmo2(
        name=TransformerType.moe,
        block_name=TransformerBlockType.moe_reordered_norm,
        feed_forward_moe=MoEConfig(
            name=MoEType.dropless,
            num_experts=4,
            hidden_size=16,
            router=MoERouterConfig(top_k=2),
            lb_loss_weight=0.01,
            z_loss_weight=0.001,
        ),
    )


# As a GPU's run names its attention; a checkpoint of it is read anywhere.
FLASH = AttentionBackendName.flash_2
SHAPES: dict[str, Callable[[], TransformerConfig]] = {
    "olmo2": olmo2,
    "olmo2-grouped": lambda: olmo2(n_kv_heads=2),
    "olmo2-tied": lambda: olmo2(tie_word_embeddings=True),
    "olmo3": lambda: olmo2(n_layers=4, sliding_window=WINDOWS, attn_backend=FLASH),
    "olmo3-long": lambda: olmo2(n_layers=4, sliding_window=WINDOWS).with_rope_scaling(
        YaRNRoPEScalingConfig(factor=4.0, old_context_len=32)
    ),
}


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    dataset = open_dataset(BIO)
    train_tokenizer((dataset.document(i) for i in range(300)), VOCAB, path)
    return path


def write(folder: Path, shape: TransformerConfig, tokenizer_file: Path) -> tuple[Path, Any]:
    """A checkpoint, written by OLMo-core, with Adam's state; and the model that it is of."""
    cpu_moe.install()
    model = shape.build(init_device="cpu")
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2 + (weight.ndim == 1))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    save_model_and_optim_state(folder / "model_and_optim", model, optimizer)
    tokenizer = {"identifier": str(tokenizer_file), "eos_token_id": 0, "pad_token_id": 1}
    config = {
        "model": shape.as_config_dict(),
        "data_loader": {"tokenizer": {**tokenizer, "vocab_size": VOCAB}},
        "train_module": {"max_sequence_length": LENGTH},
        "trainer": {"save_folder": str(folder.parent)},
        "sources": {"bio": [BIO], "web": {"code": "mixlaw:text?corpus=code"}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model.eval()


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer_file: Path) -> Path:
    return write(tmp_path / "run" / "step2", olmo2(), tokenizer_file)[0]


def edit(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    change(config)
    (checkpoint / "config.json").write_text(json.dumps(config))


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


SHAPES_OF_ONE = {
    "moe": moe,
    "gated": lambda: olmo2(gate=GateConfig(granularity=GateGranularity.headwise)),
    "normalized": lambda: TransformerConfig.ngpt_like(
        d_model=32, vocab_size=ROWS, n_layers=2, n_heads=4
    ),
}


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


def no_index(folder: Path) -> None:
    (folder / "model_and_optim" / ".metadata").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def lost_shard(folder: Path) -> None:
    for file in (folder / "model_and_optim").glob("*.distcp"):
        file.unlink()


def cut_shard(folder: Path) -> None:
    for file in (folder / "model_and_optim").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def cut_index(folder: Path) -> None:
    file = folder / "model_and_optim" / ".metadata"
    file.write_bytes(file.read_bytes()[:100])


def code_in_index(folder: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (folder / "ran",))

    (folder / "model_and_optim" / ".metadata").write_bytes(pickle.dumps(Runs()))


def other_class(folder: Path) -> None:
    edit(folder, lambda config: config["model"].update(_CLASS_="subprocess.Popen"))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (no_index, r"has no \.metadata: the checkpoint is half-written"),
    "no config": (no_config, "has no config.json: half-written"),
    "lost shard": (lost_shard, "missing: the checkpoint is half-written"),
    "cut shard": (cut_shard, "cut short: the checkpoint is half-written"),
    "cut index": (cut_index, r"\.metadata: can't be read"),
    "code in index": (code_in_index, "which no index does"),
    "other class": (other_class, "subprocess.Popen: expected a class of olmo_core"),
    "no model": (lambda f: edit(f, lambda c: c.pop("model")), "key 'model' is missing"),
    "other width": (
        lambda f: edit(f, lambda c: c["model"].update(vocab_size=600)),
        r"embeddings.weight is \(512, 32\), but config.json makes it \(600, 32\)",
    ),
    "more layers": (
        lambda f: edit(f, lambda c: c["model"].update(n_layers=3)),
        r"lacks the weight blocks\.2\.",
    ),
    "no tokenizer": (lambda f: edit(f, lambda c: c.pop("data_loader")), "identifier is missing"),
    "no end": (
        lambda f: edit(f, lambda c: c["data_loader"]["tokenizer"].pop("eos_token_id")),
        "tokenizer.eos_token_id is missing",
    ),
    "tokenizer gone": (
        lambda f: edit(f, lambda c: c["data_loader"]["tokenizer"].update(identifier="a/b")),
        "'a/b' is not there; give its tokenizer.json with --tokenizer",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_checkpoint_is_said(checkpoint: Path, name: str) -> None:
    spoil, message = BROKEN[name]
    spoil(checkpoint)
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(checkpoint, device="cpu")
    assert str(checkpoint) in str(error.value)
    assert not (checkpoint / "ran").exists()


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    folder, _ = write(tmp_path / "step2", olmo2(vocab_size=VOCAB - 8), tokenizer_file)
    with pytest.raises(CheckpointError, match="the tokenizer has 400 tokens"):
        load_model(folder, device="cpu")


def test_a_given_tokenizer_replaces_the_one_that_is_named(
    checkpoint: Path, tmp_path: Path, tokenizer_file: Path
) -> None:
    edit(checkpoint, lambda config: config["data_loader"]["tokenizer"].update(identifier="a/b"))
    assert load_model(checkpoint, tokenizer=tokenizer_file, device="cpu").max_length == LENGTH
    Tokenizer.from_file(str(tokenizer_file)).save(str(tmp_path / "run" / "b"))
    assert load_model(checkpoint, device="cpu").max_length == LENGTH  # beside the run, by its name


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "llama", "model_type: llama: expected olmo2 or olmo3"),
        ("hidden_act", "gelu", "hidden_act: gelu: expected silu"),
        ("intermediate_size", 64, "feed_forward.w1.weight is"),
        ("num_hidden_layers", 1, "its weights don't fit config.json: .*layers.1"),
        ("num_hidden_layers", 3, "its weights lack what OLMo-core calls blocks.2"),
    ],
)
def test_a_folder_that_cannot_be_begun_from_is_refused(
    checkpoint: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    out = export(checkpoint, tmp_path / "hf")
    edit(out, lambda settings: settings.update({key: value}))
    with pytest.raises(CheckpointError, match=message):
        weights_from_hf(out)
