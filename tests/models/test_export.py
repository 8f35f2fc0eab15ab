"""Export to HuggingFace and back, under whichever major of transformers is installed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

import olmo_mixlaw.models.hf  # noqa: F401  registers our class
from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.models import export as module
from olmo_mixlaw.models.export import export, import_hf, load_checkpoint
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.olmo import build_model
from olmo_mixlaw.models.shape import Shape

MOE = MoEConfig(num_experts=8, top_k=2, expert_size=16)
SHAPE = Shape(d_model=32, n_layers=3, n_heads=4, mlp_size=48, vocab_size=96, context=64)
DEEPSEEK = dataclasses.replace(
    MOE,
    router="sigmoid",
    selection_bias=True,
    normalize_gates=True,
    gate_scale=2.5,
    shared_experts=2,
    dense_layers=1,
)
OLMO2 = {"qk_norm": True, "norm_after": True}
OLMOE = {"qk_norm": True, "moe": MOE}
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-gqa-untied": ("llama", {"n_kv_heads": 2, "tied": False}),
    "olmo2": ("olmo2", OLMO2),
    "olmo2-gqa-untied": ("olmo2", {**OLMO2, "n_kv_heads": 2, "tied": False}),
    "olmo2-theta-eps": ("olmo2", {**OLMO2, "rope_theta": 500_000, "norm_eps": 1e-6}),
    "olmoe": ("olmoe", OLMOE),
    "olmoe-gqa-untied": ("olmoe", {**OLMOE, "n_kv_heads": 2, "tied": False}),
    "olmoe-normalised": ("olmoe", {**OLMOE, "moe": dataclasses.replace(MOE, normalize_gates=True)}),
    "olmoe-top-4": ("olmoe", {**OLMOE, "moe": dataclasses.replace(MOE, top_k=4)}),
    "flex-olmo": ("flex_olmo", {**OLMO2, "moe": MOE}),
    "flex-olmo-gqa-untied": ("flex_olmo", {**OLMO2, "moe": MOE, "n_kv_heads": 2, "tied": False}),
}
OWN: dict[str, dict[str, Any]] = {
    "shared": {"moe": dataclasses.replace(MOE, shared_experts=1)},
    "deepseek": {"moe": DEEPSEEK, "qk_norm": True, "n_kv_heads": 2},
    "deepseek-norm-after": {"moe": DEEPSEEK, **OLMO2, "tied": False},
    "dense-qk-before": {"qk_norm": True},
    "dense-after-no-qk": {"norm_after": True, "n_kv_heads": 2},
    "olmoe-as-own": OLMOE,
    "olmo2-as-own": {**OLMO2, "tied": False},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads share a matrix product's rows, with another kernel at the seam: the same row
    then rounds otherwise in another place, and the libraries order an expert's rows differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_tokenizer(path: Path, size: int = 96) -> Path:
    words = {"<eos>": 0, "<pad>": 1, **{f"w{i}": i for i in range(2, size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
    return path


def write_checkpoint(folder: Path, shape: Shape, **changes: Any) -> Path:
    """A checkpoint as OLMo writes it, of random weights with logits that differ."""
    torch.manual_seed(0)
    section = shape.olmo_model(init_std=0.3, init_device="cpu", **changes)
    model = build_model(section)
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_f" in name:
            parameter.data.uniform_(0.5, 1.5)
    for name, buffer in model.named_buffers():
        assert name.endswith("selection_bias")
        buffer.copy_(torch.randint(-100_000, 100_000, buffer.shape))
    checkpoint = folder / "step10-unsharded"
    checkpoint.mkdir()
    tokenizer = write_tokenizer(folder / "tokenizer.json")
    (checkpoint / "config.yaml").write_text(
        yaml.safe_dump({"model": section, "tokenizer": {"identifier": str(tokenizer)}})
    )
    torch.save(model.state_dict(), checkpoint / "model.pt")
    return checkpoint


def load_hf(folder: Path, **kwargs: Any) -> Any:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, **kwargs
    )
    assert not any(info.values()), info
    return model.eval()


def ids(batch: int = 3, length: int = 40) -> Tensor:
    return torch.randint(2, 96, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check_equal(checkpoint: Path, hf: Any, out: Path) -> None:
    """Logits equal to the bit, and the same greedy text by either library's own generation."""
    olmo = load_checkpoint(checkpoint)
    expected = olmo(ids()).logits
    assert expected.std() > 0.3
    assert float((hf(ids()).logits - expected).abs().max()) == 0.0
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    prompt = tokenizer("w5 w17 w40 w2", return_tensors="pt")["input_ids"]
    assert prompt.tolist() == [[5, 17, 40, 2]]
    ours = olmo.generate(prompt, max_steps=12, beam_size=1).token_ids[0, 0]
    theirs = hf.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
    )[0, 4:]
    # Each library ends after <eos> in its own way.
    length = min(len(ours), len(theirs))
    assert tokenizer.decode(ours[:length]) == tokenizer.decode(theirs[:length])
    assert length == 12 or 0 in ours.tolist()


@pytest.mark.parametrize("name", STOCK)
def test_stock_export_has_the_same_logits_and_greedy_text(tmp_path: Path, name: str) -> None:
    kind, changes = STOCK[name]
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    out = export(checkpoint, tmp_path / "hf")
    settings: dict[str, Any] = {}
    if "top-4" in name and transformers.__version__ >= "5":
        # Version 5's default adds more than two experts in the order of their gates, version 4
        # and ours in that of their numbers: the same sum, rounded otherwise.
        settings["experts_implementation"] = "eager"
    hf = load_hf(out, **settings)
    assert hf.config.model_type == kind
    check_equal(checkpoint, hf, out)


def test_inner_widths_off_the_vector_length_differ_by_rounding_only(tmp_path: Path) -> None:
    """OLMo's SwiGLU reads halves of rows, transformers' whole ones: torch computes the last few
    of a row, when they fill no vector of 16, by another exponential."""
    shape = dataclasses.replace(SHAPE, mlp_size=40, **OLMO2)
    checkpoint = write_checkpoint(tmp_path, shape)
    hf = load_hf(export(checkpoint, tmp_path / "hf"))
    with torch.no_grad():
        torch.testing.assert_close(
            hf(ids()).logits, load_checkpoint(checkpoint)(ids()).logits, rtol=1e-4, atol=1e-4
        )


def test_default_experts_of_transformers_differ_by_rounding_only(tmp_path: Path) -> None:
    _, changes = STOCK["olmoe-top-4"]
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    hf = load_hf(export(checkpoint, tmp_path / "hf"))
    with torch.no_grad():
        torch.testing.assert_close(hf(ids()).logits, load_checkpoint(checkpoint)(ids()).logits)


@pytest.mark.parametrize("name", OWN)
def test_own_class_has_the_same_logits_and_greedy_text(tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN[name]))
    out = export(checkpoint, tmp_path / "hf", own_class=True)
    hf = load_hf(out)
    assert hf.config.model_type == "mixlaw"
    check_equal(checkpoint, hf, out)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["deepseek", "olmoe-as-own", "olmo2-as-own"])
def test_own_class_is_equal_at_any_width_top_k_and_number_of_threads(
    tmp_path: Path, name: str, threads: int
) -> None:
    """It runs OLMo's operations on OLMo's shapes, so the libraries round alike."""
    changes = {"mlp_size": 40, **OWN[name]}
    if "moe" in changes:
        changes["moe"] = dataclasses.replace(changes["moe"], expert_size=20, top_k=4)
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    out = export(checkpoint, tmp_path / "hf", own_class=True)
    torch.set_num_threads(threads)
    check_equal(checkpoint, load_hf(out), out)


def test_own_class_ignores_padding_and_continues_from_its_cache(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["deepseek"]))
    hf = load_hf(export(checkpoint, tmp_path / "hf", own_class=True))
    text = ids(1, 20)
    with torch.no_grad():
        whole = hf(text).logits
        first = hf(text[:, :12], use_cache=True)
        rest = hf(text[:, 12:], past_key_values=first.past_key_values).logits
        padded = torch.cat([torch.ones(1, 5, dtype=torch.long), text], dim=1)
        mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones_like(text)], dim=1)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        shifted = hf(padded, attention_mask=mask, position_ids=places).logits[:, 5:]
        labelled = hf(text, labels=text).loss
    torch.testing.assert_close(rest, whole[:, 12:])
    torch.testing.assert_close(shifted, whole)
    expected = torch.nn.functional.cross_entropy(whole[0, :-1], text[0, 1:])
    torch.testing.assert_close(labelled, expected)


def test_own_class_saves_and_loads_again(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["deepseek"]))
    hf = load_hf(export(checkpoint, tmp_path / "hf", own_class=True))
    hf.save_pretrained(tmp_path / "again")
    again = load_hf(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, hf(ids()).logits)


ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("olmo_mixlaw", "olmo"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch, transformers
torch.set_num_threads(1)
folder, out = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
given = torch.load(out)
with torch.no_grad():
    logits = model(given["ids"]).logits
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
prompt = tokenizer("w5 w17 w40 w2", return_tensors="pt")
text = model.generate(**prompt, max_new_tokens=12, do_sample=False)
torch.save({"logits": logits, "text": text}, out)
"""


@pytest.mark.slow
def test_own_class_loads_where_the_package_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["deepseek"]))
    out = export(checkpoint, tmp_path / "hf", own_class=True)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    given = tmp_path / "given.pt"
    torch.save({"ids": ids()}, given)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(out), str(given)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(given)
    olmo = load_checkpoint(checkpoint)
    with torch.no_grad():
        assert float((olmo(ids()).logits - found["logits"]).abs().max()) == 0.0
        prompt = torch.tensor([[5, 17, 40, 2]])
        text = olmo.generate(prompt, max_steps=12, beam_size=1).token_ids[0, 0]
    length = min(len(text), found["text"].shape[1] - 4)
    assert torch.equal(text[:length], found["text"][0, 4 : 4 + length])
    assert length == 12 or 0 in text.tolist()


def test_scorer_knows_the_own_class_in_a_fresh_process(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["shared"]))
    out = export(checkpoint, tmp_path / "hf", own_class=True)
    code = (
        "import sys, pathlib; from olmo_mixlaw.evaluation.language_model import load_model;"
        "load_model(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*STOCK, *OWN])
def test_back_conversion_returns_every_bit(tmp_path: Path, name: str) -> None:
    changes = STOCK[name][1] if name in STOCK else OWN[name]
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    out = export(checkpoint, tmp_path / "hf", own_class=name in OWN)
    back = import_hf(out, tmp_path / "back-unsharded")
    before, after = (torch.load(p / "model.pt", weights_only=True) for p in (checkpoint, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        expected = load_checkpoint(checkpoint)(ids()).logits
        assert torch.equal(load_checkpoint(back)(ids()).logits, expected)
    text = (back / "config.yaml").read_text()
    assert ("moe:" in text) == (SHAPE.moe is not None or "moe" in changes)


@pytest.mark.parametrize("kind", ["Olmo2", "Olmoe"])
def test_models_of_transformers_become_olmo_checkpoints(tmp_path: Path, kind: str) -> None:
    """Random weights in the layout of public OLMo-2 and OLMoE checkpoints."""
    torch.manual_seed(0)
    common = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 1,
        "eos_token_id": 0,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    if kind == "Olmoe":
        common |= {"num_experts": 8, "num_experts_per_tok": 2}
    config = getattr(transformers, f"{kind}Config")(**common)
    hf = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    hf.save_pretrained(tmp_path / "hf", max_shard_size="20KB")
    olmo = load_checkpoint(import_hf(tmp_path / "hf", tmp_path / "step0-unsharded"))
    with torch.no_grad():
        assert float((olmo(ids()).logits - hf(ids()).logits).abs().max()) == 0.0


def test_weights_in_several_files_load_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **STOCK["olmoe"][1]))
    out = export(checkpoint, tmp_path / "hf")
    assert len(list(out.glob("model-*.safetensors"))) > 2
    check_equal(checkpoint, load_hf(out), out)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"moe": dataclasses.replace(MOE, shared_experts=1), "qk_norm": True}, "shared_experts: 1"),
        ({"moe": dataclasses.replace(MOE, router="sigmoid"), "qk_norm": True}, "router: sigmoid"),
        ({"moe": MOE}, "attention_layer_norm: false with moe"),
        ({"qk_norm": True}, "attention_layer_norm: true with norm_after: false"),
    ],
)
def test_an_export_that_no_stock_class_holds_names_the_switch(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    with pytest.raises(CheckpointError, match="--own-class") as caught:
        export(checkpoint, tmp_path / "hf")
    assert said in str(caught.value)
    assert str(checkpoint / "config.yaml") in str(caught.value)
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("shape", "changes", "said"),
    [
        ({}, {"rope": False, "alibi": True}, "rope: false (has true); alibi: true (has false)"),
        ({"bias": True}, {}, "include_bias: true (has false)"),
        ({"norm": "default"}, {}, "layer_norm_type: default (has rms)"),
        ({"activation": "gelu"}, {}, "activation_type: gelu (has swiglu)"),
    ],
)
def test_an_export_that_no_class_holds_names_each_setting(
    tmp_path: Path, shape: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **shape), **changes)
    for own_class in (False, True):
        with pytest.raises(CheckpointError) as caught:
            export(checkpoint, tmp_path / "hf", own_class=own_class)
        assert said in str(caught.value)


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.yaml"):
        export(tmp_path, tmp_path / "hf")
    checkpoint = write_checkpoint(tmp_path, SHAPE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(CheckpointError, match="not an empty folder"):
        export(checkpoint, tmp_path / "full")
    with pytest.raises(CheckpointError, match="--tokenizer: nowhere"):
        export(checkpoint, tmp_path / "hf", tokenizer="nowhere")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"give the tokenizer\.json with --tokenizer"):
        export(checkpoint, tmp_path / "hf")
    large = write_tokenizer(tmp_path / "large.json", 97)
    with pytest.raises(CheckpointError, match="has 97 tokens, the model 96"):
        export(checkpoint, tmp_path / "hf", tokenizer=large)
    (checkpoint / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="only unsharded"):
        export(checkpoint, tmp_path / "hf", tokenizer=large)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_commands_convert_there_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["shared"]))
    out, back = str(tmp_path / "hf"), str(tmp_path / "back-unsharded")
    assert run(app, ["export", "hf", str(checkpoint), out]) == 2
    error = capsys.readouterr().err
    assert "--own-class" in error
    assert error.count("\n") == 1
    assert run(app, ["export", "hf", str(checkpoint), out, "--own-class"]) == 0
    assert run(app, ["export", "olmo", out, back]) == 0
    assert "--reset_trainer_state" in capsys.readouterr().out
    assert (tmp_path / "back-unsharded" / "model.pt").is_file()


def test_wrong_models_are_not_imported(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, SHAPE)
    hf = export(checkpoint, tmp_path / "hf")
    with pytest.raises(CheckpointError, match="ends in -unsharded"):
        import_hf(hf, tmp_path / "back")
    settings = json.loads((hf / "config.json").read_text())
    for change, said in (
        ({"model_type": "gpt2"}, "'gpt2' has no counterpart"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ({"head_dim": 16}, "head_dim: 16 x 4 heads"),
        ({"num_hidden_layers": 4}, "no weight 'model.layers.3"),
        ({"intermediate_size": 44}, "but config.json makes it"),
    ):
        (hf / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(CheckpointError, match=said):
            import_hf(hf, tmp_path / "back-unsharded")
    (hf / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="hidden_size: missing"):
        import_hf(hf, tmp_path / "back-unsharded")
