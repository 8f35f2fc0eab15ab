"""Every law from the command line: fitted, saved, optimised within limits, asked."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import grid, table_of, transfer_losses, with_losses

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.registry import LAWS


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sizes; the losses of one target fall into two groups, as `regimes` wants it."""
    design = transfer_losses(grid(sizes=2, mixtures=32), noise=0.004)
    losses = design.losses.copy()
    losses[:, 3] *= np.where(design.ratios[:, 3] > 0.2, 0.3, 1.0)
    return table_of(with_losses(design, losses)).save(tmp_path_factory.mktemp("table"))


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import olmo_mixlaw.advice  # noqa: F401

    monkeypatch.setattr(sys.modules["olmo_mixlaw.advice.optimum"], "DRAWS", 2000)


@pytest.mark.parametrize("law", LAWS.names())
def test_every_law_goes_from_fit_to_mixture(
    law: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fit.json"
    assert run(app, ["fit", "--table", str(table), "--law", law, "--out", str(path)]) == 0
    assert "parameters, error on the runs fitted" in capsys.readouterr().out
    scale = ["--n-params", "4e7", "--n-tokens", "1e9"]
    limits = ["--at-least", "web=.3", "--at-most", "code=.2", "--available", "wiki=1e7"]
    assert run(app, ["optimize", str(path), *scale, *limits, "--max-epochs", "5"]) == 0
    out = capsys.readouterr().out.partition("predicted")[0]
    ratios = {
        m[1]: float(m[2]) for m in re.finditer(r"^ *(web|code|wiki|math) +([.0-9]+)$", out, re.M)
    }
    assert sum(ratios.values()) == pytest.approx(1, abs=1e-3)
    assert ratios["web"] >= 0.3 - 1e-4
    assert ratios["code"] <= 0.2 + 1e-4
    assert ratios["wiki"] <= 0.05 + 1e-4
    assert run(app, ["optimize", str(path), *scale, "--at-least", "wep=.3"]) == 2
    assert "did you mean 'web'" in capsys.readouterr().err
    query, answers = tmp_path / "query.csv", tmp_path / "answers.csv"
    pd.read_csv(table / "losses.csv").drop(columns="loss").head(8).to_csv(query, index=False)
    asked = ["predict", str(path), "--query", str(query), "--out", str(answers), "--interval"]
    assert run(app, asked) == 0
    assert (pd.read_csv(answers).eval("low <= loss <= high")).all()
