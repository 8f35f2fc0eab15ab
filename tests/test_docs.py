"""What the documentation points to is there."""

import re
from pathlib import Path

import pytest
import yaml

from olmo_mixlaw.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_commands_and_scripts_exist(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    commands = set(re.findall(r"^(?:\$ )?olmo-mixlaw ([a-z]+)", text, flags=re.MULTILINE))
    assert commands <= set(COMMANDS)
    scripts = re.findall(r"python (scripts/\w+\.py|benchmarks/\w+\.py)", text)
    assert [script for script in scripts if not (ROOT / script).exists()] == []
    configs = re.findall(r"\b((?:configs|eval_suites)/[\w/-]+\.yaml)", text)
    assert [config for config in configs if not (ROOT / config).exists()] == []


def test_yaml_blocks_are_valid():
    for page in PAGES:
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            assert yaml.safe_load(block) is not None, page


def test_no_path_of_a_machine_is_in_the_project():
    suspects = re.compile(r"(?<![\w.])/(?:work|root|farm)/")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("configs/*/*")]:
        assert not suspects.search(path.read_text(encoding="utf-8")), path
