"""`mixlaw:` URIs in OLMo's own training scripts, which know nothing of us.

The start-up hook calls `wrap_olmo_data` once `olmo.data` is imported. A configuration without
our URIs goes to OLMo's own functions, untouched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from olmo_mixlaw.datasets.uri import SCHEME, dataset_name, is_uri, parse, take
from olmo_mixlaw.errors import ConfigError

# In the place of a dataset's name: a mixture file, which names its own sources.
MIXTURE = "mixture"
WRAPPED = "_olmo_mixlaw"


def wrap_olmo_data(module: ModuleType) -> None:
    """Let `module` (`olmo.data`) build loaders for configurations that name our URIs.

    Calling it twice does nothing more.
    """
    original = module.build_train_dataloader
    if getattr(original, WRAPPED, False):
        return
    module.build_train_dataloader = _wrapped(original)  # type: ignore[attr-defined]


def _wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def build_train_dataloader(train_config: Any, **kwargs: Any) -> Any:
        if not names_us(train_config.data):
            return original(train_config, **kwargs)
        return build_for_olmo(
            train_config, world_size=kwargs.get("world_size"), rank=kwargs.get("rank")
        )

    setattr(build_train_dataloader, WRAPPED, True)
    return build_train_dataloader


def names_us(data: Any) -> bool:
    """Whether a `data` section has a `mixlaw:` URI."""
    uris = list(data.paths or [])
    for group in (data.datasets or {}).values():
        uris += group
    return any(is_uri(str(uri)) for uri in uris)


def build_for_olmo(config: Any, *, world_size: int | None = None, rank: int | None = None) -> Any:
    """The loader of a plain OLMo `TrainConfig` whose data names our URIs. Raises `MixlawError`."""
    from olmo_mixlaw.mixture.opened import steps_until_exhausted
    from olmo_mixlaw.mixture.schedule import RunLength
    from olmo_mixlaw.training.config import max_steps, sources
    from olmo_mixlaw.training.loader import build_loader
    from olmo_mixlaw.training.sources import open_for

    where = config.run_name or "config"
    n_steps = max_steps(config, where)
    run = RunLength(n_steps, config.global_train_batch_size, config.model.max_sequence_length)
    mixture = open_for(config, *mixture_of(sources(config), where), run, where)
    allowed = steps_until_exhausted(mixture, run)
    if allowed < n_steps:
        raise ConfigError(
            f"{where}: max_duration: the sources end at step {allowed} of {n_steps} "
            "(mixture.repetition is stop); set max_duration to that"
        )
    return build_loader(config, mixture, n_steps, world_size=world_size, rank=rank)


def mixture_of(uris: Mapping[str, Sequence[str]], where: str) -> tuple[Any, dict[str, list[str]]]:
    """The mixture section and the sources that the URIs of a plain OLMo configuration mean.

    Either one URI `mixlaw:mixture?config=FILE` stands for everything, or every source says its
    share in its first URI (`mixlaw:biography?n=64&ratio=0.3`); a single source needs none.
    """
    from olmo_mixlaw.mixture.config import MixtureConfig

    everything = [uri for group in uris.values() for uri in group]
    if any(dataset_name(uri) == MIXTURE for uri in everything):
        if len(everything) != 1:
            raise ConfigError(f"{where}: data: {SCHEME}{MIXTURE} must be the only URI")
        _, values = parse(everything[0], f"{where}: data")
        if set(values) != {"config"}:
            raise ConfigError(
                f"{where}: data: {everything[0]}: expected {SCHEME}{MIXTURE}?config=FILE"
            )
        return MixtureConfig(file=values["config"]), {}
    ratios, stripped = {}, {}
    for label, group in uris.items():
        first, ratio = _without_ratio(group[0], f"{where}: data.datasets.{label}")
        stripped[label] = [first, *group[1:]]
        if ratio is not None:
            ratios[label] = ratio
    if len(uris) == 1 and not ratios:
        return None, stripped
    missing = [label for label in uris if label not in ratios]
    if missing:
        raise ConfigError(
            f"{where}: data.datasets.{missing[0]}: says no share of the mixture; add ratio=0.3 to "
            f"its URI ({SCHEME}text?path=...&ratio=0.3), or name one {SCHEME}{MIXTURE}?config=FILE"
        )
    return MixtureConfig(ratios=ratios), stripped


def _without_ratio(uri: str, where: str) -> tuple[str, float | None]:
    if not is_uri(uri):
        return uri, None
    rest, ratio = take(uri, "ratio", where)
    try:
        return rest, None if ratio is None else float(ratio)
    except ValueError:
        raise ConfigError(f"{where}: ratio: {ratio!r} is not a number") from None
