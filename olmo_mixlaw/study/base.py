"""The checkpoint that every run of a study goes on from, where the study has a `base`.

So is mid-training studied: one model, trained before, and mixtures for what comes after. A run
begins with the base's weights and with nothing else of it: step 0, a fresh optimizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import CheckpointError, ConfigError
from olmo_mixlaw.evaluation.provenance import newest_checkpoint
from olmo_mixlaw.study.core import check_core_base, check_tokenizer
from olmo_mixlaw.study.plan import CORE, Run
from olmo_mixlaw.study.settings import StudyConfig

PLACES = ("{size}", "{tokens}", "{seed}")


def base_of(study: StudyConfig, run: Run) -> Path | None:
    """The checkpoint folder that `run` goes on from. Raises `CheckpointError` if it is absent."""
    if study.base is None:
        return None
    tokens, _ = run.run_id.rsplit("-", 2)[1:]  # as the names of runs have it
    values = (run.rung.name, tokens, str(run.seed))
    text = study.base
    for place, value in zip(PLACES, values, strict=True):
        text = text.replace(place, value)
    return newest_checkpoint(text).resolve()


def base_keys(study: StudyConfig, run: Run) -> dict[str, Any]:
    """What a run's OLMo configuration says of its base; nothing where the study has none."""
    base = base_of(study, run)
    if base is None:
        return {}
    if study.trainer == CORE:
        return {"load_path": str(base)}
    return {"load_path": str(base), "reset_trainer_state": True, "reset_optimizer_state": True}


def check_base(study: StudyConfig, runs: list[Run], where: str) -> None:
    """Raises `ConfigError` unless every run has a base of its own shape and tokenizer."""
    if study.base is None:
        return
    identifier = study.tokenizer.identifier
    if identifier is None:
        raise ConfigError(
            f"{where}: base: goes on from a model that reads another tokenizer's tokens than one "
            "trained here; give the base's own in tokenizer.identifier"
        )
    pairs = {(base_of_checked(study, run, where), run.rung.name): run for run in runs}
    for (base, _), run in pairs.items():
        if study.trainer == CORE:
            check_core_base(base, run.rung, identifier, where)
            continue
        config = schema.read_mapping(base / "config.yaml")
        theirs = config.get("model") or {}
        for key, ours in run.rung.olmo_model().items():
            if isinstance(ours, int) and theirs.get(key, ours) != ours:
                raise ConfigError(
                    f"{where}: base: {base}: model.{key} is {theirs[key]}, that of size "
                    f"{run.rung.name} is {ours}"
                )
        their_tokenizer = Path(str((config.get("tokenizer") or {}).get("identifier")))
        check_tokenizer(their_tokenizer, identifier, where)


def base_of_checked(study: StudyConfig, run: Run, where: str) -> Path:
    """`base_of` where the study has one. Raises `ConfigError` naming file and key."""
    try:
        base = base_of(study, run)
    except CheckpointError as error:
        raise ConfigError(
            f"{where}: base: {error} (for run {run.run_id}; {', '.join(PLACES)} stand for a run's)"
        ) from None
    assert base is not None
    if study.trainer != CORE and not (base / "config.yaml").is_file():
        raise ConfigError(f"{where}: base: {base}: is not an OLMo checkpoint (no config.yaml)")
    return base
