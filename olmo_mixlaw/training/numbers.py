"""The numbers of a training file, and which of them make a run: refused before any work.

What OLMo takes without a word would train nothing, or end in an assertion hours later.
"""

from __future__ import annotations

from typing import Any

from olmo.config import ActivationType
from olmo.exceptions import OLMoConfigurationError

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models import limits
from olmo_mixlaw.models.limits import COUNT, NOT_NEGATIVE, PART, POSITIVE, SHARE, SIZE, Limit
from olmo_mixlaw.models.shape import MOE_LIMITS

_MODEL = {
    "d_model": SIZE,
    "n_heads": SIZE,
    "n_kv_heads": SIZE,
    "clip_qkv": POSITIVE,
    "n_layers": Limit(1, limits.MOST_LAYERS),
    "mlp_ratio": SIZE,
    "mlp_hidden_size": SIZE,
    "block_group_size": SIZE,
    "alibi_bias_max": POSITIVE,
    "rope_theta": POSITIVE,
    "attention_dropout": PART,
    "residual_dropout": PART,
    "embedding_dropout": PART,
    "layer_norm_eps": POSITIVE,
    # One token has none after it to predict.
    "max_sequence_length": Limit(2, limits.MOST_SIZE),
    "vocab_size": SIZE,
    "embedding_size": Limit(0, limits.MOST_SIZE),
    "eos_token_id": Limit(0, limits.MOST_SIZE),
    "pad_token_id": Limit(0, limits.MOST_SIZE),
    "init_std": POSITIVE,
    "init_cutoff_factor": POSITIVE,
    "emb_init_std": POSITIVE,
    **{f"moe.{key}": limit for key, limit in MOE_LIMITS.items()},
}
_OPTIMIZER = {
    "learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "betas": PART,
    "eps": SHARE,
    "metrics_log_interval": COUNT,
}
_SCHEDULER = {
    "t_warmup": NOT_NEGATIVE,
    "t_max": POSITIVE,
    "alpha_f": SHARE,
    "grad_clip_warmup_steps": NOT_NEGATIVE,
    "grad_clip_warmup_factor": POSITIVE,
    "warmup_min_lr": NOT_NEGATIVE,
}
_DATA = {
    "num_workers": Limit(0, 10_000),
    "prefetch_factor": COUNT,
    "timeout": NOT_NEGATIVE,
    "seed": Limit(0, limits.MOST_SEED),
}
_FILTER = {
    "repetition_max_period": SIZE,
    "repetition_min_period": SIZE,
    "repetition_max_count": SIZE,
}
_RUN = {
    "seed": Limit(0, limits.MOST_SEED),
    "epoch": Limit(0, limits.MOST_COUNT),
    "fast_forward_batches": Limit(0, limits.MOST_COUNT),
    "metrics_interval": COUNT,
    "console_log_interval": COUNT,
    "eval_interval": COUNT,
    "canceled_check_interval": COUNT,
    "save_interval": COUNT,
    "save_interval_unsharded": COUNT,
    "save_interval_ephemeral": COUNT,
    "save_num_checkpoints_to_keep": Limit(-1, limits.MOST_COUNT),
    "save_num_unsharded_checkpoints_to_keep": Limit(-1, limits.MOST_COUNT),
    "device_eval_batch_size": COUNT,
    "eval_subset_num_batches": Limit(-1, limits.MOST_COUNT),
    "max_grad_norm": POSITIVE,
    "max_grad_norm_ratio": POSITIVE,
    "gen1_gc_interval": COUNT,
    "auxiliary_loss_multiplier": NOT_NEGATIVE,
    "time_limit": POSITIVE,
    "extra_steps_after_cancel": Limit(0, limits.MOST_COUNT),
    "early_stopping_factor": POSITIVE,
    "stop_at": COUNT,
    "stop_after": COUNT,
    "wandb.log_interval": COUNT,
    "speed_monitor.window_size": COUNT,
    # The bytes and two markers are in every vocabulary.
    "tokenizer.train_vocab_size": Limit(258, limits.MOST_SIZE),
}
_EVALUATOR = {"device_eval_batch_size": COUNT, "subset_num_batches": Limit(-1, limits.MOST_COUNT)}
LIMITS = {
    **_RUN,
    **{f"model.{key}": limit for key, limit in _MODEL.items()},
    **{f"optimizer.{key}": limit for key, limit in _OPTIMIZER.items()},
    **{f"scheduler.{key}": limit for key, limit in _SCHEDULER.items()},
    **{f"data.{key}": limit for key, limit in _DATA.items()},
}


def check_numbers(config: Any, where: str) -> None:
    """Raise `ConfigError` for a number that no run can have, naming its key and the range."""
    limits.check(config, LIMITS, where)
    for i, item in enumerate(config.evaluators):
        limits.check(item, _EVALUATOR, f"{where}: evaluators.{i}")
    optimizer, model = config.optimizer, config.model
    limits.check_decay(
        optimizer.learning_rate, optimizer.weight_decay, "optimizer.weight_decay", where
    )
    size = model.embedding_size or model.vocab_size
    for key in ("eos_token_id", "pad_token_id"):
        if getattr(model, key) >= max(size, model.vocab_size):
            raise ConfigError(
                f"{where}: model.{key}: {getattr(model, key)}; the model has {size} tokens"
            )
    _check_division(model, where)
    if config.data.instance_filter is not None:
        check_filter(config.data.instance_filter, f"{where}: data.instance_filter")


def check_filter(found: Any, where: str) -> None:
    """Raise `ConfigError` for an `instance_filter` that can find no repetition."""
    limits.check(found, _FILTER, where)
    if found.repetition_min_period > found.repetition_max_period:
        raise ConfigError(
            f"{where}: repetition_min_period: {found.repetition_min_period}; it must be at most "
            f"repetition_max_period, {found.repetition_max_period}"
        )


def _check_division(model: Any, where: str) -> None:
    """Raise `ConfigError` for widths that OLMo's layers don't divide into."""
    heads = model.n_heads
    try:
        groups = model.effective_n_kv_heads
    except OLMoConfigurationError as error:
        raise ConfigError(f"{where}: model.n_kv_heads: {error}") from None
    gated = model.activation_type == ActivationType.swiglu
    wrong = [
        (model.d_model % heads, "d_model", model.d_model, f"n_heads, {heads}"),
        (heads % groups, "n_heads", heads, f"n_kv_heads, {groups}"),
        (
            gated and model.mlp_hidden_size and model.mlp_hidden_size % 2,
            "mlp_hidden_size",
            model.mlp_hidden_size,
            "2, a gate and a value (swiglu)",
        ),
        (
            model.n_layers % model.block_group_size,
            "n_layers",
            model.n_layers,
            f"block_group_size, {model.block_group_size}",
        ),
        (
            model.rope and model.d_model // heads % 2,
            "d_model",
            model.d_model,
            f"{heads} heads of an even size, as rotary positions need",
        ),
    ]
    for rest, key, value, by in wrong:
        if rest:
            raise ConfigError(f"{where}: model.{key}: {value} can't be divided by {by}")
