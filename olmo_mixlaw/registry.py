"""Names of datasets, laws, schedules and ladders, resolved only when asked for.

A registry maps a name to `module:attribute`, the form of an entry point, so that built-in
and third-party parts are found the same way and nothing is imported before it is used. A
package adds a dataset with one line of its pyproject:

    [project.entry-points."olmo_mixlaw.datasets"]
    poems = "my_package.poems:Poems"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from olmo_mixlaw.errors import unknown_name


class Registry:
    """Named parts of one kind: those built in and those of installed packages.

    A built-in name can't be taken over by a package: the built-in part wins.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._local: dict[str, Any] = {}

    @cached_property
    def _installed(self) -> dict[str, str]:
        return {point.name: point.value for point in entry_points(group=self.group)}

    def names(self) -> list[str]:
        return sorted({*self._installed, *self._builtin, *self._local})

    def add(self, name: str, part: Any) -> None:
        """Register `part` for this process only (a notebook, a test)."""
        self._local[name] = part

    def get(self, name: str, where: str = "") -> Any:
        """The part called `name`; `where` (file and key) goes into the error.

        Raises `UnknownNameError` with the closest known name.
        """
        if name in self._local:
            return self._local[name]
        target = self._builtin.get(name) or self._installed.get(name)
        if target is None:
            raise unknown_name(self.kind, name, self.names(), where)
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)


DATASETS = Registry(
    "dataset",
    "olmo_mixlaw.datasets",
    {
        "biography": "olmo_mixlaw.datasets.biography:Biography",
        "max_over_n": "olmo_mixlaw.datasets.max_over_n:MaxOverN",
        "slope": "olmo_mixlaw.datasets.slope:Slope",
        "table": "olmo_mixlaw.datasets.table:Table",
        "text": "olmo_mixlaw.datasets.text:Text",
    },
)

LAWS = Registry(
    "law",
    "olmo_mixlaw.laws",
    {
        "no_mixture": "olmo_mixlaw.laws.formulas.no_mixture:NoMixture",
        "transfer": "olmo_mixlaw.laws.formulas.transfer:Transfer",
        "power_transfer": "olmo_mixlaw.laws.formulas.transfer:PowerTransfer",
        "modulated": "olmo_mixlaw.laws.formulas.modulated:Modulated",
        "kriging": "olmo_mixlaw.laws.learners.kriging:Kriging",
        "regmix": "olmo_mixlaw.laws.learners.regmix:RegMix",
        "regimes": "olmo_mixlaw.laws.learners.regimes:Regimes",
        "stack": "olmo_mixlaw.laws.learners.stack:Stack",
        "competition": "olmo_mixlaw.laws.formulas.competition:Competition",
        "competition_noise": "olmo_mixlaw.laws.formulas.competition:CompetitionNoise",
        "camel_shares": "olmo_mixlaw.laws.formulas.camel:CamelShares",
        "camel_dual": "olmo_mixlaw.laws.formulas.camel:CamelDual",
        "camel_hybrid": "olmo_mixlaw.laws.formulas.camel:CamelHybrid",
        "two_pool": "olmo_mixlaw.laws.formulas.transfer:TwoPool",
        "additive": "olmo_mixlaw.laws.formulas.additive:Additive",
        "joint": "olmo_mixlaw.laws.formulas.additive:Joint",
        "interaction": "olmo_mixlaw.laws.formulas.interaction:Interaction",
        "exponential": "olmo_mixlaw.laws.formulas.exponential:Exponential",
        "log_linear": "olmo_mixlaw.laws.formulas.exponential:LogLinear",
        "bimix": "olmo_mixlaw.laws.formulas.bimix:BiMix",
        "autoscale": "olmo_mixlaw.laws.formulas.autoscale:AutoScale",
    },
)

SCHEDULES = Registry(
    "schedule",
    "olmo_mixlaw.schedules",
    {
        "constant": "olmo_mixlaw.mixture.schedule:Constant",
        "stages": "olmo_mixlaw.mixture.schedule:Stages",
        "csv": "olmo_mixlaw.mixture.schedule:Stages",
        "linear": "olmo_mixlaw.mixture.schedule:Linear",
        "cosine": "olmo_mixlaw.mixture.schedule:Cosine",
        "exponential": "olmo_mixlaw.mixture.schedule:Exponential",
        "from_law": "olmo_mixlaw.advice.schedule:FromLaw",
    },
)
