"""The package of `docs/example_extension`: each of its parts works everywhere its kind works.

It is installed by pip and found by its entry points, and all commands run in processes of their
own, as users run them.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from law_tables import grid, table_of, transfer_losses
from site_of_packages import PLANNED, Site

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example_extension"
STANDIN = ROOT / "tests" / "evaluation" / "standin"
LAWS = ["size_transfer", "neighbours"]
# Sections of a mixture over two sources, and the share that the second one gets of the whole run.
SCHEDULES: dict[str, tuple[dict[str, Any], float]] = {
    "swing": ({"options": {"source": "wiki", "turns": 2}}, 0.5),
    "power": (
        {
            "options": {"exponent": 3},
            "knots": [{"at": 0, "ratios": {"bio": 1}}, {"at": 1, "ratios": {"wiki": 1}}],
        },
        0.25,
    ),
}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The example, installed by pip, and a table of 24 runs."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("example")
    # A copy, since building leaves files beside the sources.
    for path in EXAMPLE.rglob("*"):
        if path.suffix in (".py", ".toml", ".yaml"):
            copy = folder / "source" / path.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    pip += ["--no-build-isolation", "--target", str(folder / "site")]
    subprocess.run([*pip, str(folder / "source")], check=True)
    table_of(transfer_losses(grid(sizes=3, mixtures=8), noise=0.003)).save(folder / "table")
    for shipped in ("configs", "benchmarks"):
        (folder / shipped).symlink_to(ROOT / shipped)
    return Site(folder / "site", folder)


def readme() -> list[list[str]]:
    """The commands that its README gives to try it."""
    text = (EXAMPLE / "README.md").read_text()
    lines = re.findall("^olmo-mixlaw (.+)", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_its_readme_tries_every_file() -> None:
    text = (EXAMPLE / "README.md").read_text()
    for path in (EXAMPLE / "mixlaw_extension").iterdir():
        assert path.name in (*text.split("`"), "__init__.py", "__pycache__")
    said = " ".join(word for command in readme() for word in command)
    for name in ("squares", *LAWS, *SCHEDULES, "deep", "square_recall"):
        assert name in said


@pytest.mark.parametrize("command", ["data", "fit", "ladder"])
def test_what_its_readme_says_works(example: Site, command: str) -> None:
    for arguments in readme():
        if arguments[0] == command:
            example.ok(*arguments)


def test_every_part_of_the_package_is_found(example: Site) -> None:
    found = example.mixlaw("doctor").stdout
    parts = ["dataset squares", *(f"law {name}" for name in LAWS), "schedule swing"]
    for part in [*parts, "schedule power", "ladder deep", "task square_recall"]:
        assert part in found
    assert "!! extensions" not in found


def test_its_dataset_is_shown_and_written(
    example: Site, byte_tokenizer: Any, tmp_path: Path
) -> None:
    assert "The square of 2 is 4." in example.ok("data", "show", "mixlaw:squares?n=13")
    refused = example.mixlaw("data", "show", "mixlaw:squares?n=0")
    assert refused.returncode == 2
    assert refused.stderr == "error: mixlaw:squares?n=0: n: 0 numbers have no squares\n"
    tokenizer = tmp_path / "tokenizer.json"
    byte_tokenizer.save(str(tokenizer))
    made = ["mixlaw:squares?n=13", str(tmp_path / "out"), "--documents", "90"]
    made += ["--tokenizer", str(tokenizer), "--processes", "2"]
    assert "of 90 documents" in example.ok("data", "make", *made)


@pytest.mark.parametrize("law", LAWS)
def test_its_laws_are_fitted_saved_and_bounded(example: Site, law: str) -> None:
    path = example.folder / f"{law}.json"
    said = example.ok("fit", "--table", "table", "--law", law, "--out", str(path))
    assert "24 runs" in said
    assert "Empty" not in said
    assert json.loads(path.read_text())["law"]["name"] == law
    asked = ["--n-params", "1e8", "--n-tokens", "1e9", "--at-least", "web=0.3"]
    asked += ["--at-most", "code=0.1", "--near-optimal", "--out", str(path.with_suffix(".yaml"))]
    example.ok("optimize", str(path), *asked)
    best = yaml.safe_load(path.with_suffix(".yaml").read_text())["mixture"]["ratios"]
    assert best["web"] >= 0.3 - 1e-6
    assert best["code"] <= 0.1 + 1e-6
    assert sum(best.values()) == pytest.approx(1)


def test_its_laws_are_compared_alone_and_under_kriging(example: Site) -> None:
    laws = ["transfer", *LAWS, "kriging:size_transfer", "kriging:neighbours"]
    lines = example.ok("compare", "--table", "table", "--laws", ",".join(laws)).splitlines()
    held = {line.split()[0]: float(line.split()[2]) for line in lines if "held_mixtures" in line}
    assert list(held) == laws
    assert max(held.values()) < 3  # per cent


FREE = """
import json, sys
from dataclasses import replace
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.runs import RunTable

step, law = sys.argv[1:]
path = f"free-{law}.json"
found = fit(law, RunTable.load("repeating")) if step == "fit" else Fit.load(path)
if step == "fit":
    found.save(path)
far = ([[0.2, 0.6, 0.1, 0.1]], 3e9, 1e9)
few = {"code": 5e7}
alone = replace(found, level=None, repetition=None)
print(json.dumps({
    "law": found.law.name,
    "sizes": found.level.sizes,
    "fitted": found.repetition.is_fitted,
    "far": found.predict(*far, available={}).tolist(),
    "few": found.predict(*far, available=few).tolist(),
    "alone": alone.predict(*far).tolist(),
}))
"""


@pytest.mark.parametrize("law", LAWS)
def test_its_laws_have_a_level_and_repeats_without_a_line_for_them(example: Site, law: str) -> None:
    table = table_of(transfer_losses(grid(sizes=3, mixtures=8), noise=0.003))
    had = {f"available_{name}": 1e12 for name in table.domains} | {"available_code": 1e8}
    replace(table, losses=table.losses.assign(**had)).save(example.folder / "repeating")
    first, again = (example.told(FREE, step, law) for step in ("fit", "load"))
    assert first == again
    assert (first["law"], first["sizes"], first["fitted"]) == (law, 3, True)
    assert np.abs(np.log(np.divide(first["far"], first["alone"]))).max() > 1e-3
    assert np.abs(np.log(np.divide(first["few"], first["far"]))).max() > 1e-3


STACKED = """
import json, sys
import numpy as np
from olmo_mixlaw.advice import optimum
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.laws.learners.stack import Stack
from olmo_mixlaw.runs import RunTable

members = ("size_transfer", "neighbours")
if sys.argv[1] == "fit":
    stacked = fit(Stack(members=members), RunTable.load("table"))
    stacked.save("stack.json")
else:
    stacked = Fit.load("stack.json")
best = optimum(stacked, 8e7, 1e9, lower={"wiki": 0.3}, upper=0.4)
at = (np.full((1, 4), 0.25), 4e7, 1e9)
part = stacked.state["fits"]["size_transfer"]
moved = at[0] + np.eye(4) * 1e-5
slope = (part.law.predict(part, part.scene.inputs(moved, *at[1:])) - part.predict(*at)) / 1e-5
print(json.dumps({
    "members": list(stacked.state["fits"]),
    "losses": stacked.predict(*at).tolist(),
    "best": best.ratios.tolist(),
    "slope": slope.T.tolist(),
    "gradient": part.ratio_gradient(*at)[0].tolist(),
}))
"""


def test_its_laws_are_members_of_a_stack_in_this_process_and_the_next(example: Site) -> None:
    first, again = (example.told(STACKED, step) for step in ("fit", "load"))
    assert first == again
    assert first["members"] == LAWS
    assert min(first["best"]) >= -1e-6
    assert max(first["best"]) <= 0.4 + 1e-6
    assert first["best"][2] >= 0.3 - 1e-6
    np.testing.assert_allclose(first["gradient"], first["slope"], rtol=1e-3, atol=1e-4)


def test_its_schedules_are_planned_and_their_options_checked(example: Site) -> None:
    sections = [{"name": name, **section} for name, (section, _) in SCHEDULES.items()]
    wrong = [
        {"name": "swing"},
        {"name": "swing", "options": {"source": "wikki"}},
        {"name": "swing", "options": {"source": "wiki", "hight": 0.2}},
        {**sections[1], "options": {"exponent": -1}},
        {**sections[1], "options": {"exponents": 1}},
    ]
    *planned, missing, source, option, value, misspelt = example.told(
        PLANNED, json.dumps(sections + wrong)
    )
    for name, shares in zip(SCHEDULES, planned, strict=True):
        assert shares[1] == pytest.approx(SCHEDULES[name][1], abs=1e-3)
    place = "m.yaml: mixture.schedule"
    assert missing == f"{place}.options.source: is missing; the schedule swing needs it"
    assert "unknown source 'wikki'; did you mean 'wiki'?" in source
    assert option.startswith(f"{place}.options: unknown option 'hight'; did you mean 'height'?")
    assert value == f"{place}.options.exponent: -1; must be above 0"
    assert misspelt.startswith(f"{place}.options: unknown option 'exponents'")


def test_its_ladder_is_listed_shown_and_studied(example: Site) -> None:
    assert "deep            4 rungs" in example.ok("ladder", "list")
    assert [line.split()[0] for line in example.ok("ladder", "show", "deep").splitlines()[3:7]] == [
        "l2",
        "l4",
        "l8",
        "l16",
    ]
    changes = ["ladder=deep", "sizes=[l2,l4]", "target.size=l8", "domains.bio=mixlaw:squares"]
    changes += [f"laws=[{','.join(LAWS)}]", "evaluation.tasks=[square_recall]"]
    assert "l4-bio10-1M-s1" in example.ok("study", "plan", "micro", *changes)


HOSTED = """
import json
from olmo_mixlaw.evaluation import catalog, olmes

settings = olmes.task_configs()["square_recall::mixlaw"]
given = {key: value for key, value in settings.items() if key != "task_name"}
given["context_kwargs"] = {"dataset": "mixlaw:squares?n=13"}
hosted = olmes.tasks()["square_recall"](task_name="square_recall", task_config=given)
hosted.build_all_requests()
ours = catalog.make_task("square_recall", {"context_kwargs": given["context_kwargs"]})
document = ours.documents()[12]
said = [ours.score(document, [{"continuation": text}]) for text in (" 144.", " 12", " 225")]
print(json.dumps({
    "primary": settings["primary_metric"],
    "asked": [instance.request.context for instance in hosted._instances],
    "scores": [[score["exact_match"], score["first_digit"]] for score in said],
}))
"""


def test_its_task_is_listed_scored_and_offered_to_olmes(example: Site) -> None:
    assert "square_recall" in example.ok("evaluate", "--list-tasks").split()
    found = example.told(HOSTED, also=[STANDIN])
    assert found["primary"] == "exact_match"
    assert found["asked"] == [f"The square of {number} is" for number in range(13)]
    assert found["scores"] == [[1, 1], [0, 1], [0, 0]]


@pytest.mark.slow
def test_the_runs_of_its_readme_keep_the_ratios_and_are_scored_by_its_task(example: Site) -> None:
    pytest.importorskip("olmo")
    for arguments in readme():
        if arguments[0] in ("train", "evaluate"):
            example.ok(*arguments)
    runs = example.folder / "runs"
    swing, power = (
        json.loads((runs / name / "mixture.json").read_text())["sources"] for name in SCHEDULES
    )
    assert swing["bio"]["uris"] == ["mixlaw:squares"]
    assert swing["bio"]["achieved_ratio"] == pytest.approx(1 / 2, abs=0.01)
    assert power["bio"]["achieved_ratio"] == pytest.approx(1 / 3, abs=0.01)
    lines = (example.folder / "scores" / "metrics-all.jsonl").read_text().splitlines()
    scored = {row["task_name"]: row for row in map(json.loads, lines)}
    assert set(scored) == {"square_recall", "domain_loss:bio", "domain_loss:wiki"}
    assert scored["square_recall"]["num_instances"] == 100
    assert "first_digit" in scored["square_recall"]["metrics"]
