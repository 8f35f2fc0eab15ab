"""`--recipe`: options from a YAML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from olmo_mixlaw.cli.recipe import load_recipe


@pytest.mark.parametrize("name", ["olmix", "regmix", "wide", "moe-sparsity"])
def test_shipped_recipes_can_be_read(name: str) -> None:
    assert load_recipe(name)["law"]


def test_a_recipe_sets_options_and_the_command_line_wins(
    folder: Path, mixlaw: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    recipe, saved, out = folder / "mine.yaml", folder / "f.json", folder / "best.yaml"
    recipe.write_text(
        "table: table\nlaw: no_mixture\nat_most: {web: 0.1}\nn_params: 1.0e+8\nn_tokens: 1.0e+9\n"
    )
    assert mixlaw("fit", "--recipe", recipe, "--out", saved) == 0
    assert "no_mixture:" in capsys.readouterr().out
    assert mixlaw("fit", "--recipe", recipe, "--law", "transfer", "--out", saved) == 0
    assert "transfer:" in capsys.readouterr().out
    assert mixlaw("optimize", saved, "--recipe", recipe, "--out", out) == 0
    assert yaml.safe_load(out.read_text())["mixture"]["ratios"]["web"] <= 0.1
    recipe.write_text("tabel: table\n")
    assert mixlaw("fit", "--recipe", recipe) == 2
    assert "did you mean 'table'" in capsys.readouterr().err


def test_a_recipe_chooses_targets_and_a_prior(
    folder: Path, mixlaw: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    recipe, saved = folder / "mine.yaml", folder / "f.json"
    recipe.write_text(
        "table: table\nlaw: transfer\ntarget: [web, wiki]\nunit: bits_per_byte\nkl: 20\n"
        "prior: {web: 0.1, code: 0.2, wiki: 0.3, math: 0.4}\n"
        "n_params: 1.0e+8\nn_tokens: 1.0e+9\navailable: {math: 1.0e+9}\ncap_tokens: 1.0e+10\n"
    )
    assert mixlaw("fit", "--recipe", recipe, "--out", saved) == 0
    assert "2 targets in bits a byte" in capsys.readouterr().out
    best = folder / "best.yaml"
    assert mixlaw("optimize", saved, "--recipe", recipe, "--out", best) == 0
    ratios = yaml.safe_load(best.read_text())["mixture"]["ratios"]
    assert ratios["math"] == pytest.approx(0.4, abs=0.01)
    assert ratios["web"] == pytest.approx(0.1, abs=0.03)
