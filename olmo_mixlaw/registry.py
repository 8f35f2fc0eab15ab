"""Names of datasets, laws, schedules, ladders and tasks, resolved only when asked for.

A registry maps a name to `module:attribute`, the form of an entry point, so that built-in
and third-party parts are found the same way and nothing is imported before it is used. A
package adds a dataset with one line of its pyproject:

    [project.entry-points."olmo_mixlaw.datasets"]
    poems = "my_package.poems:Poems"

`docs/example_extension` adds one of each kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from olmo_mixlaw.errors import ExtensionError, complain, unknown_name


class Registry:
    """Named parts of one kind: those built in and those of installed packages.

    `base` (module:class) is what a part must be a subclass of; with `functions` it may be a
    function. With neither it may be anything. A built-in name can't be taken over by a package:
    the built-in part wins.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        builtin: Mapping[str, str],
        *,
        base: str = "",
        functions: bool = False,
    ) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._functions = functions
        self._builtin = {name: EntryPoint(name, value, group) for name, value in builtin.items()}
        self._local: dict[str, Any] = {}

    @cached_property
    def _installed(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name; those of built-in names are left out, aloud."""
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if point.name in self._builtin:
                complain(
                    f"{self.kind} {point.name!r} of package {_package(point)!r} is left out: "
                    "the name is taken by a built-in one"
                )
            else:
                found.setdefault(point.name, []).append(point)
        return found

    def names(self) -> list[str]:
        """Every name, whether or not its part can be loaded."""
        return sorted({*self._installed, *self._builtin, *self._local})

    def installed(self) -> list[str]:
        """Names of the parts that packages bring."""
        return sorted(self._installed)

    def add(self, name: str, part: Any) -> None:
        """Register `part` for this process only (a notebook, a test)."""
        self._local[name] = part

    def owner(self, name: str) -> str:
        """`law 'x' of package 'y'`, as errors say it; without a package where none brings it."""
        points = () if name in self._local else self._installed.get(name, ())
        package = f" of package {_package(points[0])!r}" if points else ""
        return f"{self.kind} {name!r}{package}"

    def get(self, name: str, where: str = "") -> Any:
        """The part called `name`; `where` (file and key) goes into the error.

        Raises `UnknownNameError` with the closest known name, and `ExtensionError` for a part of
        a package that can't be loaded, isn't what its kind must be, or has a name that another
        package has too.
        """
        place = f"{where}: " if where else ""
        if name in self._local:
            return self._checked(self._local[name], place + self.owner(name))
        points = self._installed.get(name)  # says aloud who wanted a built-in name
        if name in self._builtin:
            return self._builtin[name].load()
        if not points:
            raise unknown_name(self.kind, name, self.names(), where)
        owner = place + self.owner(name)
        if len(points) > 1:
            others = ", ".join(repr(_package(point)) for point in points[1:])
            raise ExtensionError(f"{owner}: {others} has one of that name too; uninstall one")
        try:
            part = points[0].load()
        except (Exception, SystemExit) as error:
            raise ExtensionError(
                f"{owner} can't be loaded ({reason(error)}); mend or uninstall that package"
            ) from None
        return self._checked(part, owner)

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Every (name, part) that can be used; a package's that can't is left out, aloud."""
        for name in [*self._builtin, *sorted({*self._installed, *self._local} - {*self._builtin})]:
            try:
                yield name, self.get(name)
            except ExtensionError as error:
                complain(str(error))

    def name_of(self, part: Any) -> str | None:
        """The name under which `get` finds `part`, None where it has none."""
        for name, known in self._local.items():
            if known is part:
                return name
        value = f"{part.__module__}:{part.__qualname__}"
        for name, point in self._builtin.items():
            if point.value == value:
                return name
        return next((name for name in self._installed if self._is(name, part)), None)

    def _is(self, name: str, part: Any) -> bool:
        try:
            return self.get(name) is part
        except ExtensionError:
            return False

    def _checked(self, part: Any, owner: str) -> Any:
        accepted = []
        good = not self._base and not self._functions
        if self._base:
            accepted.append("a subclass of " + self._base.replace(":", "."))
            base = EntryPoint("base", self._base, self.group).load()
            good = isinstance(part, type) and issubclass(part, base)
        if self._functions:
            accepted.append("a function")
            good = good or (callable(part) and not isinstance(part, type))
        if not good:
            found = " ".join(repr(part).split())
            raise ExtensionError(
                f"{owner}: is {found}; a {self.kind} must be {' or '.join(accepted)}"
            )
        if inspect.isabstract(part):
            lacking = ", ".join(sorted(part.__abstractmethods__))
            raise ExtensionError(f"{owner}: lacks what every {self.kind} must have: {lacking}")
        return part


def _package(point: EntryPoint) -> str:
    name = point.dist.name if point.dist is not None else None
    return name or point.value.partition(":")[0]


def reason(error: BaseException) -> str:
    """What went wrong in a package, in one line; some import errors have many."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


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
    base="olmo_mixlaw.datasets.base:Dataset",
    functions=True,
)

LAWS = Registry(
    "law",
    "olmo_mixlaw.laws",
    {
        "no_mixture": "olmo_mixlaw.laws.formulas.no_mixture:NoMixture",
        "transfer": "olmo_mixlaw.laws.formulas.transfer:Transfer",
        "power_transfer": "olmo_mixlaw.laws.formulas.transfer:PowerTransfer",
        "shared_power": "olmo_mixlaw.laws.formulas.shared_power:SharedPower",
        "shrunk_powers": "olmo_mixlaw.laws.formulas.shared_power:ShrunkPowers",
        "modulated": "olmo_mixlaw.laws.formulas.modulated:Modulated",
        "kriging": "olmo_mixlaw.laws.learners.kriging:Kriging",
        "cokriging": "olmo_mixlaw.laws.learners.cokriging:CoKriging",
        "regmix": "olmo_mixlaw.laws.learners.regmix:RegMix",
        "regmix_fast": "olmo_mixlaw.laws.learners.regmix:FastRegMix",
        "regimes": "olmo_mixlaw.laws.learners.regimes:Regimes",
        "two_fidelity": "olmo_mixlaw.laws.learners.two_fidelity:TwoFidelity",
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
    base="olmo_mixlaw.laws.law:Law",
)

# Where nobody says which law: one with few parameters that knows mixtures, one that knows none, and
# one of each kind for a comparison.
DEFAULT_LAW = "transfer"
# What `fit` takes when it is asked for no law: on tables of several sizes or budgets, and of one.
SCALES_LAW, ONE_SCALE_LAW = "modulated", "shared_power"
PLAIN_LAW = "no_mixture"
COMPARED_LAWS = (
    "no_mixture",
    "log_linear",
    "transfer",
    "power_transfer",
    "shared_power",
    "additive",
    "modulated",
    "competition_noise",
    "kriging",
    "cokriging",
    "stack",
)

# A stack's, the laws that share most between targets first. Processes over different formulas err
# differently where they extrapolate, and so do trees.
STACKED_LAWS = (
    "shared_power",
    "shrunk_powers",
    "cokriging",
    "cokriging:shared_power",
    "power_transfer",
    "cokriging:modulated",
    "kriging:modulated",
    "kriging:additive",
    "kriging:two_pool",
    "regimes",
    "regmix_fast",
    "competition_noise",
)
# A study's, which fits them again and again.
STUDIED_LAWS = ("no_mixture", "additive", "transfer")

SCHEDULES = Registry(
    "schedule",
    "olmo_mixlaw.schedules",
    {
        "constant": "olmo_mixlaw.mixture.schedule:Constant",
        "stages": "olmo_mixlaw.mixture.schedule:Stages",
        "csv": "olmo_mixlaw.mixture.schedule:Csv",
        "linear": "olmo_mixlaw.mixture.schedule:Linear",
        "cosine": "olmo_mixlaw.mixture.schedule:Cosine",
        "exponential": "olmo_mixlaw.mixture.schedule:Exponential",
        "from_law": "olmo_mixlaw.advice.schedule:FromLaw",
    },
    base="olmo_mixlaw.mixture.schedule:Schedule",
    functions=True,
)

# A ladder of a package is a path to its YAML file, or a mapping with the same keys.
LADDERS = Registry("ladder", "olmo_mixlaw.ladders", {})

TASKS = Registry(
    "task",
    "olmo_mixlaw.tasks",
    {
        "bio_recall": "olmo_mixlaw.evaluation.families:BioRecall",
        "bio_recall:gen": "olmo_mixlaw.evaluation.families:BioRecallGeneration",
        "bio_recall:mc": "olmo_mixlaw.evaluation.families:BioRecallChoice",
        "bio_recall:bpb": "olmo_mixlaw.evaluation.families:BioRecallBits",
        "bio_recall:birth_date": "olmo_mixlaw.evaluation.families:BioRecallBirthDate",
        "bio_recall:birth_city": "olmo_mixlaw.evaluation.families:BioRecallBirthCity",
        "bio_recall:university": "olmo_mixlaw.evaluation.families:BioRecallUniversity",
        "bio_recall:major": "olmo_mixlaw.evaluation.families:BioRecallMajor",
        "bio_recall:employer": "olmo_mixlaw.evaluation.families:BioRecallEmployer",
        "fact_recall": "olmo_mixlaw.evaluation.families:FactRecall",
        "fact_recall:gen": "olmo_mixlaw.evaluation.families:FactRecallGeneration",
        "fact_recall:mc": "olmo_mixlaw.evaluation.families:FactRecallChoice",
        "fact_recall:bpb": "olmo_mixlaw.evaluation.families:FactRecallBits",
        "max_over_n": "olmo_mixlaw.evaluation.families:MaxOverNSolution",
        "max_over_n:forced": "olmo_mixlaw.evaluation.families:MaxOverNForced",
        "max_over_n:bpb": "olmo_mixlaw.evaluation.families:MaxOverNBits",
        "slope": "olmo_mixlaw.evaluation.families:SlopeSolution",
        "slope:forced": "olmo_mixlaw.evaluation.families:SlopeForced",
        "slope:bpb": "olmo_mixlaw.evaluation.families:SlopeBits",
        "domain_loss": "olmo_mixlaw.evaluation.held_out:DomainLoss",
        "domain_loss:documents": "olmo_mixlaw.evaluation.held_out:DocumentLoss",
    },
    base="olmo_mixlaw.evaluation.tasks:Task",
)
