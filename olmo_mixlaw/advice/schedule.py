"""Ratios by a fitted law: the mixture that it finds best for the size and tokens of this run.

This is where the flow closes: what earlier runs taught decides what the next one sees. The law
is read when the schedule is built, and only then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo_mixlaw.advice.optimum import Limits, optimum
from olmo_mixlaw.errors import ConfigError, MixlawError, complain, unknown_name
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.mixture.schedule import Constant, Pieces, RunLength, Schedule

# What `optimum` understands, by its own names, and a YAML can say.
OPTIONS = tuple(name for name in Limits.__annotations__ if name != "objective")


@dataclass(frozen=True, kw_only=True)
class FromLaw(Schedule):
    """The optimum of the law fitted in the file `fit`, held for the whole run.

    `n_params` (non-embedding) is this run's size; `options` go to `advice.optimum`.
    """

    fit: str
    n_params: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def ratios(self, run: RunLength) -> dict[str, float]:
        """The best ratios by label. Raises `ConfigError` for a law of other sources."""
        for key in self.options:
            if key not in OPTIONS:
                raise unknown_name("option", key, OPTIONS, f"{self.where}.options")
            _check_numbers(self.options[key], f"{self.where}.options.{key}")
        if not Path(self.fit).exists():
            raise ConfigError(f"{self.where}.fit: {self.fit}: no such file")
        law = Fit.load(self.fit)
        self._check_sources(law.domains)
        size = float("nan") if self.n_params is None else float(self.n_params)
        try:
            best = optimum(law, size, float(run.n_tokens), **self.options)
        except MixlawError as error:
            raise type(error)(f"{self.where}: {error}") from None
        if best.no_answer:
            complain(f"{self.where}.fit: {self.fit}: {best.no_answer}")
        return best.mixture()

    def pieces(self, run: RunLength) -> Pieces:
        return Constant(self.labels, self.where, self.ratios(run)).pieces(run)

    def _check_sources(self, domains: Sequence[str]) -> None:
        for domain in domains:
            if domain not in self.labels:
                raise ConfigError(
                    f"{self.where}.fit: the law in {self.fit} mixes {', '.join(domains)}; "
                    f"this run has no source {domain!r} (it has: {', '.join(self.labels)})"
                )
        for label in self.labels:
            if label not in domains:
                raise ConfigError(
                    f"{self.where}.fit: the law in {self.fit} knows nothing of source {label!r} "
                    f"(it knows: {', '.join(domains)})"
                )


def _check_numbers(value: Any, where: str) -> None:
    """Refuse what isn't a number, or a mapping of names to numbers; YAML reads `2e9` as text."""
    for name, one in value.items() if isinstance(value, Mapping) else [("", value)]:
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            key = f"{where}.{name}" if name else where
            raise ConfigError(f"{key}: expected a number such as 2.0e+9, found {one!r}")
