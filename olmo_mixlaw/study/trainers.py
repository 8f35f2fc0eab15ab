"""What trains the runs of a study, OLMo or OLMo-core: whether it is there and what it is told."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.core import core_config
from olmo_mixlaw.study.places import moved_tokenizer
from olmo_mixlaw.study.plan import CORE, Run, olmo_config
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.training_core import process
from olmo_mixlaw.training_core.models import check_shape

TRAINERS = ("olmo", CORE)
# What every run imports, so that it is imported once, before runs part.
PRELOADED = {
    # The second is what torch imports, for most of a second, when the first weight is counted.
    "olmo": ("olmo_mixlaw.training.launch", "torch._dynamo"),
    CORE: ("olmo_mixlaw.training_core.launch", "olmo_mixlaw.training_core.settings"),
}


def require_trainer(study: StudyConfig, where: str) -> None:
    """Raises `ConfigError`, with what to install, unless what trains the runs is there.

    Nothing is imported: the runs' own processes need it.
    """
    if study.trainer == CORE:
        process.check_environment(where)
        return
    for package in ("torch", "olmo"):
        if find_spec(package) is None:
            raise ConfigError(f"this needs {package}: pip install 'olmo-mixlaw[olmo]'")


def preloaded(study: StudyConfig) -> list[str]:
    """The modules that a process imports from which runs are forked."""
    return [*PRELOADED[study.trainer], "olmo_mixlaw.evaluation.run"]


def check_models(runs: list[Run], trainer: str, where: str) -> None:
    """Raises `ConfigError` for a size whose model the trainer can't build."""
    for rung in {run.rung.name: run.rung for run in runs}.values():
        place = f"{where}: sizes: {rung.name}"
        if trainer == CORE:
            check_shape(rung, place)
            continue
        try:
            rung.olmo_model()
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None


def run_config(
    study: StudyConfig, run: Run, tokenizer: Path, save_folder: Path, cache: Path
) -> dict[str, Any]:
    """What `olmo-mixlaw train` is told of a run, as a mapping for YAML."""
    write = core_config if study.trainer == CORE else olmo_config
    return write(study, run, tokenizer, save_folder, cache)


def train_run(config: Path) -> tuple[Path, Path | None]:
    """Train a run by its file: its last checkpoint, and the tokenizer if not the one it names."""
    said = schema.read_mapping(config)
    if said.get("trainer") == CORE:
        from olmo_mixlaw.training_core.launch import train as train_on_core

        process.prepare_console()
        return train_on_core(config), Path(said["tokenizer"]["identifier"])
    from olmo_mixlaw.training.launch import train

    checkpoint = Path(train(config))
    return checkpoint, moved_tokenizer(checkpoint)
