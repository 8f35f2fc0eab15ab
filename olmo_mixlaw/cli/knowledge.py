"""`olmo-mixlaw knowledge`: will facts in a mixture be learned, and does a sweep show a jump?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.counts import COUNT
from olmo_mixlaw.cli.options import check_figure, grouped
from olmo_mixlaw.errors import ConfigError

if TYPE_CHECKING:
    from olmo_mixlaw.advice.knowledge.barrier import Barrier
    from olmo_mixlaw.advice.knowledge.facts import Facts
    from olmo_mixlaw.advice.knowledge.rule import Rule

FIGURE = click.option("--figure", default=None, metavar="FILE", help="Draw it (PNG, SVG, PDF).")


@click.group()
def knowledge() -> None:
    """Predict whether facts will be learned, and detect transitions in sweeps."""


@knowledge.command()
@click.argument("facts")
@click.option("--ratio", type=float, required=True, help="Ratio of the facts, by tokens.")
@click.option("--n-params", type=COUNT, required=True, help="Parameters, embeddings included.")
@click.option("--n-tokens", type=COUNT, required=True, help="Tokens of the run, all domains.")
@click.option(
    "--bits", type=float, help="Bits of a fact. Default: counted, or a biography's 45.59."
)
@click.option(
    "--tokens-each", type=float, help="Tokens that show a fact. Default: counted, or 100."
)
@click.option("--tuple-tokens", type=float, help="Tokens of a fact as a bare tuple.")
@click.option("--tokenizer", default=None, metavar="FILE", help="What a dataset is counted with.")
@click.option(
    "--accuracy", default=0.5, show_default=True, help="Part of the facts that counts as learned."
)
@click.option(
    "--sure", default=0.9, show_default=True, help="Probability that advice is chosen for."
)
@click.option("--warm", is_flag=True, help="The run starts from a model that knows the facts.")
@click.option(
    "--barrier",
    default=None,
    metavar="LOW,HIGH,SWEEPS",
    help="What your own cold sweeps needed over the rule's odds, from LOW to HIGH times in so many "
    "sweeps. Default: 1.4,2.3,3, from a pilot.",
)
@click.option(
    "--runs",
    default=None,
    metavar="TABLE",
    help="A RunTable with runs on --web alone (three sizes or more) and on --domain alone: the "
    "rule is made of them, with an interval.",
)
@click.option("--web", default="web", show_default=True, help="The other text in --runs.")
@click.option("--domain", default="bio", show_default=True, help="The facts in --runs.")
@click.option(
    "--runs-facts",
    default=None,
    metavar="FACTS",
    help="What --domain is in --runs, where it isn't FACTS: more of them, so that none holds all.",
)
@FIGURE
@answers
def plan(
    answer: Answer,
    facts: str,
    ratio: float,
    n_params: float,
    n_tokens: float,
    bits: float | None,
    tokens_each: float | None,
    tuple_tokens: float | None,
    tokenizer: str | None,
    accuracy: float,
    sure: float,
    warm: bool,
    barrier: str | None,
    runs: str | None,
    web: str,
    domain: str,
    runs_facts: str | None,
    figure: str | None,
) -> None:
    """Say whether FACTS will be learned, and what it would take.

    FACTS is their number (300k), or a dataset such as biography?n=300000.
    """
    from olmo_mixlaw.advice.knowledge import facts as known_facts
    from olmo_mixlaw.advice.knowledge.barrier import PILOT
    from olmo_mixlaw.advice.knowledge.plan import document
    from olmo_mixlaw.advice.knowledge.plan import plan as make_plan
    from olmo_mixlaw.advice.knowledge.texts import plan_text

    check_figure(figure)
    by = tokenizer or known_facts.TOKENIZER
    what = known_facts.facts_of(facts, bits, tokens_each, tuple_tokens, by)
    seen = known_facts.facts_of(runs_facts, tokenizer=by) if runs_facts else what
    found = make_plan(
        what,
        ratio=ratio,
        n_params=n_params,
        n_tokens=n_tokens,
        accuracy=accuracy,
        sure=sure,
        rule=_rule(runs, web, domain, seen, n_params),
        barrier=_barrier(barrier) if barrier else PILOT,
        warm=warm,
    )
    answer.document = document(found)
    answer.show(plan_text(found))
    if figure:
        from olmo_mixlaw.report import knowledge_figures, law_figures

        print(f"drew {law_figures.save(knowledge_figures.plan_figure(found), figure)}")


@knowledge.command()
@click.argument("runs")
@click.option("--domain", default="bio", show_default=True, help="The domain with the facts.")
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="AXIS",
    help="ratio, size or time; repeat it. Default: all.",
)
@click.option("--task", default="", help="Whose recall counts, where several tasks tell it.")
@click.option(
    "--level", default=0.4, show_default=True, help="Recall that counts as known, for the time."
)
@FIGURE
@answers
def detect(
    answer: Answer,
    runs: str,
    domain: str,
    axes: tuple[str, ...],
    task: str,
    level: float,
    figure: str | None,
) -> None:
    """Judge the sweeps in RUNS, a RunTable: is there a jump, or a steep smooth curve?"""
    from olmo_mixlaw.advice.knowledge import detect as judge
    from olmo_mixlaw.advice.knowledge.detect import document
    from olmo_mixlaw.advice.knowledge.outlook import check_part
    from olmo_mixlaw.advice.knowledge.sweep import AXES
    from olmo_mixlaw.advice.knowledge.texts import detect_text

    check_figure(figure)
    check_part(level, "level")
    found = judge(runs, domain, axes=axes or tuple(AXES), task=task, level=level)
    answer.document = document(found)
    answer.show(detect_text(found))
    if figure:
        from olmo_mixlaw.report import knowledge_figures, law_figures

        print(f"drew {law_figures.save(knowledge_figures.detect_figure(found), figure)}")


@knowledge.command()
@click.argument("items")
@click.option("--target", default=0.6, show_default=True, help="Accuracy that must be kept.")
@click.option("--failures", default=5, show_default=True, help="Levels below it that end the walk.")
@answers
def popularity(answer: Answer, items: str, target: float, failures: int) -> None:
    """Find the popularity above which ITEMS are known.

    ITEMS is a CSV or Parquet file with columns popularity (counts) and correct (0 to 1).
    """
    from pathlib import Path

    from olmo_mixlaw.advice.knowledge import threshold_popularity
    from olmo_mixlaw.runs.frames import numbers, read_frame

    frame = read_frame(Path(items))
    for column in ("popularity", "correct"):
        if column not in frame:
            raise ConfigError(
                f"{items}: no column {column!r} (it has: {', '.join(frame.columns)}); add "
                + (
                    "how often each item occurs"
                    if column == "popularity"
                    else "whether it was right"
                )
            )
    found = threshold_popularity(
        numbers(frame, "popularity", items), numbers(frame, "correct", items), target, failures
    )
    answer.document = {
        "popularity": found.popularity,
        "items": found.items,
        "accuracy": found.accuracy,
        "verdict": found.verdict or None,
    }
    if found.verdict:
        answer.show(found.verdict)
    else:
        answer.show(
            f"known from a popularity of {found.popularity:,.6g} up: {found.items:,} items, "
            f"{found.accuracy:.1%} right"
        )


def _rule(runs: str | None, web: str, domain: str, facts: Facts, n_params: float) -> Rule | None:
    """The rule of a table's pure runs; None for the published one."""
    if runs is None:
        return None
    from olmo_mixlaw.advice.knowledge import Rule, storage_of, web_of
    from olmo_mixlaw.runs import RunTable

    table = RunTable.load(runs)
    return Rule(web_of(table, web, n_params), storage_of(table, domain, facts))


def _barrier(text: str) -> Barrier:
    from olmo_mixlaw.advice.knowledge import Barrier

    try:
        low, high, count = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--barrier: expected LOW,HIGH,SWEEPS, found {text!r}") from None
    return Barrier(low, high, int(count), "given")


LEARN = (
    click.option(
        "--learn",
        multiple=True,
        metavar="DOMAIN>=PART",
        help="Give a domain of facts (--facts) the ratio that teaches at least this part of them: "
        "its least ratio is raised to that. Needs --n-params and --n-tokens.",
    ),
    click.option(
        "--facts",
        multiple=True,
        metavar="DOMAIN=FACTS",
        help="The facts of a domain: their number (300k), or a dataset (biography?n=300000).",
    ),
    click.option(
        "--learn-sure",
        default=0.9,
        show_default=True,
        help="Probability with which --learn must be kept.",
    ),
)


# `--learn`, `--facts` and `--learn-sure`, for a command that finds a mixture.
learn_options = grouped(LEARN)


def learned_ratios(
    options: Mapping[str, Any], n_params: float, n_tokens: float
) -> dict[str, float]:
    """The least ratio of every domain in `--learn`; empty without. Raises `ConfigError`."""
    if not (options["learn"] or options["facts"]):
        return {}
    from olmo_mixlaw.advice.knowledge.goals import learning_ratios

    return learning_ratios(
        options["learn"], options["facts"], n_params, n_tokens, options["learn_sure"]
    )
