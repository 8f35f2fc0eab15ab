"""Every command of the documentation works, in the order in which a reader types them.

A page's blocks run in a folder of their own, which has what a checkout has and, where the page says
that a reader has it, a study, a table, a sweep. What is too dear is made cheaper by `CHEAPER`: the
same command with smaller sizes, never another one.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from docs_pages import ALL, ROOT, Block
from law_tables import scored_study

SMALL = (
    "tokens=40k target.tokens=40k 'sizes=[w16,w32]' 'laws=[no_mixture,transfer]' workers=1 "
    "evaluation.heldout_tokens=4096 tokenizer.characters=200k"
)
MICRO = "study run configs/studies/micro.yaml"
# (what a page says, what is run in its place), in this order.
CHEAPER = [
    # The first is what `studied` has run, the second runs these tests.
    (r"make (quickstart|test(-\w+)*)(?=\s|$)", "true"),
    (r"study run (configs/studies/micro.yaml|micro)(?=\s|$)", rf"study run \1 {SMALL}"),
    (r"study (plan|run) mine.yaml", rf"study \1 mine.yaml {SMALL}"),
    (r"(--laws no_mixture),additive,transfer,two_pool", r"\1,transfer"),
    (r"--max_duration=100", "--max_duration=5"),
    (r"--max_duration=20", "--max_duration=5"),
    (r"study run warm.yaml", "study run warm.yaml 'tokens=[10k,20k]' target.tokens=20k workers=1"),
    (r"study run tiny/study.yaml", "study run tiny/study.yaml tokens=40k target.tokens=40k"),
    (r"w(?:48|32)-bio(\d+)-1M-s1", r"w32-bio\1-40k-s1"),
    (r"step488-unsharded", "step20-unsharded"),
    (r"--n-tokens (?:1M|500k)", "--n-tokens 40k"),
    (r"train (configs/train/micro.yaml)(?!.*max_duration)", r"train \1 --max_duration=40"),
    (r"(fit_ladder.*)$", r"\1 --replicates 2"),
    (r"--bootstrap \d+", "--bootstrap 10"),
    (
        r"compare --table results/micro/table$",
        "compare --table results/micro/table --laws transfer",
    ),
    (r"max_documents=1200", "max_documents=600"),
    (r"characters: 500k", "characters: 100k"),
    (r"sources.yaml -n 128", "sources.yaml -n 8"),
    (r"(data make .*)--tokens 5e7", r"\1--tokens 5e4"),
    (r"(?<= )/data/", "data/"),
    (r"(-t bio_recall(?: -t domain_loss)?) -o", r"\1 --limit 20 -o"),
    (r"--mixtures \d+", "--mixtures 12"),
    (r"-n 128 --figure", "-n 32 --figure"),
]
RUN = [block for block in ALL if block.is_typed and block.reason is None]
SAVED = [block for block in ALL if block.title is not None]
RUN_PAGES = sorted({block.page for block in RUN})


def cheaper(script: str) -> str:
    script = script.replace(" \\\n", " ")
    for pattern, instead in CHEAPER:
        script = re.sub(pattern, instead, script, flags=re.MULTILINE)
    return script


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the commands that an installation puts on the path."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in {"olmo-mixlaw": "-m olmo_mixlaw", "python": ""}.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture(scope="module")
def typed(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a script in a folder as a reader would; returns what it says."""
    cache = tmp_path_factory.mktemp("cache")

    def run(script: str, folder: Path, may_fail: bool = False) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "OLMO_MIXLAW_CACHE": str(cache),
                "MPLCONFIGDIR": str(cache),
            },
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert may_fail or done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def studied(typed: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the quickstart leaves, of two small sizes."""
    pytest.importorskip("olmo")
    folder = checkout(tmp_path_factory.mktemp("studied"))
    typed(f"olmo-mixlaw {MICRO} {SMALL}", folder)
    return folder / "results" / "micro"


def checkout(folder: Path) -> Path:
    """What lies in a checkout, beside which a reader types."""
    for name in ("configs", "benchmarks", "docs", "scripts", "eval_suites", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def own_table(folder: Path) -> None:
    """A reader's `runs/table`: 30 runs, with scores of two tasks, and rows to predict."""
    table = scored_study()
    longer = table.losses.assign(n_tokens=10 * table.losses["n_tokens"])  # as far as pages ask
    replace(table, losses=longer).save(folder / "runs" / "table")
    shares = {f"w_{name}": 0.25 for name in ("web", "code", "wiki", "math")}
    row = {**shares, "n_params": 1e9, "n_tokens": 2e10, "domain": "web"}
    pd.DataFrame([row]).to_csv(folder / "q.csv", index=False)


# What a reader of a page is said to have.
GIVEN: dict[str, list[Callable[[Path], None]]] = {
    "laws.md": [own_table],
    "two-fidelities.md": [own_table],
}
# Pages that stand on the quickstart's study, or are run by OLMo's trainer.
TRAINED = re.compile(r"results/micro|olmo-mixlaw (train|evaluate|export hf)|study run")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_of_a_page_work(
    page: Path, typed: Callable[..., str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mine = [block for block in RUN if block.page == page]
    folder = checkout(tmp_path)
    if any(TRAINED.search(block.script()) for block in mine):
        shutil.copytree(request.getfixturevalue("studied"), folder / "results" / "micro")
    for given in GIVEN.get(page.name, []):
        given(folder)
    for block in ALL:
        if block.page != page:
            continue
        if block.title is not None:
            (folder / block.title).write_text(cheaper(block.text))
        elif block in mine:
            type_block(block, typed, folder)


def type_block(block: Block, typed: Callable[..., str], folder: Path) -> None:
    """Run a block; a console that shows an error must show the one that is made."""
    if block.language == "bash":
        typed(cheaper(block.script()), folder)
        return
    for command, answer in block.shown():
        fails = answer.startswith("error:")
        said = typed(cheaper(command), folder, may_fail=fails)
        if fails:
            assert answer.strip() in said


def test_what_is_cheaper_is_the_same_command() -> None:
    """No override adds or removes an option's name but those that lower a size."""
    lowers = re.compile(r"tokens|sizes|laws|workers|replicates|limit|max_duration|characters")
    for block in RUN:
        for before, after in zip(
            block.commands(), Block(block.page, "bash", cheaper(block.script()), 1).commands(),
            strict=True,
        ):  # fmt: skip
            if before[0] == "make" or after[0] == "true":
                continue
            added = {w.split("=")[0] for w in after if w.startswith("--") or "=" in w} - {
                w.split("=")[0] for w in before
            }
            assert [name for name in added if not lowers.search(name)] == []
            assert after[0] == before[0]
            assert after[1].lstrip("/") == before[1].lstrip("/")
