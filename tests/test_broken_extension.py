"""Packages that add parts that can't be used: they are named, and break nothing else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from law_tables import grid, table_of, transfer_losses
from site_of_packages import MICRO, PLANNED, Site

ROOT = Path(__file__).parents[1]
STANDIN = ROOT / "tests" / "evaluation" / "standin"
# What packages may get wrong, in every group that they can add to.
KINDS = {
    "dataset": "text",
    "law": "transfer",
    "schedule": "linear",
    "ladder": "micro-dense",
    "task": "bio_recall",
}
MISFITS = """
from olmo_mixlaw.datasets.base import Dataset
from olmo_mixlaw.evaluation.tasks import Task
from olmo_mixlaw.laws import Law
from olmo_mixlaw.laws.formulas.transfer import Transfer
from olmo_mixlaw.mixture.schedule import Schedule

ODD = "a string"

class Half:
    class dataset(Dataset): pass
    class law(Law): pass
    class schedule(Schedule): pass
    class task(Task): pass
    ladder = {"rungs": {}}

class Whole:
    class Good(Transfer):
        name = "good"
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Packages that can't be loaded, bring what is no part or a part by half, or take names."""
    folder = tmp_path_factory.mktemp("broken")
    packages = {
        "bent": {kind: {"bent": "nowhere_at_all:Bent"} for kind in KINDS},
        "misfit": {
            kind: {"odd": "misfit_parts:ODD", "half": f"misfit_parts:Half.{kind}"} for kind in KINDS
        },
        "greedy": {kind: {name: "greedy_parts:Mine"} for kind, name in KINDS.items()},
        "nested": {"law": {"good": "misfit_parts:Whole.Good", "twin": "misfit_parts:Whole.Good"}},
        "second": {"law": {"twin": "misfit_parts:Whole.Good"}},
    }
    for package, points in packages.items():
        info = folder / "site" / f"{package}_parts-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}-parts\n")
        lines = []
        for kind, values in points.items():
            lines.append(f"[olmo_mixlaw.{kind}s]")
            lines += [f"{name} = {value}" for name, value in values.items()]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / "site" / "misfit_parts.py").write_text(MISFITS)
    design = transfer_losses(grid(sizes=2, mixtures=4, domains=2), noise=0.003)
    table_of(design).save(folder / "table")
    return Site(folder / "site", folder)


def left_out(done: subprocess.CompletedProcess) -> list[str]:
    """What a command that works complains of: `bent-parts: ladder bent`, in order."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told = [line.split("'") for line in done.stderr.splitlines() if "olmo-mixlaw: " in line]
    return sorted(f"{words[3]}: {words[0].split()[1]} {words[1]}" for words in told)


def of_all(kind: str) -> list[str]:
    """Every part of this kind that can't be used."""
    misfit = [f"misfit-parts: {kind} {name}" for name in ("half", "odd")]
    return [f"bent-parts: {kind} bent", f"greedy-parts: {kind} {KINDS[kind]}", *misfit]


def test_what_lists_parts_names_the_broken_ones_and_lists_the_others(broken: Site) -> None:
    listed = broken.mixlaw("ladder", "list")
    assert left_out(listed) == of_all("ladder")
    assert listed.stdout.count("\n") == len(list((ROOT / "configs" / "ladders").iterdir()))
    listed = broken.mixlaw("evaluate", "--list-tasks")
    assert left_out(listed) == of_all("task")
    assert {"bio_recall", "domain_loss", "reasoning"} <= set(listed.stdout.split())
    assert not {"bent", "odd", "half"} & set(listed.stdout.split())


OLMES_TABLES = """
from olmo_mixlaw.evaluation import olmes
configs, suites, tasks = olmes.task_configs(), olmes.task_suites(), olmes.tasks()
assert "mixlaw" in suites and "bio_recall" in tasks and len(tasks) >= len(configs)
print("bio_recall::mixlaw" in configs, "bent::mixlaw" in configs)
"""


def test_olmes_gets_its_tables(broken: Site) -> None:
    done = broken.python("-c", OLMES_TABLES, also=[STANDIN])
    assert left_out(done) == of_all("task")
    assert done.stdout == "True False\n"


@pytest.mark.parametrize(
    ("command", "complaints", "said"),
    [
        ("compare --table table --folds 2", ["law"], "choice: "),
        ("fit --table table --law transfer --out fit.json", ["law"], "8 runs"),
        ("ladder show micro-dense", ["ladder"], "w64"),
        ("data show mixlaw:biography?n=8", ["dataset"], "bits a person"),
        ("study plan micro", ["dataset", "ladder", "law", "task"], "runs, "),
    ],
)
def test_what_uses_no_broken_part_works(
    broken: Site, command: str, complaints: list[str], said: str
) -> None:
    done = broken.mixlaw(*command.split())
    assert said in done.stdout
    # A name that is taken is told always, a broken part of tasks alone where all are listed.
    for kind in complaints:
        assert f"greedy-parts: {kind} {KINDS[kind]}" in left_out(done)
    assert all(line.startswith("greedy") or " task " in line for line in left_out(done))


def test_a_nested_attribute_is_a_part_like_another(broken: Site) -> None:
    broken.ok("fit", "--table", "table", "--law", "good", "--out", "good.json")
    assert json.loads((broken.folder / "good.json").read_text())["law"]["name"] == "good"
    query = ["--n-params", "4e7", "--at-most", "web=0.5"]
    assert "predicted mean loss" in broken.ok("optimize", "good.json", *query)


SAID = {
    "bent": "can't be loaded (ModuleNotFoundError: No module named 'nowhere_at_all')",
    "odd": "a string",
    "half": "",
}


ASKED = {
    "data show mixlaw:{}": "dataset",
    "fit --table table --law {}": "law",
    "fit --table table --law kriging:{}": "law",
    "compare --table table --laws no_mixture,{}": "law",
    "study plan micro laws=[{}]": "law",
    "ladder show {}": "ladder",
    "study plan micro ladder={}": "ladder",
    "evaluate . -t {} -o scores": "task",
}
ONE_BY_ONE = """
import contextlib, io, json, sys
from olmo_mixlaw.cli.app import app, run
done = []
for command in json.loads(sys.argv[1]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = run(app, command.split())
    done.append((code, error.getvalue()))
print(json.dumps(done))
"""


@pytest.mark.parametrize("name", SAID)
def test_a_broken_part_that_is_asked_for_is_one_line(broken: Site, name: str) -> None:
    commands = [command.format(name) for command in ASKED]
    told = broken.told(ONE_BY_ONE, json.dumps(commands))
    package = "bent-parts" if name == "bent" else "misfit-parts"
    for kind, (code, text) in zip(ASKED.values(), told, strict=True):
        (error,) = [line for line in text.splitlines() if "greedy-parts" not in line]
        assert code == 2
        assert error.startswith("error: ")
        assert f"{kind} '{name}' of package '{package}'" in error
        assert SAID[name] in error


def test_a_name_that_two_packages_have_is_one_line(broken: Site) -> None:
    done = broken.mixlaw("fit", "--table", "table", "--law", "twin")
    assert done.returncode == 2
    assert "law 'twin' of package " in done.stderr.splitlines()[-1]
    assert {"nested-parts", "second-parts"} <= set(done.stderr.splitlines()[-1].split("'"))


@pytest.mark.parametrize("name", SAID)
def test_a_broken_schedule_that_is_asked_for_is_one_line(broken: Site, name: str) -> None:
    (error,) = broken.told(PLANNED, json.dumps([{"name": name}]))
    assert error.startswith(f"m.yaml: mixture.schedule.name: schedule '{name}' of package ")
    assert SAID[name] in error


@pytest.mark.slow
def test_a_run_by_a_broken_schedule_ends_before_it_begins(broken: Site) -> None:
    pytest.importorskip("olmo")
    changes = ["--mixture.ratios=null", "--mixture.schedule.name=bent", "--save_folder=run"]
    done = broken.mixlaw("train", MICRO, *changes)
    assert done.returncode == 2
    assert "schedule 'bent' of package 'bent-parts' can't be loaded" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (broken.folder / "run").exists()


def test_the_doctor_names_every_broken_part(broken: Site) -> None:
    done = broken.mixlaw("doctor")
    assert done.returncode == 1
    assert "!! extensions" in done.stdout
    for kind in KINDS:
        for package, name in (("bent", "bent"), ("misfit", "odd"), ("misfit", "half")):
            assert f"{kind} '{name}' of package '{package}-parts'" in done.stdout
