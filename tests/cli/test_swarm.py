"""`olmo-mixlaw swarm`: what it says, what it writes, and what it refuses before it draws."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Command = Callable[..., int]
FOUR = ("web=3.7T", "code=300B", "math=20B", "wiki=4B")


@pytest.fixture
def said(mixlaw: Command, capsys: pytest.CaptureFixture) -> Callable[..., dict[str, Any]]:
    """The JSON of a command that succeeds."""

    def call(*arguments: object) -> dict[str, Any]:
        code = mixlaw("swarm", *arguments, "--json")
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


def listed(folder: Path) -> Path:
    """An Olmix configuration of three leaves."""
    sources = [
        {"name": "dclm", "topics": [{"name": t, "paths": [f"s3://b/{t}/*.npy"]} for t in "xy"]},
        {"name": "wiki", "paths": ["s3://b/wiki/*.npy"]},
    ]
    counts = {"dclm:x": 60_000_000_000, "dclm:y": 30_000_000_000, "wiki": 10_000_000_000}
    path = folder / "olmix.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "example",
                "data": {"sources": sources},
                "priors": {"token_counts": counts},
                "infra": {"budget": "b"},
                "training": {"proxy_model_id": "olmo3_30m", "chinchilla_multiple": 5},
                "eval": {"type": "inloop"},
            }
        )
    )
    return path


def test_the_table_says_prior_ratios_and_epochs(
    mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    caps = ("--target-tokens", "1T", "--max-epochs", 4)
    assert mixlaw("swarm", *FOUR, "-n", 16, *caps, "--at-most", "wiki=0.001") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 mixtures of 4 sources (dirichlet, seed 0)"
    assert lines[2].split() == [
        "source",
        "tokens",
        "prior",
        "least",
        "mean",
        "greatest",
        "in",
        "epochs",
        "most",
    ]
    assert lines[3].split()[:3] == ["web", "3.7T", "0.9195"]
    assert lines[6].split()[0] == "wiki"
    assert "in no mixture: wiki" in lines  # its ceiling is below the least ratio
    assert lines[-1] == "epochs: at the target of 1T tokens"


def test_json_has_what_the_table_and_the_files_say(
    said: Callable[..., dict], tmp_path: Path
) -> None:
    found = said(*FOUR, "-n", 12, "--target-tokens", "1T", "--out", tmp_path)
    with open(tmp_path / "ratios.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [mixture["run"] for mixture in found["ratios"]]
    for row, mixture in zip(rows, found["ratios"], strict=True):
        for source in ("web", "code", "math", "wiki"):
            assert float(row[source]) == mixture.get(source, 0.0)
    web = found["summary"][0]
    mean = sum(float(row["web"]) for row in rows) / 12
    assert web["mean"] == pytest.approx(mean)
    assert web["epochs"] == pytest.approx(mean * 1e12 / 3.7e12)
    assert [Path(path).name for path in found["files"]] == ["ratios.csv", "swarm.json"]


@pytest.mark.parametrize("method", ["dirichlet", "sobol"])
def test_a_swarm_grows_in_its_folder(
    said: Callable[..., dict], tmp_path: Path, method: str
) -> None:
    options = (*FOUR, "--method", method, "--out", tmp_path)
    small = said(*options, "-n", 6)
    grown = said(*options, "-n", 10, "--grow", tmp_path)
    assert grown["ratios"][:6] == small["ratios"]
    assert grown["made"]["begun"] == 6
    whole = said(*FOUR, "--method", method, "-n", 10)
    assert whole["ratios"] == grown["ratios"]


def test_growing_by_a_source_keeps_the_old_mixtures_and_says_so(
    mixlaw: Command, said: Callable[..., dict], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    said(*FOUR, "-n", 4, "--out", tmp_path / "old")
    arguments = (*FOUR, "new=1T", "-n", 8, "--grow", tmp_path / "old", "--at-most", "web=0.5")
    assert mixlaw("swarm", *arguments, "--json") == 0
    out, err = capsys.readouterr()
    assert "has no column for new: 0 in its mixtures" in err
    assert "of its 4 mixtures break a limit; they stay" in err
    ratios = json.loads(out)["ratios"]
    assert all("new" not in mixture for mixture in ratios[:4])
    assert any("new" in mixture for mixture in ratios[4:])
    assert all(mixture.get("web", 0) <= 0.5 for mixture in ratios[4:])


def test_mixtures_of_a_planner_are_taken_as_they_are(
    said: Callable[..., dict], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text("run,web,code,math,wiki\nbest,0.7,0.2,0.0999,0.0001\nbase,1,0,0,0\n")
    found = said(*FOUR, "--method", "planner", "--from", plan)
    assert found["ratios"][0] == {
        "run": "best",
        "web": 0.7,
        "code": 0.2,
        "math": 0.0999,
        "wiki": 0.0001,
    }
    assert found["made"] == {"method": "planner"}


def test_plain_readers_find_the_mixtures_in_olmix_s_files(
    said: Callable[..., dict], tmp_path: Path
) -> None:
    config = listed(tmp_path)
    out = tmp_path / "out"
    said(
        config,
        "-n",
        5,
        "--out",
        out,
        "--write",
        "olmix",
        "--template",
        config,
        "--write",
        "olmo-core",
    )
    with open(out / "ratios.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [f"m{i:04d}" for i in range(5)]
    for row in rows:
        launch = yaml.safe_load((out / "olmix" / f"{row['run']}.yaml").read_text())
        mix = launch["mix"]
        core = yaml.safe_load((out / "olmo-core" / f"{row['run']}.yaml").read_text())
        listed_ratios = {s["source_name"]: s["target_ratio"] for s in core["sources"]}
        for leaf in ("dclm:x", "dclm:y", "wiki"):
            assert float(row[leaf]) == pytest.approx(mix[leaf]["weight"])
            assert float(row[leaf]) == pytest.approx(listed_ratios.get(leaf, 0.0))
        assert launch["training"]["proxy_model_id"] == "olmo3_30m"
        assert launch["data"]["sources"][1]["paths"] == ["s3://b/wiki/*.npy"]


def test_a_shipped_list_is_taken_by_name_and_drawn(
    said: Callable[..., dict], tmp_path: Path
) -> None:
    figure = tmp_path / "swarm.png"
    found = said("micro24", "-n", 32, "--figure", figure)
    assert len(found["summary"]) == 24
    text = sum(row["mean"] for row in found["summary"] if row["source"].startswith("text:"))
    assert text <= 0.7
    assert figure.stat().st_size > 10_000


TWO = ("a=1k", "b=1k", "-n", "4")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("a=1k", "b=1k"), "-n: how many mixtures?"),
        ((*TWO, "--at-most", "a=0.4", "--at-most", "b=0.4"), "they sum to 0.8, below 1"),
        ((*TWO, "--at-least", "a=0.7", "--at-least", "b=0.4"), "they sum to 1.1, above 1"),
        ((*TWO, "--max-epochs", "1", "--target-tokens", "4k"), "they sum to 0.5, below 1"),
        ((*TWO, "--prior", "a=1"), "prior: leaves out b"),
        ((*TWO, "--keep", "c"), "keep: unknown source 'c'"),
        ((*TWO, "--write", "olmo-core"), "--write: give the folder for it (--out)"),
        ((*TWO, "--write", "olmo", "--out", "x"), "--template: 0 given, 1 needed (for olmo)"),
        ((*TWO, "--match-repeats"), "--match-repeats: give --target-tokens"),
        (("a=1k", "b=1k", "--method", "planner"), "--method planner and --from go together"),
        ((*TWO, "--figure", "x.doc"), "--figure: x.doc: no figure is saved as"),
        (("nowhere.yaml", "-n", "4"), "nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple,
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mixlaw("swarm", *arguments) == 2
    out, err = capsys.readouterr()
    assert problem in err
    assert (out, err.count("\n"), list(tmp_path.iterdir())) == ("", 1, [])


def test_a_study_that_would_be_refused_is_not_written(
    mixlaw: Command, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(
        "ladder: micro-dense\nsizes: [w17]\ntokens: [1M]\ntarget: {size: w16, tokens: 1M}"
    )
    sources = ("a=mixlaw:slope?seed=1", "b=mixlaw:slope?seed=2", "--prior", "a=1", "--prior", "b=1")
    files = ("--out", tmp_path / "out", "--write", "study", "--template", template)
    assert mixlaw("swarm", *sources, "-n", 6, *files) == 2
    assert "sizes: unknown size 'w17'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
