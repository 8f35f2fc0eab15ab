"""What a report may claim: only what was held out, whatever the names in it are."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.cli.answer import jsonable
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study import next_runs
from olmo_mixlaw.study.analysis import answer_of
from olmo_mixlaw.study.checks import planned_design
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.findings import conclude
from olmo_mixlaw.study.plan import plan


def table_of(study, seed=0):
    """The table of a study's planned runs, its losses invented."""
    runs = plan(study)
    design = planned_design(study, runs)
    size = (design.n_params * design.n_tokens)[:, None]
    noise = np.random.default_rng(seed).normal(0, 0.003, design.ratios.shape)
    losses = (1.5 + 2 * (size * (design.ratios + 0.1)) ** -0.15) * np.exp(noise)
    rows = [
        {
            "run_id": run.run_id,
            "n_params": run.rung.n_params,
            "n_tokens": run.n_tokens,
            **{f"w_{d}": run.ratios.get(d, 0.0) for d in study.domains},
            "domain": domain,
            "loss": losses[i, j],
        }
        for i, run in enumerate(runs)
        for j, domain in enumerate(study.domains)
    ]
    return RunTable(pd.DataFrame(rows))


def test_two_sizes_claim_nothing_of_a_size_held_out(study_file, tmp_path):
    study = load_study(study_file())
    found = conclude(study, table_of(study), tmp_path / "out")
    said, page = found.lines[0], found.report.read_text()
    assert " % on held-out mixtures)" in said
    assert "No size was held out (three are needed)" in said
    assert "largest size" not in said
    assert "without some mixtures, and scored there" in page
    assert "No size was held out" in page
    assert "largest size held out is above" not in page
    assert "no size was held out" in page


def test_the_document_holds_what_the_lines_say(study_file, tmp_path):
    study = load_study(study_file())
    found = conclude(study, table_of(study), tmp_path / "out")
    said = json.loads(json.dumps(jsonable(found.document), allow_nan=False))
    ratios = ", ".join(
        f"{row['domain']} {said['mixture'][row['domain']]:.2f} "
        f"({row['drawn_low']:.2f} to {row['drawn_high']:.2f})"
        for row in said["ranges"]
    )
    assert f"proposed mixture for w64 (and 90 % interval): {ratios}" in found.lines
    assert f"law chosen by held-out error: {said['choice']} " in found.lines[0]
    assert found.lines[-1] == f"report: {said['report']}"
    assert [f"mind: {warning}" for warning in said["warnings"]] == found.lines[2:-2]


def test_three_sizes_claim_both(study_file, tmp_path):
    study = load_study(study_file(), ("sizes=[w16,w32,w96]",))
    found = conclude(study, table_of(study), tmp_path / "out")
    said, page = found.lines[0], found.report.read_text()
    assert " % on held-out mixtures, " in said
    assert said.endswith(" % on the largest size, held out).")
    assert "and without the largest size" in page


def test_a_law_that_fails_on_the_table_is_a_note_and_not_the_end(study_file, tmp_path):
    study = load_study(study_file())
    study.laws = ["two_pool", "no_mixture"]
    found = conclude(study, table_of(study), tmp_path / "out")
    assert any("law two_pool is left out" in line for line in found.lines)
    assert "law two_pool is left out" in found.report.read_text()
    study.laws = ["two_pool"]
    with pytest.raises(FitError, match="no law can be fitted to these runs; law two_pool"):
        answer_of(study, table_of(study))


def test_a_study_without_laws_ends_with_its_table(study_file, tmp_path):
    study = load_study(study_file([("laws: [no_mixture, transfer]", "laws: []")]))
    found = conclude(study, table_of(study), tmp_path / "out")
    assert found.report is None
    assert found.document == {"table": tmp_path / "out" / "table"}
    assert "no laws were asked for" in found.lines[0]
    assert not (tmp_path / "out" / "report.html").exists()


def test_names_stay_text_in_the_report(study_file, tmp_path):
    evil = "<img src=x onerror=alert(1)>&$\\frac{_^"
    path = study_file([("wiki:", "'WIKI':"), ("name: tiny", "name: tiny")])
    text = path.read_text().replace("'WIKI'", '"w&$x_^{"').replace("low:", '"m&$y":')
    path.write_text(text.replace("name: tiny", f"name: '{evil}'"))
    study = load_study(path)
    study.domains = {evil if d != "bio" else d: uri for d, uri in study.domains.items()}
    study.mixtures = {
        name: {evil if d != "bio" else d: v for d, v in ratios.items()}
        for name, ratios in study.mixtures.items()
    }
    page = conclude(study, table_of(study), tmp_path / "out").report.read_text()
    assert "<img" not in page
    assert "onerror" in page  # as text
    body = page[page.index("<main>") : page.index("</main>") + len("</main>")]
    ET.fromstring(body.replace("<br>", "<br/>"))  # well-formed: nothing broke out


def test_the_proposal_means_the_same_everywhere(study_file, tmp_path, monkeypatch):
    import yaml

    study = load_study(study_file())
    monkeypatch.chdir(tmp_path)
    study.output = "somewhere else/out"
    conclude(study, table_of(study), tmp_path / "somewhere else" / "out")
    text = (tmp_path / "somewhere else" / "out" / "proposed.yaml").read_text()
    config = yaml.safe_load(text)
    out = tmp_path / "somewhere else" / "out"
    assert config["tokenizer"]["identifier"] == str(out / "data" / "tokenizer.json")
    assert config["save_folder"] == str(out / "proposed")
    assert config["mixture"]["cache_dir"] == str(out / "data")
    assert f"olmo-mixlaw train '{out / 'proposed.yaml'}'" in text


def test_the_report_says_which_runs_to_buy_next(study_file, tmp_path):
    study = load_study(study_file())
    found = conclude(study, table_of(study), tmp_path / "out")
    page = found.report.read_text()
    assert "<h2>Next runs worth buying</h2>" in page
    later = found.document["next_runs"]
    assert later["said"].startswith(("Buy ", "No runs pay "))
    spent = sum(run.rung.training_flops(run.n_tokens) for run in plan(study))
    assert 0 < later["runs"]["price"].sum() <= 0.5 * spent
    made = {(run.rung.name, *np.round(list(run.ratios.values()), 4)) for run in plan(study)}
    shares = [f"w_{name}" for name in study.domains]
    asked = {(row["size"], *np.round(row[shares], 4)) for _, row in later["runs"].iterrows()}
    assert not made & asked


def test_a_report_without_a_plan_says_why(study_file, tmp_path, monkeypatch):
    monkeypatch.setattr(next_runs, "PART", 1e-9)
    study = load_study(study_file())
    found = conclude(study, table_of(study), tmp_path / "out")
    assert "No plan could be made: budget: " in found.report.read_text()
    assert found.document["next_runs"]["runs"].empty
