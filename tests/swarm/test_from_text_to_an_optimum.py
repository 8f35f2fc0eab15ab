"""The walk of docs/swarms.md, block by block: 24 sources, 128 mixtures, eight runs, an optimum."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from olmo_mixlaw.cli.app import app, run

PAGE = Path(__file__).parent.parent.parent / "docs" / "swarms.md"


def block(language: str) -> str:
    """The text of the walk's one block of a language."""
    walk = PAGE.read_text(encoding="utf-8").partition("## From text to an optimum")[2]
    (found,) = re.findall(rf"```{language}\b.*?\n(.*?)```", walk, re.DOTALL)
    return found


def commands() -> list[list[str]]:
    """The arguments of each `olmo-mixlaw` that a reader types."""
    (tokenizer,) = re.findall(r"^export TOKENIZER=(.*)$", block("bash"), re.MULTILINE)
    typed = re.findall(r"^olmo-mixlaw (.*)$", block("bash"), re.MULTILINE)
    return [shlex.split(line.replace("$TOKENIZER", tokenizer)) for line in typed]


@pytest.fixture
def answered(capsys: pytest.CaptureFixture) -> Callable[[list[str]], dict]:
    """Runs a command, which must succeed, and returns what it says as JSON."""

    def call(arguments: list[str]) -> dict:
        assert run(app, [*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.slow
def test_a_swarm_is_drawn_trained_fitted_and_optimised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: Callable[[list[str]], dict]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Half the text and fewer steps than a reader's.
    exec(block("python").replace("max_documents=1200", "max_documents=600"), {})
    template = block("yaml").replace("200k", "40k").replace("500k", "100k")
    Path("tiny.yaml").write_text(template, encoding="utf-8")
    whole, tiny, study, fit, optimize = commands()

    swarm = answered(whole)
    assert (len(swarm["ratios"]), len(swarm["prior"])) == (128, 24)
    eight = answered(tiny)
    assert eight["ratios"] == swarm["ratios"][:8]
    assert eight["prior"] == swarm["prior"]

    answered(study)
    with open("tiny/study/table/losses.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 24
    with open("swarm/ratios.csv", encoding="utf-8") as file:
        drawn = {row["run"]: row for row in csv.DictReader(file)}
    for row in rows:  # what was trained is what was drawn
        for source in swarm["prior"]:
            column = "w_" + source.replace(":", "-")
            assert float(row[column]) == pytest.approx(float(drawn[row["mixture"]][source]))

    assert answered(fit)["runs"] == 8
    best = answered(optimize)["mixture"]
    assert sum(best.values()) == pytest.approx(1)

    # The same runs as Olmix's two files: the ratios of all 128, the losses of those trained.
    targets = sorted({row["domain"] for row in rows})
    losses = {(row["mixture"], row["domain"]): row["loss"] for row in rows}
    with open("metrics.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", *(f"{target}_loss" for target in targets)])
        for mixture in sorted({row["mixture"] for row in rows}):
            writer.writerow([mixture, *(losses[mixture, target] for target in targets)])
    files = ["--ratios", "swarm/ratios.csv", "--metrics", "metrics.csv", "--unit", "nats"]
    again = answered(["fit", *files, "--law", "cokriging", "--out", "two.json"])
    assert again["runs"] == 8
    other = answered(["optimize", "two.json"])["mixture"]
    assert np.sum(list(other.values())) == pytest.approx(1)
