"""`olmo-mixlaw reuse`: from an old mixture to a reduced list, and from its optimum to the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from law_tables import grid, table_of, transfer_losses

from olmo_mixlaw.runs.importers import two_files
from olmo_mixlaw.swarm.config import read_sources

Command = Callable[..., int]
OLD = "sources: {web: {parts: {science: 6B, games: 4B}}, wiki: 2B, pages: 8B}\n"
NEW = """
sources:
  web: {parts: {science: 6B, games: 4B}}
  wiki: 2B
  pages: {parts: {law: 2B, health: 6B}}
  code: 5B
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "old.yaml").write_text(OLD)
    (tmp_path / "new.yaml").write_text(NEW)
    ratios = {"web:science": 0.3, "web:games": 0.1, "wiki": 0.2, "pages": 0.4}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"mixture": {"ratios": ratios}}))
    return tmp_path


def test_a_change_is_planned_written_and_expanded(
    place: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    given = ("reuse", place / "mixture.yaml", place / "new.yaml", "--old-sources")
    reduced, whole = place / "reduced.yaml", place / "whole.yaml"
    assert mixlaw(*given, place / "old.yaml", "--out", reduced) == 0
    shown = capsys.readouterr().out
    assert "split     pages:law, pages:health" in shown
    assert "added     code" in shown
    assert "kept      web:science 0.500, wiki 0.333, web:games 0.167" in shown
    assert "about 15 runs, where a swarm over all 6 takes 21" in shown
    tree = read_sources([str(reduced)])
    assert tree.names == ("existing", "pages:law", "pages:health", "code")
    best = {"existing": 0.5, "pages:law": 0.1, "pages:health": 0.15, "code": 0.25}
    (place / "best.yaml").write_text(yaml.safe_dump({"mixture": {"ratios": best}}))
    expand = (place / "old.yaml", "--expand", place / "best.yaml")
    assert mixlaw(*given, *expand, "--out", whole) == 0
    assert "saved the mixture of all 6 sources" in capsys.readouterr().out
    assert yaml.safe_load(whole.read_text())["mixture"]["ratios"] == pytest.approx(
        {"web:science": 0.25, "web:games": 0.25 / 3, "wiki": 0.5 / 3, "pages:law": 0.1}
        | {"pages:health": 0.15, "code": 0.25}
    )


def test_json_says_the_plan(place: Path, mixlaw: Command, capsys: pytest.CaptureFixture) -> None:
    given = (place / "mixture.yaml", place / "new.yaml", "--free", "wiki", "--json")
    assert mixlaw("reuse", *given) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["changes"] == {
        "wiki": "freed",
        "pages:law": "split",
        "pages:health": "split",
        "code": "added",
    }
    assert said["kept"] == pytest.approx({"web:science": 0.75, "web:games": 0.25})
    assert said["units"] == ["existing", "wiki", "pages:law", "pages:health", "code"]
    assert (said["runs"], said["full_units"], said["full_runs"]) == (18, 6, 21)
    assert said["mixture"] is None


def test_all_sources_are_written_to_be_drawn_about_the_old_mixture(
    place: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    given = ("reuse", place / "mixture.yaml", place / "new.yaml", "--all-free")
    assert mixlaw(*given, "--out", place / "all.yaml") == 0
    tree = read_sources([str(place / "all.yaml")])
    names = ("web:science", "web:games", "wiki", "pages:law", "pages:health", "code")
    assert tree.names == names
    assert tree.prior == pytest.approx([0.225, 0.075, 0.15, 0.075, 0.225, 0.25])
    assert mixlaw(*given, "--expand", place / "mixture.yaml") == 2
    assert "so there is no --expand" in capsys.readouterr().err


def test_old_and_new_runs_become_one_table_that_fit_takes(
    place: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    names = ["web:science", "web:games", "wiki", "pages"]
    rng = np.random.default_rng(0)
    fewer = NEW.replace("  wiki: 2B\n", "")
    (place / "new.yaml").write_text(fewer)
    units = ["existing", "pages:law", "pages:health", "code"]
    for swarm, columns, tasks in (("old", names, "ab"), ("new", units, "bc")):
        head = pd.DataFrame({"run": ["m0", "m1", "m2"], "name": "x", "index": range(3)})
        ratios = pd.DataFrame(rng.dirichlet(np.ones(4), 3), columns=columns)
        metrics = pd.DataFrame(rng.uniform(1, 2, (3, 2)), columns=[f"{t}_bpb" for t in tasks])
        pd.concat([head, ratios], axis=1).to_csv(place / f"{swarm}.csv", index=False)
        pd.concat([head, metrics], axis=1).to_csv(place / f"{swarm}-bpb.csv", index=False)
    given = (place / "mixture.yaml", place / "new.yaml", "--old-sources", place / "old.yaml")
    runs = ("--old-runs", place / "old.csv", place / "old-bpb.csv")
    runs += ("--new-runs", place / "new.csv", place / "new-bpb.csv")
    assert mixlaw("reuse", *given, *runs, "--out", place / "both") == 0
    said = capsys.readouterr()
    assert "6 runs over 6 sources" in said.out
    assert '--at-most "wiki=0"' in said.out
    assert "2 metrics are of one swarm only: c_bpb, a_bpb" in said.err
    design = two_files(place / "both/ratios.csv", place / "both/metrics.csv").design()
    assert design.run_ids == ["old-m0", "old-m1", "old-m2", "m0", "m1", "m2"]
    assert design.domains == [
        "web:science",
        "web:games",
        "pages:law",
        "pages:health",
        "code",
        "wiki",
    ]
    old, new = (pd.read_csv(place / f"{swarm}.csv") for swarm in ("old", "new"))
    assert design.ratios[:3, 2] == pytest.approx(old["pages"].to_numpy() / 4)
    assert design.ratios[:3, 5] == pytest.approx(old["wiki"].to_numpy())
    assert design.ratios[3:, 0] == pytest.approx(new["existing"].to_numpy() * 0.75)
    expected = [pd.read_csv(place / f"{swarm}-bpb.csv")["b_bpb"] for swarm in ("old", "new")]
    assert design.losses[:, 0] == pytest.approx(np.concatenate(expected))
    again = ("--old-runs", place / "both/ratios.csv", place / "both/metrics.csv", *runs[3:])
    assert mixlaw("reuse", *given, *again, "--out", place / "both") == 2
    assert "both/ratios.csv: is read by this command" in capsys.readouterr().err
    assert mixlaw("reuse", *given, *runs[:3], "--out", place / "both") == 2
    assert "--old-runs, --new-runs and --out (a folder) go together" in capsys.readouterr().err


def test_a_removal_gives_the_mixture_at_once(
    place: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    (place / "fewer.yaml").write_text("sources: {web: {parts: {science: 6B, games: 4B}}, wiki: 2B}")
    out = place / "whole.yaml"
    assert mixlaw("reuse", place / "mixture.yaml", place / "fewer.yaml", "--out", out) == 0
    assert "no runs are needed" in capsys.readouterr().out
    assert yaml.safe_load(out.read_text())["mixture"]["ratios"] == pytest.approx(
        {"web:science": 0.5, "web:games": 1 / 6, "wiki": 1 / 3}
    )


def test_a_fit_of_the_old_runs_names_neighbours(
    place: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    table_of(transfer_losses(grid(sizes=3, mixtures=8), noise=0.003)).save(place / "table")
    assert mixlaw("fit", "--table", place / "table", "--out", place / "fit.json") == 0
    domains = json.loads((place / "fit.json").read_text())["scene"]["domains"]
    ratios = dict(zip(domains, np.full(len(domains), 1 / len(domains)).tolist(), strict=True))
    (place / "m.yaml").write_text(yaml.safe_dump(ratios))
    (place / "same.yaml").write_text(yaml.safe_dump({"sources": dict.fromkeys(domains, 10**9)}))
    capsys.readouterr()
    given = ("reuse", place / "m.yaml", place / "same.yaml", "--revised", domains[0], "--json")
    how = ("--neighbours", 1, "--fit", place / "fit.json")
    assert mixlaw(*given, *how) == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["changes"].values()) == ["freed", "revised"]
    assert mixlaw(*given, "--neighbours", 1) == 2
    assert "--neighbours and --fit: each needs the other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("mixture", "pages: 0.4", "pages: 0.3"), "mixture.yaml: the ratios sum to 0.9, not 1"),
        (("mixture", "pages:", "page:"), "unknown source 'page'; did you mean 'pages'"),
        (
            ("best", "", "{existing: 0.5, codes: 0.5}"),
            "unknown source 'codes'; did you mean 'code'",
        ),
        (("best", "", "{existing: 0.5}"), "the ratios sum to 0.5, not 1"),
        (("new", "", OLD), "new.yaml: nothing changed, so the old mixture stands"),
        (("new", "", "sources: {code: 1B}"), "new.yaml: everything changed"),
        (("new", "5B", "many"), "new.yaml"),
    ],
)
def test_mistakes_are_one_line_before_any_file(
    place: Path,
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    change: tuple[str, str, str],
    message: str,
) -> None:
    name, old, new = change
    path = place / f"{name}.yaml"
    path.write_text(path.read_text().replace(old, new) if old else new)
    given = [place / "mixture.yaml", place / "new.yaml", "--old-sources", place / "old.yaml"]
    if name == "best":
        given += ["--expand", path]
    assert mixlaw("reuse", *given, "--out", place / "out.yaml") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (place / "out.yaml").exists()


def test_what_is_read_is_not_written_over(
    place: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    given = (place / "mixture.yaml", place / "new.yaml", "--out", place / "new.yaml")
    assert mixlaw("reuse", *given) == 2
    assert "is read by this command" in capsys.readouterr().err
