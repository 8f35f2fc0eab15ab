"""Runs of a study on OLMo-core: the configuration of each, and the checkpoint that it begins with.

Neither asks for OLMo-core to be installed, so that a study is planned and checked anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olmo_mixlaw.datasets import load_tokenizer
from olmo_mixlaw.datasets.memmap import dtype_for
from olmo_mixlaw.errors import CheckpointError, ConfigError
from olmo_mixlaw.models.ladder import Rung
from olmo_mixlaw.study.plan import CORE, Run, cuts_of, vocabulary
from olmo_mixlaw.study.resources import core_micro_batch, precision_for
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.training_core import saved
from olmo_mixlaw.training_core.models import rung_section

# Where the numbers of a model stand, in a checkpoint of OLMo-core and in a HuggingFace folder.
NUMBERS = {
    "d_model": ("d_model", "hidden_size"),
    "n_layers": ("n_layers", "num_hidden_layers"),
    "vocab_size": ("vocab_size", "vocab_size"),
    "n_heads": ("n_heads", "num_attention_heads"),
    "mlp_size": ("hidden_size", "intermediate_size"),
}


def core_config(
    study: StudyConfig, run: Run, tokenizer: Path, save_folder: Path, cache: Path
) -> dict[str, Any]:
    """The training file of `run` for OLMo-core, as a mapping for YAML; see `plan.olmo_config`.

    The same optimizer, schedule and batches as there, where OLMo-core counts batches in tokens.
    """
    rung = run.rung
    undecayed = ["embeddings.weight", "*norm*", *(["*.bias"] if rung.bias else [])]
    return {
        "trainer": CORE,
        "run_name": run.run_id,
        "seed": run.seed,
        "model": rung_section(rung),
        "tokenizer": {
            "identifier": str(tokenizer.resolve()),
            "vocab_size": vocabulary(study.tokenizer)["vocab_size"],
            "eos_token_id": rung.eos_token_id,
            "pad_token_id": rung.pad_token_id,
        },
        "sequence_length": rung.context,
        "global_batch_size": rung.batch_tokens,
        "max_duration": run.steps,
        "sources": {domain: [study.domains[domain]] for domain in run.ratios},
        "memmap_dtype": dtype_for(rung.vocab_size),
        "mixture": {
            "ratios": dict(run.ratios),
            **cuts_of(study, run),
            "cache_dir": str(cache.resolve()),
        },
        "optimizer": {
            "name": "adamw",
            "lr": rung.learning_rate,
            "weight_decay": rung.weight_decay,
            "betas": [0.9, 0.95],
            "eps": 1e-8,
        },
        "train_module": {
            "optim": {"group_overrides": [{"params": undecayed, "opts": {"weight_decay": 0.0}}]}
        },
        "scheduler": {
            "name": "wsd",
            "warmup": rung.warmup_steps(run.steps),
            "decay_fraction": rung.training.decay_fraction,
            "alpha_f": 0.0,
        },
        "max_grad_norm": 1.0,
        "precision": precision_for(study),
        **core_micro_batch(study, rung),
        "save_folder": str(save_folder.resolve()),
        "save_interval": study.checkpoint_every,
        "keep_checkpoints": 1,
        "console_interval": 50,
    }


def check_core_base(base: Path, rung: Rung, identifier: str, where: str) -> None:
    """Raises `ConfigError` unless `base` is a checkpoint of OLMo-core, or a HuggingFace folder, of
    the rung's shape and of the tokenizer `identifier`.
    """
    try:
        config = saved.read_config(base)
    except CheckpointError as error:
        raise ConfigError(
            f"{where}: base: {base}: is no checkpoint of OLMo-core and no HuggingFace folder "
            f"({error})"
        ) from None
    ours = saved.is_checkpoint(base)
    model = config.get("model") if ours else config
    for key, places in NUMBERS.items():
        theirs = _number(model, places[0 if ours else 1])
        if key == "mlp_size" and rung.moe is not None:
            continue
        if theirs is not None and theirs != getattr(rung, key):
            raise ConfigError(
                f"{where}: base: {base}: model.{key} is {theirs}, that of size {rung.name} is "
                f"{getattr(rung, key)}"
            )
    named = saved.tokenizer_section(config).get("identifier") if ours else base / "tokenizer.json"
    check_tokenizer(Path(str(named)), identifier, where)


def _number(model: Any, key: str) -> int | None:
    """The number under `key` nearest the top of a model's settings."""
    found = saved.first(model, key, lambda value: type(value) is int)
    return None if found is None else int(found)


def check_tokenizer(theirs: Path, identifier: str, where: str) -> None:
    """Raises `ConfigError` for a base with another tokenizer, where it names one by a file."""
    if theirs.is_file() and _text(theirs) != _text(identifier):
        raise ConfigError(
            f"{where}: tokenizer.identifier: {identifier}: isn't the base's, {theirs}"
        )


def _text(identifier: str | Path) -> str:
    return load_tokenizer(str(identifier), "tokenizer.identifier").to_str(pretty=False)
