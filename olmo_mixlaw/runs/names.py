"""What the name of a column says: a loss, a score, bookkeeping, or nearly a name that we know.

Rules over names alone, so that a reader can check them; where they don't decide, the values and
then the user are asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from olmo_mixlaw.errors import DataError

ID_COLUMNS = ("run_id", "run", "name", "index", "id")
LOSS_WORDS = {"loss", "ce", "nll", "xent", "entropy"}
BITS_WORDS = {"bpb", "bits"}
SCORE_WORDS = {
    *("acc", "accuracy", "em", "match", "f1", "score", "recall", "precision"),
    *("bleu", "rouge", "mcc", "auc", "win", "winrate", "pass"),
}
PERPLEXITY_WORDS = {"ppl", "perplexity"}
# What trackers export beside metrics.
BOOKKEEPING = {
    *("step", "steps", "global_step", "epoch", "tokens", "n_tokens", "num_tokens", "tokens_seen"),
    *("total_tokens", "runtime", "timestamp", "time", "created", "created_at", "seed", "lr"),
    *("learning_rate", "size", "n_params", "num_params", "params", "flops", "duration"),
    *("grad_norm", "batch_size", "wall_clock", "n_active", "split", "fold"),
}
# `train/` is the loss on the run's own mixture: no target, as it differs from run to run.
BOOKKEEPING_STARTS = ("_", "throughput/", "system/", "optim/", "perf/", "train/", "lr/")
BOOKKEEPING_ENDS = ("__min", "__max")

PREFIXES = ("metric/", "metrics/", "eval/", "valid_", "valid/", "val_", "val/", "validation_")
ENDINGS = ("loss", "ce", "nll", "bpb", "bits_per_byte", "val", "valid", "validation", "eval")
# Names near ours, with case, spaces and dashes taken out.
SYNONYMS = {
    "n_params": {
        *("params", "parameters", "n_parameters", "num_params", "num_parameters", "model_size"),
        *("size", "total_params", "n_total", "nparams", "non_embedding_params", "n_non_embedding"),
    },
    "n_tokens": {
        *("tokens", "num_tokens", "train_tokens", "n_train_tokens", "tokens_seen", "ntokens"),
        *("total_tokens", "token_budget", "training_tokens"),
    },
}
ACTIVE = re.compile(r"(^|_)(n_?)?activ(e|ated)(_|$)|(^|_)n_act(_|$)")


def words(column: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", column.lower()))


def is_bookkeeping(column: str) -> bool:
    name = column.lower()
    return (
        name in BOOKKEEPING
        or name.startswith(BOOKKEEPING_STARTS)
        or name.endswith(BOOKKEEPING_ENDS)
        or name.startswith("unnamed:")
    )


def not_a_loss(column: str) -> str:
    """Why a column can't be a loss by its name, and nothing where it may be one."""
    said = words(column)
    if said & PERPLEXITY_WORDS:
        return "a perplexity"
    if said & SCORE_WORDS and not said & (LOSS_WORDS | BITS_WORDS):
        return "a score: higher is better"
    return ""


def domain_of(column: str, domains: Iterable[str]) -> str:
    """The target that a column holds: a domain of the mixture where it is one without affixes."""
    known = set(domains)
    if column in known:
        return column
    for name in _shorter(column):
        if name in known:
            return name
    return stripped(column)


def stripped(column: str) -> str:
    """A column without the affixes that RegMix's files have."""
    name = column.removeprefix("metric/").removesuffix("/loss").removesuffix("_val")
    for prefix in ("train_", "valid_"):
        name = name.removeprefix(prefix)
    return name


def _shorter(column: str) -> list[str]:
    """Every name that is left when affixes are taken off, one after the other."""
    found, todo = [column], [column]
    while todo:
        name = todo.pop()
        for short in (
            *(name.removeprefix(p) for p in (*PREFIXES, "train_")),
            *(re.sub(rf"[/_ :.-]{end}$", "", name, flags=re.IGNORECASE) for end in ENDINGS),
        ):
            if short and short not in found:
                found.append(short)
                todo.append(short)
    return found


def near_domains(targets: Sequence[str], domains: Sequence[str]) -> dict[str, str]:
    """Targets that are no domain, but whose name holds that of a domain without a target."""
    free = {d: _plain(d) for d in domains if d not in targets and len(_plain(d)) > 2}
    found = {}
    for target in targets:
        if target not in domains:
            holding = [d for d, plain in free.items() if _holds(_plain(target), plain)]
            if len(holding) == 1:
                found[target] = holding[0]
    # A few may be tasks that are named after a domain; half of them are a naming scheme.
    return found if 2 * len(found) >= len(targets) else {}


def _holds(long: str, short: str) -> bool:
    return re.search(rf"(^|_){re.escape(short)}(_|$)", long) is not None


def refuse_synonyms(frame: pd.DataFrame, source: str) -> None:
    """Ask about a column named nearly like a count that the table lacks. Raises `DataError`."""
    plain: Mapping[str, str] = {str(c): _plain(str(c)) for c in frame.columns}
    for ours, others in SYNONYMS.items():
        if ours not in frame:
            for column, name in plain.items():
                if name in others:
                    _ask(source, column, ours)
    if "n_active" not in frame:
        for column, name in plain.items():
            if ACTIVE.search(name) and pd.api.types.is_numeric_dtype(frame[column]):
                _ask(source, column, "n_active")


def _ask(source: str, column: str, ours: str) -> None:
    raise DataError(
        f"{source}: column {column!r} may be {ours}, which the table lacks: call it {ours}, or "
        "leave it out"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
