"""What the documentation points to is there, and every command in it is one that exists.

`test_docs_run.py` runs them.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml
from docs_pages import ALL, PAGES, ROOT, TYPED, Block, blocks

from olmo_mixlaw.cli.app import app
from olmo_mixlaw.cli.evaluate import evaluate
from olmo_mixlaw.cli.fit_ladder import fit_ladder

# What a reader is expected to have besides ours.
PROGRAMS = {
    *("cat", "cd", "export", "git", "head", "ls", "mkdir", "source", "tail", "npm", "npx"),
    *("jq", "olmes", "olmix", "python", "python3", "pytest", "sbatch", "squeue", "wandb"),
    *("mkdocs", "pre-commit", "ruff", "mypy", "lint-imports", "lm_eval"),
}
SCRIPTS = {"fit_ladder": fit_ladder, "evaluate": evaluate}
LANGUAGES = {"", "bash", "console", "python", "yaml", "toml", "json", "text", "csv", "mermaid"}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head).strip().lower() for head in heads]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_scripts_and_configurations_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link
    scripts = re.findall(r"python (scripts/\w+\.py|benchmarks/\w+\.py)", text)
    assert [script for script in scripts if not (ROOT / script).exists()] == []
    configs = re.findall(r"\b((?:configs|eval_suites)/[\w/-]+\.yaml)", text)
    assert [config for config in configs if not (ROOT / config).exists()] == []


def test_every_page_can_be_found() -> None:
    """In the site's navigation, which a reader has beside every page."""
    # MkDocs' own tags stand in the file besides; only paths are wanted.
    named = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert there == named


def test_blocks_are_of_a_language_that_is_checked() -> None:
    assert [block.place for block in ALL if block.language not in LANGUAGES] == []
    typed = re.compile(r"^(?:\$ )?(?:olmo-mixlaw|python|pip|make|torchrun) \w", re.MULTILINE)
    loose = [b.place for b in ALL if b.language in ("", "text") and typed.search(b.text)]
    assert loose == []


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "yaml"], ids=lambda b: b.place)
def test_yaml_blocks_are_valid(block: Block) -> None:
    assert yaml.safe_load(block.text) is not None


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("olmo_mixlaw"):
            yield from ((node.module or "", name.name) for name in node.names)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("olmo_mixlaw"):
            raise
        pytest.skip(f"{name} needs {error.name}")


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=lambda b: b.place)
def test_python_blocks_compile_and_import_what_is_there(block: Block) -> None:
    for module, name in imported(ast.parse(block.text)):
        if not hasattr(_module(module), name):
            importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("block", TYPED, ids=lambda b: b.place)
def test_commands_are_ones_that_exist(block: Block) -> None:
    subprocess.run(["bash", "-n", "-c", block.script()], check=True)
    for words in block.commands():
        check(words)


def check(words: list[str]) -> None:
    """Raise for a command of ours that doesn't exist, an unknown option, target or extra."""
    program, rest = Path(words[0]).name, words[1:]
    if program == "olmo-mixlaw":
        parse(app, rest)
    elif program == "torchrun" or rest[:1] == ["-m"]:
        module = rest[rest.index("-m") + 1]
        if module == "olmo_mixlaw":
            parse(app, rest[rest.index("-m") + 2 :])
        elif module.startswith("olmo_mixlaw."):
            assert importlib.util.find_spec(module), module
    elif program in ("python", "python3") and rest and rest[0].startswith("scripts/"):
        if command := SCRIPTS.get(Path(rest[0]).stem):
            parse(command, rest[1:])
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in rest:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    elif program == "pip":
        check_pip(rest)
    else:
        assert program in PROGRAMS, words


def check_pip(words: list[str]) -> None:
    """That constraints, folders and extras named to pip are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for before, word in zip(["", *words], words, strict=False):
        if before == "-c":
            assert (ROOT / word).is_file(), word
        for extras in re.findall(r"^(?:\.|olmo-mixlaw.*)\[([\w,-]+)\]", word):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), word


def parse(command: click.Command, words: list[str]) -> None:
    """Parse as click would, without running or reading anything. Raises `click.UsageError`."""
    context = click.Context(command)
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            break
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
        context = click.Context(command, **command.context_settings)
    if command.name == "olmes":
        return
    given, _, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.get_params(context):
        if isinstance(parameter.type, click.Choice) and isinstance(given.get(parameter.name), str):
            parameter.type.convert(given[parameter.name], parameter, context)
    missing = [p.name for p in command.params if p.required and given.get(p.name) in (None, ())]
    assert not missing, f"{command.name}: {missing}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("olmo-mixlaw fitt --table x", "did you mean 'fit'"),
        ("olmo-mixlaw study plann micro", "No such command|plann"),
        ("olmo-mixlaw optimize fit.json --n-parms 3", "No such option"),
        ("olmo-mixlaw swarm a=1 --method sobl", "sobl"),
        ("olmo-mixlaw predict fit.json", "query"),
        ("torchrun --nproc-per-node=8 -m olmo_mixlaw evaluate x --taskk y", "No such option"),
        ("make quickstartt", "quickstartt"),
        ("pip install -e '.[olma]'", "olma"),
        ("olmo-mixlow fit", "olmo-mixlow"),
    ],
)
def test_a_wrong_command_would_be_found(line: str, said: str) -> None:
    (words,) = Block(ROOT / "README.md", "bash", line, 1).commands()
    with pytest.raises(Exception, match=said):
        check(words)


def test_marks_titles_and_consoles_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a GPU -->\n```bash\nA=1 olmo-mixlaw fit \\\n  --table t  # so\n```\n"
        '\n```yaml title="a.yaml"\nx: 1\n```\n\n```console\n$ ls a &&\\\n  ls b > c\nfound\n```\n'
    )
    first, second, third = blocks(page)
    assert (first.reason, first.commands()) == (
        "needs a GPU",
        [["olmo-mixlaw", "fit", "--table", "t"]],
    )
    assert (second.title, second.is_typed) == ("a.yaml", False)
    assert third.shown() == [("ls a &&\\\n  ls b > c", "found\n")]
    assert third.commands() == [["ls", "a"], ["ls", "b"]]


def test_no_path_of_a_machine_is_in_the_project() -> None:
    suspects = re.compile(r"(?<![\w.])/(?:work|root|farm)/")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("configs/*/*")]:
        assert not suspects.search(path.read_text(encoding="utf-8")), path


def test_what_is_not_run_says_why() -> None:
    assert [b.place for b in ALL if b.reason is not None and len(b.reason) < 5] == []
    assert sys.version_info >= (3, 11)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Links and anchors between pages, and every docstring of the reference, are resolved."""
    for needed in ("mkdocs", "material", "mkdocstrings_handlers"):
        pytest.importorskip(needed)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "predicted losses" in (tmp_path / "reference" / "advice.html").read_text()
