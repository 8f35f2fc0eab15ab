"""`olmo-mixlaw optimize`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from law_tables import grid, table_of, transfer_losses

Command = Callable[..., int]


def test_the_best_mixture_keeps_its_bounds_and_says_how_far_it_reaches(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    out = folder / "best.yaml"
    where = ("--n-params", 1e10, "--n-tokens", 1e9)
    assert mixlaw("optimize", fitted, *where, "--at-most", "web=.1", "--out", out) == 0
    assert "caution: n_params 1e+10 is 62.5 times beyond" in capsys.readouterr().out
    assert yaml.safe_load(out.read_text())["mixture"]["ratios"]["web"] <= 0.1


def test_an_optimum_with_range_path_intervals_and_figure(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    path, drawn = ("--path", "1e7,1e9", "--path", "4e7,1e9"), folder / "best.png"
    refits = ("--bootstrap", 10, "--table", folder / "table")
    assert mixlaw("optimize", fitted, *path, "--near-optimal", *refits, "--figure", drawn) == 0
    shown = capsys.readouterr().out
    assert "as good from" in shown
    assert "90 % of optima from" in shown
    assert "along the path" in shown
    assert drawn.stat().st_size > 10_000


def test_another_table_than_the_fitted_is_refused(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    table_of(transfer_losses(grid(sizes=3, mixtures=7))).save(folder / "other")
    how = ("--n-params", 1e8, "--n-tokens", 1e9, "--bootstrap", 10)
    assert mixlaw("optimize", fitted, *how, "--table", folder / "other") == 2
    assert "the table is not the one that was fitted (21 runs" in capsys.readouterr().err
    assert mixlaw("optimize", fitted, *how) == 2
    assert "needs the table that was fitted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at-most", "web"], "--at-most: expected NAME=NUMBER, found 'web'"),
        (["--path", "1e9"], "--path: expected N,D or N,D,ACTIVE such as 1e9,2e10, found '1e9'"),
        (["--task-weight", "quiz=1"], "--task-weight: needs --benchmark"),
        (["--tolerance", "0"], "--tolerance: must be positive, found 0"),
        (["--tolerance", "inf"], "--tolerance: must be positive, found inf"),
        (["--kl", "-1"], "kl: must be finite and not negative, found -1"),
        (["--kl", "nan"], "kl: must be finite and not negative, found nan"),
        (["--prior", "web=1"], "--prior: needs --kl"),
        (["--kl", "1", "--prior", "web=1"], "prior: domain 'code' is missing"),
        (["--cap-tokens", "1e9"], "--cap-tokens: needs --available"),
        (["--available", "web=nan"], "--available: 'web=nan': must be finite and not negative"),
        (["--path", "1e9,inf"], "--path: expected N,D or N,D,ACTIVE"),
        (["--path", "nan,1e9"], "--path: expected N,D or N,D,ACTIVE"),
    ],
)
def test_mistakes_are_named(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert mixlaw("optimize", fitted, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_prior_pulls_and_the_loss_is_said_without_it(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    scale = ("--n-params", 4e7, "--n-tokens", 1e9, "--kl", 50)
    prior = [x for name in ("web=7", "code=1", "wiki=1", "math=1") for x in ("--prior", name)]
    assert mixlaw("optimize", fitted, *scale, *prior) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"web ([.0-9]+)\n", out)[1]) == pytest.approx(0.7, abs=0.02)
    mean = float(re.search(r"predicted mean loss ([.0-9]+) nats", out)[1])
    rows = out.split("losses, nats")[1]
    each = [float(v) for v in re.findall(r"^  \w+ +([.0-9]+)  \(", rows, re.M)]
    assert mean == pytest.approx(np.mean(each), abs=1e-4)


def test_a_file_that_is_read_is_not_written(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    before = fitted.read_bytes()
    scale = ("--n-params", 4e7, "--n-tokens", 1e9)
    assert mixlaw("optimize", fitted, *scale, "--out", fitted) == 2
    assert "is read by this command" in capsys.readouterr().err
    query = folder / "table" / "losses.csv"
    assert mixlaw("predict", fitted, "--query", query, "--out", query) == 2
    assert mixlaw("predict", fitted, "--query", "no.csv", "--out", fitted) == 2
    rows = folder / "q.csv"
    rows.write_bytes(query.read_bytes())
    inside = ("--query", rows, "--table", folder / "table", "--out", query)
    assert mixlaw("predict", fitted, *inside) == 2
    assert "is read by this command" in capsys.readouterr().err
    assert fitted.read_bytes() == before
    assert query.read_bytes() == rows.read_bytes()


def test_a_fit_from_before_units_states_none(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    record = json.loads(fitted.read_text())
    del record["scene"]["unit"]
    fitted.write_text(json.dumps(record))
    assert mixlaw("optimize", fitted, "--n-params", 4e7, "--n-tokens", 1e9) == 0
    out = capsys.readouterr().out
    assert "(unit not stated)" in out
    assert "nats" not in out


@pytest.mark.parametrize(
    "text", ["{}", "[]", "3", '{"format": 2, "law": 3}', '{"format": 2', "\x00"]
)
def test_a_file_that_is_no_fit_is_named(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture, text: str
) -> None:
    path = tmp_path / "f.json"
    path.write_text(text)
    assert mixlaw("optimize", path) == 2
    assert f"{path}: not a saved fit" in capsys.readouterr().err
    path.write_text('{"format": 2, "law": {"name": "transfer", "options": null}, "scene": {}}')
    assert mixlaw("optimize", path) == 2
    assert f"{path}: not a saved fit" in capsys.readouterr().err


WHERE = ("--n-params", 1e8, "--n-tokens", 1e9)


def test_the_mixture_is_judged_against_the_best_tried_and_the_current(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    now = "web=.97,code=.01,wiki=.01,math=.01"
    assert mixlaw("optimize", fitted, *WHERE, "--current", now, "--json") == 0
    tried, current = json.loads(capsys.readouterr().out)["verdicts"]
    assert (tried["against"], current["against"]) == ("the best tried", "the current")
    assert current["kind"] == "distinguishable"
    assert current["mixture"]["web"] == pytest.approx(0.97)
    assert 0 < current["low"] < current["gain"] < current["high"]
    assert tried["gain"] < current["gain"]
    mixture = folder / "now.yaml"
    mixture.write_text("mixture:\n  ratios: {web: 0.97, code: 0.01, wiki: 0.01, math: 0.01}\n")
    assert mixlaw("optimize", fitted, *WHERE, "--current", mixture) == 0
    assert current["sentence"] in capsys.readouterr().out


def test_mixtures_have_their_names_where_the_table_is_given(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    table = ("--table", folder / "table")
    assert mixlaw("optimize", fitted, *WHERE, *table, "--current", "run3", "--json") == 0
    tried, current = json.loads(capsys.readouterr().out)["verdicts"]
    assert re.fullmatch(r"run[0-7], the best tried", tried["against"])
    assert current["against"] == "run3, the current"
    # The same without held-out errors in the file: they are measured on the table.
    plain = folder / "plain.json"
    assert mixlaw("fit", "--table", folder / "table", "--no-held-out", "--out", plain) == 0
    capsys.readouterr()
    assert mixlaw("optimize", plain, *WHERE, *table, "--current", "run3", "--json") == 0
    again = json.loads(capsys.readouterr().out)["verdicts"][1]
    assert again["low"] == pytest.approx(current["low"])
    assert mixlaw("optimize", plain, *WHERE, "--json") == 0
    [unknown] = json.loads(capsys.readouterr().out)["verdicts"]
    assert (unknown["kind"], unknown["low"], unknown["high"]) == ("can't tell", None, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("run3", "--current: expected DOMAIN=H or a YAML of a mixture, found 'run3'"),
        ("web=.5,code=.1", "the ratios must not be negative and sum to 1, found 0.6"),
        ("wep=1", "did you mean 'web'"),
        ("nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_a_current_mixture_that_is_none_is_refused(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture, given: str, message: str
) -> None:
    assert mixlaw("optimize", fitted, *WHERE, "--current", given) == 2
    assert message in capsys.readouterr().err
