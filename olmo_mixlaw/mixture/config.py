"""The `mixture:` section of a training file, and a mixture in a file of its own.

Plain dataclasses, read strictly: what they don't name is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.mixture.schedule import Constant, Sampled, Schedule, ScheduleConfig, arguments
from olmo_mixlaw.registry import SCHEDULES
from olmo_mixlaw.shipped import find_config

REPETITION = ("repeat", "stop", "refuse")


@dataclass
class MixtureConfig:
    """In what proportion of tokens the sources come: fixed `ratios`, or a `schedule`."""

    ratios: dict[str, float] | None = None
    schedule: ScheduleConfig | None = None
    file: str | None = None
    """A mixture in a YAML file of its own (a path, or a name in configs/mixtures)."""

    sources: dict[str, list[str]] | None = None
    """Source URIs by label, in a mixture file that stands for a whole mixture."""

    repetition: str | None = None
    """What a finite source does after `max_epochs`: `repeat` without limit (the default where
    `max_epochs` isn't given), `refuse` the run before it starts (the default where it is), or
    `stop` the run there."""

    max_epochs: float | None = None
    source_epochs: dict[str, float] = field(default_factory=dict)
    """`max_epochs` of single sources."""

    source_tokens: dict[str, float] = field(default_factory=dict)
    """Tokens that single sources are cut to, chosen at random, so that they repeat sooner."""

    source_share: float | None = None
    """Part that all other finite sources are cut to: with D / D_target, a run of D tokens repeats
    as a target of D_target will."""

    block_size: int = 256
    """Examples in which the ratios are met to within one example."""

    seed: int | None = None
    """Of the order of examples; else data.seed, else seed."""

    cache_dir: str | None = None
    """Where tokenised text is kept, to be shared by runs."""

    allow_change: bool = False
    """Resume a checkpoint of a run whose mixture was another one."""

    def limit(self, label: str) -> float | None:
        """The epochs that `label` may give, None for as many as it takes."""
        if self.repetition == "repeat":
            return None
        default = self.max_epochs
        if default is None and self.repetition is not None:
            default = 1.0
        return self.source_epochs.get(label, default)


def read_mixture(name: str, where: str) -> tuple[MixtureConfig, Path]:
    """The mixture file called `name` and its path; `where` says which file and key asked."""
    path = find_config("configs/mixtures", name, where)
    return schema.load(path, MixtureConfig), path


def resolve(config: MixtureConfig, where: str) -> tuple[MixtureConfig, str]:
    """`config` with what its `file` says filled in, and where errors should point.

    A key that is set both here and in the file is refused.
    """
    if config.file is None:
        return config, where
    base, path = read_mixture(config.file, f"{where}.file")
    if base.file is not None:
        raise ConfigError(f"{path}: file: a mixture file can't name another one")
    plain = MixtureConfig()
    for item in fields(MixtureConfig):
        here = getattr(config, item.name)
        if item.name == "file" or here == getattr(plain, item.name):
            continue
        if getattr(base, item.name) != getattr(plain, item.name):
            raise ConfigError(f"{where}.{item.name}: is also set in {path}; keep one of the two")
        setattr(base, item.name, here)
    return base, str(path)


def check(config: MixtureConfig, labels: Sequence[str], where: str) -> None:
    """Raise `ConfigError` for values that contradict each other or name no source."""
    if (config.ratios is None) == (config.schedule is None):
        both = "both are given" if config.ratios is not None else "neither is given"
        raise ConfigError(f"{where}: needs either ratios or schedule; {both}")
    if config.repetition is not None and config.repetition not in REPETITION:
        raise unknown_name("repetition", config.repetition, REPETITION, f"{where}.repetition")
    if config.block_size < 1:
        raise ConfigError(f"{where}.block_size: {config.block_size}; it must be at least 1")
    limits: dict[str, float | None] = {
        "max_epochs": config.max_epochs,
        "source_share": config.source_share,
    }
    if config.source_share is not None and config.source_share > 1:
        raise ConfigError(f"{where}.source_share: {config.source_share:g}; it is a part of 1")
    for label, epochs in config.source_epochs.items():
        if label not in labels:
            raise unknown_name("source", label, labels, f"{where}.source_epochs")
        limits[f"source_epochs.{label}"] = epochs
    for label, tokens in config.source_tokens.items():
        if label not in labels:
            raise unknown_name("source", label, labels, f"{where}.source_tokens")
        limits[f"source_tokens.{label}"] = tokens
    for key, limit in limits.items():
        if limit is not None and not limit > 0:
            raise ConfigError(f"{where}.{key}: {limit:g}; it must be above 0")
    if config.repetition == "repeat" and (config.max_epochs or config.source_epochs):
        raise ConfigError(
            f"{where}.repetition: repeat sets no limit, but max_epochs does; say refuse or stop"
        )


def build_schedule(
    config: MixtureConfig,
    labels: Sequence[str],
    where: str = "mixture",
    *,
    n_params: int | None = None,
) -> Schedule:
    """The schedule that `config` describes, for sources `labels`.

    `n_params` (non-embedding) is the size of the run's model, where it is known.
    Raises `ConfigError` naming file and key.
    """
    names = tuple(labels)
    check(config, names, where)
    if config.schedule is None:
        assert config.ratios is not None
        return Constant(names, where, config.ratios)
    plan, place = config.schedule, f"{where}.schedule"
    part = SCHEDULES.get(plan.name, f"{place}.name")
    if not hasattr(part, "build"):
        return Sampled(names, place, part, arguments(part, plan, place))
    return part.build(plan, names, place, n_params=n_params)
