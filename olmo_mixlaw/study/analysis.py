"""From a study's table to its answer: fits, choice of law, proposed mixture."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from olmo_mixlaw import advice, laws
from olmo_mixlaw.advice.goal import MeanLoss
from olmo_mixlaw.advice.verdict import CURRENT, Verdict, measured_best, tried_mixtures, verdicts
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.differences import Differences
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, interval, predicted_interval, widened
from olmo_mixlaw.models.ladder import Rung
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.collect import target_tokens
from olmo_mixlaw.study.places import TOKENIZER
from olmo_mixlaw.study.plan import Run, rung_of, whole_batches
from olmo_mixlaw.study.scoring import questions, recalls
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.trainers import run_config

REPLICATES = 100  # refits to resampled runs, behind every interval
LEVEL = 0.9  # how many of them an interval holds
FILE = "proposed.yaml"
LEARNT = 0.5  # the recall that counts as having learnt the facts


@dataclass(frozen=True)
class Answer:
    """The chosen law's fit, the comparison that chose it, and the mixture it proposes.

    The intervals are the central 90 % over refits to resampled runs: of the best mixture (K,),
    and of the losses (T,) at the proposed one. `verdicts` say whether that is better than the best
    mixture tried and, where the study names it, than the current one.
    """

    fits: dict[str, laws.Fit]
    comparison: laws.Comparison
    proposal: advice.Optimum
    ratio_interval: tuple[np.ndarray, np.ndarray]
    loss_interval: tuple[np.ndarray, np.ndarray]
    rung: Rung
    n_tokens: int
    left_out: list[str]  # a note on each law that these runs can't carry
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def chosen(self) -> str:
        return self.comparison.choice


def answer_of(study: StudyConfig, table: RunTable) -> Answer:
    """Fits of every law asked for, the choice among them and the best mixture for the target.

    A law that these runs can't carry is left out. Raises `FitError` if none is left.
    """
    fits: dict[str, laws.Fit] = {}
    left_out, tokens = [], target_tokens(study, table)
    for name in study.laws:
        try:
            fits[name] = laws.fit(name, table, available=tokens)
        except FitError as error:
            left_out.append(f"law {name} is left out: {error}")
    if not fits:
        raise FitError(f"{study.output}: no law can be fitted to these runs; {'; '.join(left_out)}")
    comparison = laws.compare(table, list(fits))
    rung = rung_of(study, study.target.size)
    _, n_tokens = whole_batches(study.target.tokens, rung)

    def best(fit: laws.Fit, starts: int, refits: list[laws.Fit]) -> advice.Optimum:
        return advice.optimum(
            fit, rung.n_params, n_tokens, starts=starts, refits=refits, **study.target.limits
        )

    chosen, design = fits[comparison.choice], table.design()
    if (between := Differences.measured(chosen, design)) is not None:
        chosen = fits[comparison.choice] = between.kept_by(chosen)
    refits = list(bootstrap(chosen, design, replicates=REPLICATES))
    proposal = best(chosen, 8, refits)
    ratios = np.array([best(fit, 2, []).ratios for fit in refits])
    where = (proposal.ratios, rung.n_params, n_tokens)
    low, high = predicted_interval(chosen, *where, level=LEVEL)
    losses = np.array([fit.predict(*where)[0] for fit in refits])
    return Answer(
        fits,
        comparison,
        proposal,
        interval(ratios, LEVEL),
        widened((low[0], high[0]), losses, LEVEL),
        rung,
        n_tokens,
        left_out,
        _verdicts(study, table, chosen, proposal, refits),
    )


def _verdicts(
    study: StudyConfig,
    table: RunTable,
    fit: laws.Fit,
    proposal: advice.Optimum,
    refits: list[laws.Fit],
) -> list[Verdict]:
    """Whether the proposal is better than the best mixture tried, and than the current one."""
    design, target = table.design(), study.target
    tried = tried_mixtures(table)
    goal = MeanLoss.of(target.weights or None, design.targets)
    return verdicts(
        fit,
        proposal,
        tried=tried,
        measured=measured_best(design, tried, goal),
        current=_current(study),
        refits=refits,
        at=target.size,
        cautions=past_the_cliff(study, table, proposal),
        **target.limits,
    )


def _current(study: StudyConfig) -> tuple[str, np.ndarray] | None:
    """The mixture (K,) that the study calls the current one, and what a sentence calls it."""
    current = study.target.current
    if current is None:
        return None
    named = isinstance(current, str)
    ratios = study.mixtures[current] if named else current
    called = f"{current}, {CURRENT}" if named else CURRENT
    return called, np.array([ratios.get(domain, 0.0) for domain in study.domains])


def write_proposal(study: StudyConfig, answer: Answer, output: Path, file: str = FILE) -> Path:
    """The target run under the proposed mixture, as a YAML that `olmo-mixlaw train` takes."""
    steps, n_tokens = whole_batches(study.target.tokens, answer.rung)
    ratios = answer.proposal.mixture(decimals=4)
    run = Run("proposed", answer.rung, "proposed", ratios, n_tokens, steps, study.seeds[0])
    output = output.resolve()
    tokenizer = output / TOKENIZER
    config = run_config(study, run, tokenizer, output / Path(file).stem, tokenizer.parent)
    comment = (
        f"# The mixture that {answer.chosen} proposes for {study.target.size} from the study "
        f"{study.name!r}.\n# Train it: olmo-mixlaw train {shlex.quote(str(output / file))}\n"
    )
    values = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return write_text(output / file, comment + values)


def knowledge(study: StudyConfig, table: RunTable) -> list[tuple[str, str]]:
    """The (domain, task) pairs whose recall was scored."""
    scored = set(table.scores.loc[table.scores["metric"] == "exact_match", "task"])
    names = [(domain, str(task["metadata"]["alias"])) for domain, task in recalls(study)]
    return [(domain, task) for domain, task in names if task in scored]


def recall_by_size(table: RunTable, domain: str, task: str) -> pd.DataFrame:
    """Mean recall, a row a size and a column a ratio of `domain`."""
    scores = table.scores[
        (table.scores["task"] == task) & (table.scores["metric"] == "exact_match")
    ].set_index("run_id")["value"]
    runs = table.losses.drop_duplicates("run_id").set_index("run_id")
    frame = pd.DataFrame(
        {"size": runs["n_params"], "ratio": runs[f"w_{domain}"], "recall": scores}
    ).dropna()
    return frame.pivot_table(index="size", columns="ratio", values="recall")


def learning_bracket(recall: pd.Series) -> tuple[float | None, float | None]:
    """The sampled ratios between which recall first passes one half.

    The first is None if the least ratio is past it, the second if none is.
    """
    below: float | None = None
    for ratio, value in recall.dropna().sort_index().items():
        if value >= LEARNT:
            return below, float(ratio)
        below = float(ratio)
    return below, None


def learning_ratio(recall: pd.Series) -> str:
    """The same in words."""
    below, above = learning_bracket(recall)
    if above is None:
        return f"above {below:g}: not reached"
    return f"between {below:g} and {above:g}" if below is not None else f"at or below {above:g}"


def warnings(study: StudyConfig, table: RunTable, answer: Answer) -> list[str]:
    """What the proposal doesn't show by itself: reaching too far, and the cliff of knowledge."""
    unsure = [answer.comparison.no_answer] if answer.comparison.no_answer else []
    cliffs = past_the_cliff(study, table, answer.proposal)
    return [*unsure, *answer.left_out, *answer.proposal.warnings, *cliffs]


def past_the_cliff(study: StudyConfig, table: RunTable, proposal: advice.Optimum) -> list[str]:
    """A caution for each domain whose facts the proposal has too little of to be learnt."""
    said = []
    for domain, task in knowledge(study, table):
        recall = recall_by_size(table, domain, task)
        if recall.empty:
            continue
        largest = recall.iloc[-1]
        below, _ = learning_bracket(largest)
        ratio = proposal.mixture()[domain]
        if below is not None and ratio <= below:
            said.append(
                f"{domain} at {ratio:.2f} is short of the ratio at which the largest model trained "
                f"recalls half of the facts ({learning_ratio(largest)}; {task}); loss alone does "
                f"not show that cliff, and only a run says whether {study.target.size} is past it"
            )
    return said


def guessing_floor(study: StudyConfig, domain: str) -> float:
    """What answering at random among each question's choices would score; 0 if unknown."""
    chances = [1 / len(q.choices) if q.choices else 0.0 for q in questions(study, domain)]
    return float(np.mean(chances)) if chances else 0.0
