"""What is damaged, and what a command would do with it as far as nothing is trained or fitted.

Each subject makes a good input once in a folder, and reads a damaged one. All values are invented.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import mutate
import yaml

ROOT = Path(__file__).parents[2]
STUDY = {
    "name": "tiny",
    "output": "out",
    "ladder": "micro-dense",
    "sizes": ["w16", "w32"],
    "tokens": [40_000],
    "domains": {"code": "mixlaw:slope?seed=3", "bio": "mixlaw:biography?n=8&seed=1&templates=1"},
    "mixtures": {
        "low": {"code": 0.8, "bio": 0.2},
        "mid": {"code": 0.5, "bio": 0.5},
        "high": {"code": 0.3, "bio": 0.7},
    },
    "laws": ["no_mixture", "transfer"],
    "tokenizer": {"vocab_size": 512, "characters": 200_000},
    "evaluation": {"tasks": ["bio_recall"], "heldout_tokens": 4096},
    "target": {"size": "w64", "tokens": 40_000, "bounds": {"bio": [0.1, 0.9]}},
    "seeds": [1],
    "workers": 2,
}
LADDER = {
    "description": "two",
    "name_counts": "none",
    "defaults": {"n_layers": 2, "n_heads": 2, "context": 64, "mlp_size": 64},
    "training": {"tokens_per_param": 20, "batch_sequences": 8},
    "rungs": {"a": {"d_model": 16}, "b": {"d_model": 32, "training": {"weight_decay": 0.2}}},
}
MIXTURE = {
    "schedule": {
        "name": "cosine",
        "units": "fraction",
        "knots": [
            {"at": 0.0, "ratios": {"x": 0.75, "y": 0.25}},
            {"at": 1.0, "ratios": {"x": 0.5, "y": 0.5}},
        ],
    },
    "repetition": "repeat",
    "block_size": 64,
}
RECIPE = {
    "table": "runs.csv",
    "law": "transfer",
    "n_params": 1e8,
    "n_tokens": 2e9,
    "path": ["1e8,2e9", "3e8,6e9"],
    "at_most": {"x": 0.5},
    "bootstrap": 20,
    "laws": ["transfer", "additive"],
}
WIDE = {
    "file": "wide.csv",
    "run_id": "name",
    "n_params": "size",
    "n_tokens": "4e9",
    "unit": "nats",
    "weights": {"x": "p_x", "y": "p_y"},
    "losses": {"x": "loss_x", "y": "loss_y"},
}
WIDE_CSV = """name,size,p_x,p_y,loss_x,loss_y
a,1e7,0.25,0.75,3.25,2.5
b,1e7,0.5,0.5,3.0,2.75
c,4e7,0.25,0.75,2.75,2.25
"""
SUITE = {"description": "two", "tasks": ["bio_recall", {"task_name": "bio_recall:mc", "limit": 3}]}
LOSSES = """run_id,n_params,n_tokens,seed,w_x,w_y,domain,loss
a,10000,200000,1,0.25,0.75,x,3.5
a,10000,200000,1,0.25,0.75,y,1.5
b,10000,200000,1,0.5,0.5,x,3.25
b,10000,200000,1,0.5,0.5,y,1.75
c,40000,200000,1,0.75,0.25,x,2.5
c,40000,200000,1,0.75,0.25,y,2.25
"""
SCORES = """run_id,task,metric,value,n_instances,stderr
a,recall,exact_match,0.25,40,0.05
b,recall,exact_match,0.5,40,0.05
"""
RATIOS = "run,name,x,y\n1,a,0.25,0.75\n2,b,0.5,0.5\n3,c,0.75,0.25\n"
METRICS = "run,name,x/loss,y/loss\n1,a,3.5,1.5\n2,b,3.25,1.75\n3,c,3.0,2.0\n"
RECORD = {
    "task_name": "recall",
    "task_hash": "t",
    "model_hash": "m",
    "model_config": {"model": "tiny"},
    "current_date": "2026-02-03 04:05:06 UTC",
    "task_config": {"primary_metric": "acc_raw", "metadata": {"alias": "recall::x"}},
    "num_instances": 4,
    "metrics": {"acc_raw": 0.25, "primary_score": 0.25, "extra_metrics": {"num_tokens": 3.0}},
    "task_idx": 0,
}
HARNESS = {
    "results": {"piqa": {"alias": "piqa", "acc,none": 0.625, "acc_stderr,none": 0.01}},
    "n-samples": {"piqa": {"original": 40, "effective": 40}},
    "n-shot": {"piqa": 0},
    "higher_is_better": {"piqa": {"acc": True}},
    "configs": {"piqa": {"task": "piqa", "num_fewshot": 0}},
    "config": {"model": "hf", "model_args": "pretrained=tiny"},
    "date": 1.75e9,
    "model_name": "tiny",
}
URIS = (
    "mixlaw:biography?n=8&seed=1&templates=2&compact=0.25",
    "mixlaw:slope?seed=3",
    "mixlaw:max_over_n?n=4&seed=2",
    "mixlaw:table?path={folder}/facts.csv&name=name",
    "mixlaw:text?path={folder}/text.txt&heldout=0.25",
)
OVERRIDES = ("workers=3", "target.size=w32", "mixtures.low.bio=0.2", "seeds=[1,2]", "tokens=40k")


@dataclass(frozen=True)
class Subject:
    """`make` writes the damaged input and says what is wrong with it; `read` is the command."""

    name: str
    share: int  # of 100 inputs
    make: Callable[[random.Random, Path], str]
    read: Callable[[Path], Any]


def _file(name: str, seed: dict[str, Any], dump: Callable[[Any], str]) -> Any:
    """Damages one file: mostly its values, at times its letters."""

    def make(rng: random.Random, folder: Path) -> str:
        if rng.random() < 0.3:
            data, said = mutate.text(rng, dump(seed))
            (folder / name).write_bytes(data)
        else:
            made, said = mutate.values(rng, seed)
            (folder / name).write_text(dump(made), encoding="utf-8")
        return said

    return make


def _yaml(name: str, seed: dict[str, Any]) -> Any:
    return _file(name, seed, lambda v: yaml.safe_dump(v, allow_unicode=True, sort_keys=False))


def _csv(name: str, seed: str) -> Any:
    def make(rng: random.Random, folder: Path) -> str:
        if rng.random() < 0.3:
            data, said = mutate.text(rng, seed)
            (folder / name).write_bytes(data)
        else:
            made, said = mutate.cells(rng, seed)
            (folder / name).write_text(made, encoding="utf-8")
        return said

    return make


def prepare(folder: Path) -> None:
    """The good files that stand beside a damaged one."""
    texts = {
        "wide.csv": WIDE_CSV,
        "runs.csv": LOSSES,
        "losses.csv": LOSSES,
        "ratios.csv": RATIOS,
        "metrics.csv": METRICS,
        "facts.csv": "name,colour\nAda,red\nBo,blue\nCy,green\n",
        "text.txt": "\n\n".join(f"one two three {i}" for i in range(40)),
        "study.yaml": yaml.safe_dump(STUDY, sort_keys=False),
        "wide.yaml": yaml.safe_dump(WIDE, sort_keys=False),
    }
    for name, value in texts.items():
        (folder / name).write_text(value, encoding="utf-8")


def _study(folder: Path) -> Any:
    from olmo_mixlaw.study.config import load_study

    return load_study(folder / "study.yaml")


def _overrides(rng: random.Random, folder: Path) -> str:
    prepare(folder)
    good = rng.choice(OVERRIDES)
    made = mutate.text(rng, good)[0].decode(errors="replace")
    if rng.random() < 0.5:
        made = f"{good.partition('=')[0]}={rng.choice(mutate.ODD)}"
    (folder / "override").write_text(made, encoding="utf-8")
    return repr(made[:100])


def _overridden(folder: Path) -> Any:
    from olmo_mixlaw.study.config import load_study

    text = (folder / "override").read_text(encoding="utf-8")
    return load_study(folder / "study.yaml", (text,))


def _ladder(folder: Path) -> Any:
    from olmo_mixlaw.models.ladder import load_ladder

    found = load_ladder(folder / "ladder.yaml")
    return [
        (r.n_params, r.learning_rate, r.batch_sequences, r.n_steps()) for r in found.rungs.values()
    ]


def _mixture(folder: Path) -> Any:
    from olmo_mixlaw.mixture.config import MixtureConfig, resolve

    return resolve(MixtureConfig(file=str(folder / "mixture.yaml")), "fuzz")


def _train(folder: Path) -> Any:
    from olmo_mixlaw.training.config import check, load, max_steps
    from olmo_mixlaw.training.schedulers import check_scheduler

    config = load(folder / "train.yaml")
    check(config, "train.yaml", 1, False)
    check_scheduler(config, "train.yaml")
    return max_steps(config, "train.yaml")


def _train_seed() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "train" / "micro.yaml").read_text(encoding="utf-8"))


def _recipe(folder: Path) -> Any:
    from olmo_mixlaw.cli.recipe import load_recipe

    return load_recipe(folder / "recipe.yaml")


def _wide(folder: Path) -> Any:
    from olmo_mixlaw.runs.importers import wide_table

    return wide_table(folder / "wide.yaml").design()


def _suite(folder: Path) -> Any:
    from olmo_mixlaw.evaluation.catalog import resolve

    return [task.name for task in resolve([str(folder / "suite.yaml")])]


def _table(folder: Path) -> Any:
    from olmo_mixlaw.runs import RunTable

    return RunTable.load(folder).design()


def _swarm(folder: Path) -> Any:
    from olmo_mixlaw.runs.importers import load_table

    table = load_table(None, str(folder / "ratios.csv"), str(folder / "metrics.csv"))
    return table.design()


def _fit(folder: Path) -> Any:
    import numpy as np

    from olmo_mixlaw.laws import Fit

    return Fit.load(folder / "fit.json").predict(np.array([[0.5, 0.5]]), 2e4, 2e5)


def _fit_seed() -> dict[str, Any]:
    import io

    import pandas as pd

    from olmo_mixlaw import laws
    from olmo_mixlaw.runs import RunTable

    return laws.fit("no_mixture", RunTable(pd.read_csv(io.StringIO(LOSSES)))).to_json()


def _scores(folder: Path) -> Any:
    from olmo_mixlaw.evaluation import read_scores

    return read_scores(folder / "out")


def _in_out(make: Any) -> Any:
    """The same in a folder `out` of its own."""

    def inside(rng: random.Random, folder: Path) -> str:
        (folder / "out").mkdir(exist_ok=True)
        return make(rng, folder / "out")

    return inside


def _uri(rng: random.Random, folder: Path) -> str:
    prepare(folder)
    made, said = mutate.uri(rng, rng.choice(URIS).format(folder=folder))
    (folder / "uri").write_text(made, encoding="utf-8")
    return said


def _dataset(folder: Path) -> Any:
    from olmo_mixlaw.datasets import open_dataset

    dataset = open_dataset((folder / "uri").read_text(encoding="utf-8"), "fuzz")
    return list(islice(dataset.documents(), 2)), dataset.questions()[:2]


def _status(folder: Path) -> Any:
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.progress import last_step, seconds_of
    from olmo_mixlaw.study.run import check_same_study

    check_same_study(load_study(folder / "study.yaml"), folder)
    last_step(folder)
    return seconds_of(folder)


def _run_folder(rng: random.Random, folder: Path) -> str:
    prepare(folder)
    shared = {key: STUDY[key] for key in ("ladder", "domains", "tokenizer", "evaluation")}
    done = {"seconds": {"train": 3.5, "evaluate": 1.25}}
    (folder / "run.json").write_text(json.dumps(done))
    (folder / "shared.json").write_text(json.dumps(shared))
    (folder / "checkpoints").mkdir(exist_ok=True)
    metrics = "step,loss\n1,3.5\n2,3.25\n"
    which = rng.choice(("run.json", "shared.json", "metrics.csv"))
    if which == "metrics.csv":
        return _csv("metrics.csv", metrics)(rng, folder / "checkpoints")
    return (
        which
        + ": "
        + _file(which, done if which == "run.json" else shared, json.dumps)(rng, folder)
    )


SUBJECTS = [
    Subject("study", 16, _yaml("study.yaml", STUDY), _study),
    Subject("override", 6, _overrides, _overridden),
    Subject("ladder", 8, _yaml("ladder.yaml", LADDER), _ladder),
    Subject("mixture", 6, _yaml("mixture.yaml", MIXTURE), _mixture),
    Subject("train", 8, _yaml("train.yaml", _train_seed()), _train),
    Subject("recipe", 5, _yaml("recipe.yaml", RECIPE), _recipe),
    Subject("wide", 5, _yaml("wide.yaml", WIDE), _wide),
    Subject("wide_csv", 4, _csv("wide.csv", WIDE_CSV), _wide),
    Subject("suite", 3, _yaml("suite.yaml", SUITE), _suite),
    Subject("losses", 10, _csv("losses.csv", LOSSES), _table),
    Subject("scores", 3, _csv("scores.csv", SCORES), _table),
    Subject("ratios", 3, _csv("ratios.csv", RATIOS), _swarm),
    Subject("metrics", 3, _csv("metrics.csv", METRICS), _swarm),
    Subject("fit", 4, _file("fit.json", _fit_seed(), json.dumps), _fit),
    Subject("outputs", 6, _in_out(_file("metrics-all.jsonl", RECORD, json.dumps)), _scores),
    Subject("harness", 3, _in_out(_file("results_1.json", HARNESS, json.dumps)), _scores),
    Subject("uri", 10, _uri, _dataset),
    Subject("run_folder", 3, _run_folder, _status),
]
