"""`olmo-mixlaw fit`, and mistakes that all commands over a table refuse alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import grid, moe_design, scored_study, table_of, transfer_losses

Command = Callable[..., int]


def test_a_fit_is_printed_saved_and_drawn(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    saved, drawn = folder / "f.json", folder / "f.png"
    where = ("--table", folder / "table", "--out", saved, "--figure", drawn)
    assert mixlaw("fit", *where, "--law", "transfer", "--bootstrap", 10) == 0
    shown = capsys.readouterr().out
    assert "transfer: " in shown
    assert "held-out error" in shown
    assert saved.is_file()
    assert drawn.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--table", "no.csv"], "no.csv: no such file"),
        (["fit", "--table", "TABLE", "--law", "tranfser"], "did you mean 'transfer'"),
        (["fit", "--table", "TABLE", "--rho", "0.5"], "--rho: needs --capacity effective"),
        (["fit", "--table", "TABLE", "--bootstrap", "9"], "an interval needs 10 refits or more"),
        (["fit", "--table", "TABLE", "--chance", "quiz=25"], "--chance quiz=25: a score is a part"),
        (["fit", "--table", "TABLE", "--unit", "bytes"], "--unit: 'bytes' is none of nats, bits"),
        (["fit", "--table", "TABLE", "--target", "wep"], "unknown target 'wep'"),
        (["fit", "--table", "TABLE", "--size", "1e9"], "--size: is for --ratios"),
        (["fit", "--table", "TABLE", "--seed", "-1"], "Invalid value for '--seed'"),
        (["fit", "--table", "TABLE", "--weight-tolerance", "nan"], "a weight tolerance of nan"),
        (["compare", "--table", "TABLE", "--folds", "1"], "Invalid value for '--folds'"),
        (["fit"], "--table, or --ratios with --metrics"),
        (["optimize", "no.json"], "no.json: no such file"),
        (["compare", "--table", "TABLE", "--laws", "transfer,nope"], "--laws: unknown law 'nope'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    folder: Path,
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    assert mixlaw(*(folder / "table" if a == "TABLE" else a for a in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_benchmark_is_fitted_and_maximised(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    scored_study().save(tmp_path / "table")
    saved, scores = tmp_path / "f.json", tmp_path / "scores.json"
    where = ("--table", tmp_path / "table", "--out", saved, "--benchmark", scores)
    assert mixlaw("fit", *where, "--chance", "quiz=.25", "--chance", "coding=.25") == 0
    assert "points of score off where the largest size was held out" in capsys.readouterr().out
    how = ("--n-params", 1e8, "--n-tokens", 1e9, "--benchmark", scores)
    assert mixlaw("optimize", saved, *how, "--task-weight", "coding=1") == 0
    assert "predicted mean score" in capsys.readouterr().out
    assert mixlaw("optimize", saved, *how, "--task-weight", "cooking=1") == 2
    assert "did you mean 'coding'" in capsys.readouterr().err


def test_sparse_models_are_fitted_by_their_effective_size(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    active = np.repeat(moe_design().n_active[:, None], 4, 1).ravel()
    table, saved = tmp_path / "runs.csv", tmp_path / "f.json"
    table_of(moe_design()).losses.assign(n_active=active).to_csv(table, index=False)
    assert mixlaw("fit", "--table", table, "--out", tmp_path / "total.json") == 0
    assert "N counts all parameters; the table has active ones too" in capsys.readouterr().out
    assert mixlaw("fit", "--table", table, "--capacity", "effective", "--out", saved) == 0
    assert "rho" in capsys.readouterr().out
    where = ("--n-params", 1e9, "--n-tokens", 1e9)
    assert mixlaw("optimize", saved, *where, "--n-active", 1e8) == 0
    capsys.readouterr()
    assert mixlaw("optimize", saved, *where) == 2
    assert "capacity is effective: n_active is needed" in capsys.readouterr().err


def test_active_capacity_needs_active_counts(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    for command in (["fit", "--out", folder / "f.json"], ["compare", "--laws", "transfer"]):
        assert mixlaw(*command, "--table", folder / "table", "--capacity", "active") == 2
        assert "the table has no n_active" in capsys.readouterr().err
    assert not (folder / "f.json").exists()


def test_another_fit_is_put_aside_and_never_lost(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for _ in range(2):
        assert mixlaw("fit", "--table", "table") == 0
        assert "saved to fit.json\n" in capsys.readouterr().out
    first = (folder / "fit.json").read_bytes()
    assert mixlaw("fit", "--table", "table", "--law", "no_mixture") == 0
    said = "the fit of modulated to 24 runs that was there is now fit.1.json"
    assert said in capsys.readouterr().out
    assert (folder / "fit.1.json").read_bytes() == first
    assert mixlaw("fit", "--table", "table", "--out", "fit.json", "--target", "web") == 0
    assert "the fit of no_mixture" in capsys.readouterr().out
    assert (folder / "fit.1.json").read_bytes() == first
    assert (folder / "fit.2.json").is_file()
    (folder / "notes.txt").write_text("mine")
    assert mixlaw("fit", "--table", "table", "--out", "notes.txt") == 2
    assert "--out notes.txt: is there and is no saved fit" in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_swarm_in_bits_a_byte_keeps_its_unit_to_the_end(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    design = transfer_losses(grid(sizes=1, mixtures=16), noise=0.002)
    ids = {"run": design.run_ids}
    shares = dict(zip(design.domains, design.ratios.T, strict=True))
    pd.DataFrame({**ids, **shares, "spare": 0.0}).to_csv(tmp_path / "r.csv", index=False)
    scored = {f"quiz_{i}:rc::olmes": loss for i, loss in enumerate(design.losses.T)}
    pd.DataFrame({**ids, "_step": 9.0, **scored}).to_csv(tmp_path / "m.csv", index=False)
    saved, drawn = tmp_path / "f.json", tmp_path / "f.svg"
    swarm = ("--ratios", tmp_path / "r.csv", "--metrics", tmp_path / "m.csv")
    scale = ("--size", 1e7, "--tokens", 1e9)
    how = ("--law", "additive", "--out", saved, "--figure", drawn)
    assert mixlaw("fit", *swarm, *scale, *how) == 0
    out, err = capsys.readouterr()
    assert "4 targets in bits a byte" in out
    assert "bits/byte" in out
    assert "nats" not in out
    assert "left out: _step (bookkeeping)" in err
    assert "domains that no run has, left out: spare" in err
    assert mixlaw("optimize", saved, "--kl", 0.1) == 0
    out = capsys.readouterr().out
    assert out.startswith("additive, fitted to 16 runs")
    assert "bits a byte\nwith the pull towards the prior" in out
    assert "nats" not in out
    assert mixlaw("compare", *swarm, *scale, "--laws", "no_mixture,additive") == 0
    assert "regret bits a byte" in capsys.readouterr().out


def test_how_well_mixtures_are_told_apart_is_measured_and_said(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    losses = folder / "table" / "losses.csv"
    frame = pd.read_csv(losses)
    noise = np.random.default_rng(3).normal(size=len(frame))
    frame.assign(loss=2.5 * np.exp(0.02 * noise)).to_csv(losses, index=False)
    saved, best = folder / "f.json", folder / "best.yaml"
    assert mixlaw("fit", "--table", folder / "table", "--law", "additive", "--out", saved) == 0
    said = capsys.readouterr().out
    assert "R2 between mixtures held out -" in said
    assert "NO ANSWER: mixtures can't be told apart by this table" in said
    scale = ("--n-params", 4e7, "--n-tokens", 1e9)
    assert mixlaw("optimize", saved, *scale, "--out", best) == 0
    assert capsys.readouterr().out.startswith("NO ANSWER")
    assert best.read_text().startswith("# NO ANSWER")
    assert mixlaw("compare", "--table", folder / "table", "--laws", "no_mixture,additive") == 0
    assert "\nNO ANSWER: mixtures can't be told apart" in capsys.readouterr().out


def test_many_parameters_are_summed_up_unless_asked_for(
    folder: Path, mixlaw: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("olmo_mixlaw.cli.fit.MOST_SHOWN", 10)
    asked = ("fit", "--table", folder / "table", "--law", "transfer", "--no-held-out")
    assert mixlaw(*asked, "--out", folder / "a.json") == 0
    short = capsys.readouterr().out
    assert "all of them: --parameters" in short
    assert "T[code]" not in short
    assert mixlaw(*asked, "--out", folder / "b.json", "--parameters") == 0
    assert "T[code]" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_a_figure_that_cannot_be_saved_is_refused_before_the_work(
    command: str, folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    out = folder / "result"
    asked = (command, "--table", folder / "table", "--out", out, "--figure", folder / "f.docx")
    assert mixlaw(*asked) == 2
    assert "--figure" in capsys.readouterr().err
    assert not out.exists()


def test_counts_are_read_as_people_write_them(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    shown = []
    for size, tokens, has in (("8e7", "1e9", "2e8"), ("80M", "1B", "200M")):
        asked = ("--n-params", size, "--n-tokens", tokens, "--available", f"web={has}")
        assert mixlaw("optimize", fitted, *asked) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
