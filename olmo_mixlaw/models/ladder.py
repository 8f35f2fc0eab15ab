"""Ladders of sizes: a YAML table of shapes, and how each rung is to be trained.

One name gives everything: `load_ladder("micro-dense").rung("w32")` knows its shape, its
counts, its OLMo `model:` section, learning rate, batch, warm-up and tokens. Ladders come with
this package, with other packages (`registry.LADDERS`) and as files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, ExtensionError, complain, unknown_name
from olmo_mixlaw.models import limits
from olmo_mixlaw.models.factories import factory_shape
from olmo_mixlaw.models.limits import Limit
from olmo_mixlaw.models.shape import Shape
from olmo_mixlaw.registry import LADDERS, reason
from olmo_mixlaw.shipped import find_config, shipped_folder

FOLDER = "configs/ladders"

# The rules of OLMo-core's ladder, all relative to a model of 108M parameters
# (arXiv 2411.12925; batch from arXiv 2406.19146). A batch is counted in tokens.
REFERENCE_PARAMS = 108e6
REFERENCE_BATCH = 2048 * 160
REFERENCE_LEARNING_RATE = 0.0047 / 2
CHINCHILLA = 20  # tokens a parameter (arXiv 2203.15556)

# Which count the rungs of a ladder are named after.
NAME_COUNTS = {
    "n_params": "all parameters without embedding tables",
    "n_params_head": "all parameters without the input embedding (OLMo's convention)",
    "n_total": "all parameters with embedding tables",
    "none": "nothing: the names are not sizes",
}


TRAINING_LIMITS = {
    "learning_rate": limits.POSITIVE,
    "batch_sequences": limits.COUNT,
    "warmup_fraction": limits.PART,
    "tokens_per_param": Limit(0, limits.MOST_TOKENS_PER_PARAM, above=True),
    "weight_decay": limits.NOT_NEGATIVE,
    "decay_fraction": Limit(0, 1, above=True),
}


@dataclass
class TrainingRule:
    """How the rungs of a ladder are trained; what is unset follows OLMo-core's ladder rules."""

    learning_rate: float | None = None
    """Peak learning rate; unset: 0.00235 (N / 108e6)^(-1/3), N active parameters."""
    batch_sequences: int | None = None
    """Sequences in a batch; unset: 2048 x 160 (N / 108e6)^(2/3) tokens, in whole sequences."""
    warmup_fraction: float | None = None
    """Share of the steps that warm up; unset: N tokens, a tenth of the run at most."""
    tokens_per_param: float = CHINCHILLA
    """Tokens a non-embedding active parameter at a multiple of 1."""
    weight_decay: float = 0.1
    decay_fraction: float = 0.1
    """Share of the steps over which the learning rate falls to nothing at the end."""


@dataclass(frozen=True)
class Rung(Shape):
    """One size of a ladder: its shape and how it is trained."""

    name: str = ""
    factory: str | None = None
    """The factory of OLMo-core that makes the model, whose shape this is."""
    training: TrainingRule = field(default_factory=TrainingRule)

    def named_counts(self, name_counts: str) -> tuple[int, int]:
        """Total and active parameters as names count them, by a key of `NAME_COUNTS`."""
        extra = {"n_total": self.n_embedding, "n_params_head": self.n_head}.get(name_counts, 0)
        return self.n_params + extra, self.n_active + extra

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        if self.training.learning_rate is not None:
            return self.training.learning_rate
        return REFERENCE_LEARNING_RATE * (self.n_active / REFERENCE_PARAMS) ** (-1 / 3)

    @property
    def weight_decay(self) -> float:
        return self.training.weight_decay

    @property
    def batch_sequences(self) -> int:
        """Sequences in a global batch."""
        if self.training.batch_sequences is not None:
            return self.training.batch_sequences
        tokens = REFERENCE_BATCH * (self.n_active / REFERENCE_PARAMS) ** (2 / 3)
        return max(1, round(tokens / self.context))

    @property
    def batch_tokens(self) -> int:
        return self.batch_sequences * self.context

    def n_steps(self, multiple: float = 1.0) -> int:
        """Whole steps that see `multiple` times the ladder's tokens a parameter."""
        tokens = multiple * self.training.tokens_per_param * self.n_active
        return max(1, math.ceil(tokens / self.batch_tokens))

    def n_tokens(self, multiple: float = 1.0) -> int:
        """Training tokens at a Chinchilla multiple, in whole steps."""
        return self.n_steps(multiple) * self.batch_tokens

    def warmup_steps(self, n_steps: int) -> int:
        """Steps of warm-up in a run of `n_steps`."""
        if self.training.warmup_fraction is not None:
            return round(self.training.warmup_fraction * n_steps)
        return min(math.ceil(self.n_active / self.batch_tokens), n_steps // 10)

    @property
    def step_flops(self) -> float:
        """Operations of one step, a global batch forward and backward."""
        return self.training_flops(self.batch_tokens)

    def training_flops(self, n_tokens: int) -> float:
        """Floating-point operations to train on `n_tokens`."""
        return self.flops_per_token * n_tokens


@dataclass(frozen=True)
class Ladder:
    """Rungs in growing order. `name_counts` says what the sizes in their names count."""

    name: str
    description: str
    rungs: Mapping[str, Rung]
    name_counts: str = "none"

    def rung(self, name: str, where: str = "") -> Rung:
        """The rung called `name`. Raises `UnknownNameError` with the closest one."""
        if name not in self.rungs:
            raise unknown_name(f"rung of ladder {self.name}", name, self.rungs, where)
        return self.rungs[name]

    def warnings(self) -> list[str]:
        """What a law fitted to this ladder could not tell apart, one sentence each."""
        rungs = list(self.rungs.values())
        if len(rungs) < 2 or all(rung.moe is None for rung in rungs):
            return []
        low, high = min(r.sparsity for r in rungs), max(r.sparsity for r in rungs)
        if high / low > TOLD_APART:
            return []
        return [
            f"ladder {self.name}: total over active parameters stays between {low:.1f} and "
            f"{high:.1f} on every rung, so a law fitted to it can't tell total from active "
            "parameters; add rungs with another number of experts, or the dense twins"
        ]


# Total and active parameters whose ratio varies by less than this factor are, on a log
# scale over one or two decades of size, one regressor with a shift.
TOLD_APART = 1.5


@dataclass
class LadderFile:
    """The keys of a ladder's YAML file."""

    description: str = ""
    name_counts: str = "none"
    defaults: dict[str, Any] = field(default_factory=dict)
    training: TrainingRule = field(default_factory=TrainingRule)
    rungs: dict[str, Any] = field(default_factory=dict)


def load_ladder(name: str | Path, where: str = "") -> Ladder:
    """The shipped ladder called `name`, or an installed package's, or the YAML file at that path.

    Every rung is `defaults` with its own keys laid over; `where` (file and key) goes into the
    error for an unknown name. Raises `ConfigError` for a shape that can't be built and for
    rungs that don't grow, `ExtensionError` for a package's ladder that can't be used.
    """
    shipped, path = _shipped(), Path(name)
    if str(name) in shipped:
        _say_if_taken(str(name))
        return _ladder_of_file(shipped[str(name)])
    if str(name) in LADDERS.names():
        return _ladder_of_package(str(name), where)
    if not (path.is_file() or path.suffix or len(path.parts) > 1):
        raise unknown_name("ladder", str(name), {*shipped, *LADDERS.names()}, where)
    return _ladder_of_file(find_config(FOLDER, path, where))


def ladders() -> Iterator[Ladder]:
    """Every ladder with a name: the shipped ones, then those of installed packages.

    A package's ladder that can't be used is left out, aloud.
    """
    shipped = _shipped()
    for path in shipped.values():
        yield _ladder_of_file(path)
    for name in LADDERS.names():
        if name in shipped:
            _say_if_taken(name)
            continue
        try:
            yield _ladder_of_package(name)
        except ExtensionError as error:
            complain(str(error))


def _say_if_taken(name: str) -> None:
    """Says that a package's ladder is left out which is called like the shipped `name`."""
    if name in LADDERS.names():
        _complain_once(f"{LADDERS.owner(name)} is left out: the name is taken by a built-in one")


@cache
def _complain_once(text: str) -> None:
    complain(text)


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(shipped_folder(FOLDER).glob("*.yaml"))}


def _ladder_of_file(path: Path) -> Ladder:
    return _ladder(path.stem, schema.read_mapping(path), str(path))


def _ladder_of_package(name: str, where: str = "") -> Ladder:
    """What an entry point names: a YAML file's path, a mapping with its keys, or a function that
    returns either. Raises `ExtensionError`.
    """
    part = LADDERS.get(name, where)
    owner = f"{where}: {LADDERS.owner(name)}" if where else LADDERS.owner(name)
    if callable(part):
        try:
            part = part()
        except (Exception, SystemExit) as error:
            raise ExtensionError(
                f"{owner} can't be made ({reason(error)}); mend or uninstall that package"
            ) from None
    try:
        if isinstance(part, str | Path):
            return _ladder(name, schema.read_mapping(part), str(part))
        if isinstance(part, Mapping):
            return _ladder(name, part, "its mapping")
    except ConfigError as error:
        raise ExtensionError(f"{owner}: {error}") from None
    raise ExtensionError(
        f"{owner}: is {part!r}; a ladder must be the path of a YAML file, a mapping with its keys "
        "or a function without arguments that returns one of them"
    )


def _ladder(name: str, values: Mapping[str, Any], where: str) -> Ladder:
    file = schema.from_mapping(values, LadderFile, where)
    if file.name_counts not in NAME_COUNTS:
        raise unknown_name("count", file.name_counts, NAME_COUNTS, f"{where}: name_counts")
    if not file.rungs:
        raise ConfigError(f"{where}: rungs: a ladder needs at least one")
    rungs = {}
    for key, own in file.rungs.items():
        place = f"{where}: rungs.{key}"
        if not isinstance(own, dict):
            raise ConfigError(f"{place}: expected a mapping of keys, found {own!r}")
        merged = _laid_over(file.defaults, own)
        if "factory" in merged and "d_model" not in merged:
            shape = factory_shape(str(merged["factory"]), f"{place}.factory")
            merged = _laid_over(shape, merged)
        rule = merged.pop("training", {})
        if not isinstance(rule, dict):
            raise ConfigError(f"{place}.training: expected a mapping of keys, found {rule!r}")
        training = _laid_over(vars(file.training), rule)
        rung = schema.from_mapping(
            {**merged, "training": training, "name": str(key)}, Rung, where=place
        )
        rung.check(place)
        limits.check(rung.training, TRAINING_LIMITS, f"{place}.training")
        limits.check_decay(
            rung.learning_rate, rung.weight_decay, "weight_decay", f"{place}.training"
        )
        rungs[str(key)] = rung
    _check_growth(list(rungs.values()), where)
    return Ladder(name, file.description.strip(), rungs, file.name_counts)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the keys of `above` over it, also inside nested mappings."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            value = _laid_over(under, value)
        result[key] = value
    return result


def _check_growth(rungs: list[Rung], where: str) -> None:
    """Raise `ConfigError` unless total and active parameters both grow from rung to rung."""
    for small, large in itertools.pairwise(rungs):
        for key, what in (("n_params", "all"), ("n_active", "active")):
            before, after = getattr(small, key), getattr(large, key)
            if after <= before:
                raise ConfigError(
                    f"{where}: rungs.{large.name}: the ladder doesn't grow: {after:,} {what} "
                    f"parameters (without embeddings) after {before:,} in {small.name}; "
                    "list the rungs from small to large"
                )


def short(count: float, zeros: bool = False) -> str:
    """A count in three digits, as people write it: 2M, 98.4k; with `zeros` 2.00M, for columns."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            value = count / size
            digits = "#.3g" if zeros else ".3g"
            return f"{value:{digits if value < 999.5 else '.0f'}}".removesuffix(".") + unit
    return f"{count:.3g}"
