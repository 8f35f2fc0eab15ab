"""What the options of `design` name: sources, sizes, prices, and what was run already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.cli.counts import counted
from olmo_mixlaw.cli.options import given_table, pairs
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import load_ladder

if TYPE_CHECKING:
    from olmo_mixlaw.advice.design import Candidates
    from olmo_mixlaw.advice.design.offer import Offered
    from olmo_mixlaw.advice.design.prices import Prices
    from olmo_mixlaw.runs import Design
    from olmo_mixlaw.study.settings import StudyConfig


@dataclass(frozen=True, eq=False)
class Given:
    """What the options name: sources, sizes, what was run, prices, and the study if any."""

    domains: list[str]
    sizes: list[Offered]
    seen: Design | None
    prices: Prices
    budget: float
    study: StudyConfig | None
    available: dict[str, float]
    n_tokens: float

    @classmethod
    def of(cls, options: Mapping[str, Any], n_params: float, n_tokens: float, budget: str) -> Given:
        """Raises `ConfigError`, `DataError`."""
        from olmo_mixlaw.advice.design.offer import of_ladder, of_table
        from olmo_mixlaw.advice.design.prices import Prices, parse_budget

        amount, unit = parse_budget(budget)
        study = None
        if options["study_path"]:
            from olmo_mixlaw.study.config import load_study

            study = load_study(options["study_path"])
        seen = None
        if options["table"] or options["ratios"]:
            seen = given_table(options).design()
        domains = _domains(options["domains"], study, seen)
        ladder = options["ladder"] or (study.ladder if study is not None else None)
        if options["rung"] and ladder is None:
            raise ConfigError("--rung: needs --ladder")
        if ladder is not None:
            found = load_ladder(ladder, "--ladder")
            if not all(multiple > 0 for multiple in options["multiple"]):
                raise ConfigError("--multiple: must be above 0")
            sizes = of_ladder(found, options["rung"], options["multiple"], n_params)
        elif seen is not None:
            sizes = of_table(seen, n_params)
        else:
            raise ConfigError(
                "give a --ladder of sizes to choose from, or a table of runs (--table)"
            )
        speeds = pairs(options["tokens_per_second"], "--tokens-per-second", counted)
        named = {size.name: size.n_params for size in sizes}
        prices = Prices(
            unit,
            options["gpu_flops"],
            options["utilisation"],
            options["dollars_per_gpu_hour"],
            {named.get(name) or counted(name): speed for name, speed in speeds.items()},
            options["fixed_cost"],
        )
        tokens = pairs(options["available"], "--available", counted)
        return cls(domains, sizes, seen, prices, amount, study, tokens, n_tokens)

    def weights_of(
        self, given: tuple[str, ...], goal_file: str | None, named: list[str] | None
    ) -> dict[str, float] | None:
        """Weights of the targets: given, of a goal file, or the study's. Raises `ConfigError`."""
        if goal_file is None:
            study = dict(self.study.target.weights) if self.study is not None else {}
            return pairs(given, "--target-weight") or study or None
        if given:
            raise ConfigError("--goal: says every weight; leave out --target-weight")
        from olmo_mixlaw.advice.families import Families
        from olmo_mixlaw.cli.objective import weighed

        known = named or (self.domains if self.seen is None else self.seen.targets)
        return weighed(Families.load(goal_file), None, known)[1]

    def offered(self, options: Mapping[str, Any], seed: int) -> tuple[Candidates, list[Offered]]:
        """The candidates, and the size of each. Raises `ConfigError`."""
        from olmo_mixlaw.advice.design.offer import draw_mixtures, offer
        from olmo_mixlaw.advice.simplex import bounds_of

        low, high = pairs(options["at_least"], "--at-least"), pairs(options["at_most"], "--at-most")
        if self.study is not None:
            low, high = self.study.target.lower | low, self.study.target.upper | high
        if options["max_epochs"] is not None and not self.available:
            raise ConfigError("--max-epochs: needs --available")
        least, most = bounds_of(
            self.domains, low, high, self.available or None, options["max_epochs"], self.n_tokens
        )
        prior = self._prior(pairs(options["prior"], "--prior"))
        mixtures = draw_mixtures(options["n_mixtures"], prior, least, most, seed)
        return offer(
            self.domains,
            self.sizes,
            mixtures,
            self.prices,
            available=self.available or None,
            target_tokens=self.n_tokens,
            repeatable=options["repeat"],
        )

    def _prior(self, given: dict[str, float]) -> np.ndarray:
        from olmo_mixlaw.laws.weights import named

        if given:
            prior = named(given, self.domains, "domain", "--prior", 0.0)
            lacking = [name for name in self.domains if name not in given]
            if lacking or prior.sum() <= 0:
                raise ConfigError(
                    f"--prior: domain {(lacking or self.domains)[0]!r} is missing; give every one"
                )
            return prior / prior.sum()
        if self.seen is not None:
            return self.seen.ratios.mean(0)
        return np.full(len(self.domains), 1 / len(self.domains))

    def targets_of(self, named: tuple[str, ...]) -> list[str] | None:
        """The losses that runs will have, where no table says so: those named, or the domains."""
        return list(named) if named and self.seen is None else None

    def available_array(self) -> np.ndarray | None:
        from olmo_mixlaw.laws.repetition import available_of

        return available_of(self.available, self.domains) if self.available else None

    def batch_of(self, text: str | None) -> float:
        """What a batch may cost. Raises `ConfigError` for another unit than the budget's."""
        from olmo_mixlaw.advice.design.prices import parse_budget

        if text is None:
            return self.budget / 5
        amount, unit = parse_budget(text, "--batch")
        if unit != self.prices.unit:
            raise ConfigError(f"--batch: {text!r} is in {unit}, the budget in {self.prices.unit}")
        return amount

    def price_of(self, n_params: float, n_active: float, n_tokens: float) -> float | None:
        """The price of the run at the target; None where nobody says how long that takes."""
        flops = np.array([6 * n_active * n_tokens])
        try:
            return float(self.prices.of(np.array([n_params]), np.array([n_tokens]), flops)[0])
        except ConfigError:
            return None


def _domains(given: str | None, study: StudyConfig | None, seen: Design | None) -> list[str]:
    """The sources. Raises `ConfigError` where nobody names them, or two do and differ."""
    named = [name.strip() for name in given.split(",") if name.strip()] if given else []
    known = [
        (where, list(names))
        for where, names in (
            ("--domains", named),
            ("the table", seen.domains if seen is not None else []),
            ("the study", study.domains if study is not None else []),
        )
        if names
    ]
    if not known:
        raise ConfigError("--domains: name the sources (web,code,...), or give a table (--table)")
    first = known[0]
    for where, names in known[1:]:
        if set(names) != set(first[1]):
            raise ConfigError(
                f"{first[0]} has the domains {', '.join(first[1])}, {where} {', '.join(names)}"
            )
    if len(set(first[1])) != len(first[1]):
        raise ConfigError(f"--domains: {given}: a name stands there twice")
    if len(first[1]) < 2:
        raise ConfigError("--domains: a mixture needs two sources or more")
    # A table's order is that of its columns.
    return next((names for where, names in known if where == "the table"), first[1])
