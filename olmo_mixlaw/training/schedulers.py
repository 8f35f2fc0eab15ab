"""Learning-rate schedules by name: OLMo's own, ours, and those of installed packages.

A schedule is a function `(config: MixSchedulerConfig, n_params: int) -> olmo.optim.Scheduler`.
"""

from __future__ import annotations

from dataclasses import dataclass

from olmo.optim import Scheduler
from olmo.optim import build_scheduler as build_stock

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.registry import Registry
from olmo_mixlaw.training.config import STOCK_SCHEDULERS, MixSchedulerConfig, MixTrainConfig

LR_SCHEDULES = Registry(
    "learning-rate schedule",
    "olmo_mixlaw.lr_schedules",
    {
        "wsd": "olmo_mixlaw.training.schedulers:wsd",
        "ladder": "olmo_mixlaw.training.schedulers:ladder",
    },
    functions=True,
)


@dataclass
class WarmupStableDecay(Scheduler):
    """Warm-up, a constant rate, and a straight fall over the last `decay_fraction` of the run.

    The rate ends at `alpha_f` times its peak. Steps and `warmup` are in the scheduler's units.
    """

    warmup: int
    decay_fraction: float
    alpha_f: float

    def get_lr(self, initial_lr: float, step: int, max_steps: int) -> float:
        if step < self.warmup:
            return self._linear_warmup(initial_lr, step, self.warmup)
        start = max(self.warmup, max_steps * (1 - self.decay_fraction))
        if step <= start:
            return initial_lr
        gone = min(1.0, (step - start) / (max_steps - start)) if max_steps > start else 1.0
        return initial_lr * (1 - (1 - self.alpha_f) * gone)


def wsd(config: MixSchedulerConfig, n_params: int) -> Scheduler:
    """Warm-up over `t_warmup`, decay over the last fifth unless `decay_fraction` says other."""
    return _stable(config, int(config.t_warmup), 0.2)


def ladder(config: MixSchedulerConfig, n_params: int) -> Scheduler:
    """The rule of OLMo's model ladders: warm up over as many tokens as there are parameters
    outside the embeddings, decay over the last tenth. Needs `units: tokens`."""
    if config.units != "tokens":
        raise ConfigError("scheduler.units: the ladder schedule counts tokens; set units: tokens")
    return _stable(config, n_params, 0.1)


def _stable(config: MixSchedulerConfig, warmup: int, decay: float) -> WarmupStableDecay:
    fraction = decay if config.decay_fraction is None else config.decay_fraction
    if not 0 < fraction <= 1:
        raise ConfigError(f"scheduler.decay_fraction: {fraction:g}; it must be above 0, up to 1")
    steps = config.grad_clip_warmup_steps
    return WarmupStableDecay(
        grad_clip_warmup_steps=None if steps is None else int(steps),
        grad_clip_warmup_factor=config.grad_clip_warmup_factor,
        warmup_min_lr=config.warmup_min_lr,
        warmup=warmup,
        decay_fraction=fraction,
        alpha_f=config.alpha_f,
    )


def check_scheduler(config: MixTrainConfig, where: str) -> None:
    """Raise `ConfigError` for a schedule that isn't known or can't be built."""
    name = config.scheduler.name
    known = [*LR_SCHEDULES.names(), *STOCK_SCHEDULERS]
    if name not in known:
        raise unknown_name("learning-rate schedule", name, known, f"{where}: scheduler.name")
    try:
        build_scheduler(config, n_params=1)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def build_scheduler(config: MixTrainConfig, n_params: int) -> Scheduler:
    """The learning-rate schedule that `config.scheduler` names."""
    if config.scheduler.name in STOCK_SCHEDULERS:
        return build_stock(config)
    return LR_SCHEDULES.get(config.scheduler.name)(config.scheduler, n_params)
