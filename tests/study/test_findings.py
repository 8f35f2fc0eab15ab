"""What a report may claim: only what was held out, whatever the names in it are."""

import json
import re
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from invented import table_of
from markupsafe import escape
from tiny_study import STUDY

from olmo_mixlaw.cli.answer import jsonable
from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.study import analysis, findings, next_runs
from olmo_mixlaw.study.analysis import answer_of
from olmo_mixlaw.study.config import load_study, save_study
from olmo_mixlaw.study.failures import DONE
from olmo_mixlaw.study.findings import conclude
from olmo_mixlaw.study.next_runs import NextRuns
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.report_page import changes
from olmo_mixlaw.study.run import report_study
from olmo_mixlaw.study.worker import CHECKPOINTS


@pytest.fixture(scope="module")
def concluded(tmp_path_factory):
    """A study whose runs left their marks, and what it found; one of its mixtures is in use."""
    folder = tmp_path_factory.mktemp("concluded")
    path = folder / "tiny.yaml"
    path.write_text(STUDY.format(output=folder / "out"))
    study = load_study(path)
    study.target.current = next(iter(study.mixtures))
    for i, run in enumerate(plan(study)):
        place = folder / "out" / "runs" / run.run_id
        (place / CHECKPOINTS).mkdir(parents=True)
        (place / DONE).write_text(json.dumps({"seconds": {"train": 10.0 + i, "evaluate": 1.0}}))
        (place / CHECKPOINTS / "metrics.csv").write_text(
            "step,loss\n" + "".join(f"{step},{5 - step / 10}\n" for step in range(1, 31))
        )
    return study, conclude(study, table_of(study), folder / "out")


@pytest.fixture
def quick(monkeypatch):
    """No plan of next runs, and few refits."""
    monkeypatch.setattr(findings, "next_runs", lambda *_: NextRuns("No plan.", pd.DataFrame()))
    monkeypatch.setattr(analysis, "REPLICATES", 8)


def test_two_sizes_claim_nothing_of_a_size_held_out(concluded):
    _, found = concluded
    said, page = found.lines[0], found.report.read_text()
    assert " % on held-out mixtures)" in said
    assert "No size was held out (three are needed)" in said
    assert "largest size" not in said
    assert "without some mixtures, and scored there" in page
    assert "No size was held out" in page
    assert "largest size held out is below" not in page
    assert "no size was held out" in page


def test_the_document_holds_what_the_lines_say(concluded):
    _, found = concluded
    said = json.loads(json.dumps(jsonable(found.document), allow_nan=False))
    ratios = ", ".join(
        f"{row['domain']} {said['mixture'][row['domain']]:.2f} "
        f"({row['drawn_low']:.2f} to {row['drawn_high']:.2f})"
        for row in said["ranges"]
    )
    assert f"proposed mixture for w64 (and 90 % interval): {ratios}" in found.lines
    assert f"law chosen by held-out error: {said['choice']} " in found.lines[0]
    assert found.lines[-1] == f"report: {said['report']}"
    verdicts = [f"{verdict['kind']}: {verdict['sentence']}" for verdict in said["verdicts"]]
    warned = [f"mind: {warning}" for warning in said["warnings"]]
    assert [*verdicts, *warned] == found.lines[2:-2]
    assert verdicts
    assert json.loads((found.report.with_suffix(".json")).read_text()) == said


def test_three_sizes_claim_both(study_file, tmp_path, quick):
    study = load_study(study_file(), ("sizes=[w16,w32,w96]",))
    found = conclude(study, table_of(study), tmp_path / "out")
    said, page = found.lines[0], found.report.read_text()
    assert " % on held-out mixtures, " in said
    assert said.endswith(" % on the largest size, held out).")
    assert "and without the largest size" in page


def test_a_law_that_fails_on_the_table_is_a_note_and_not_the_end(study_file, tmp_path, quick):
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


def test_names_stay_text_in_the_report(study_file, tmp_path, quick):
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
    body = page[page.index("<main ") : page.index("</main>") + len("</main>")]
    ET.fromstring(body.replace("<br>", "<br/>"))  # well-formed: nothing broke out


def test_the_proposal_means_the_same_everywhere(study_file, tmp_path, monkeypatch, quick):
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


def test_the_report_says_which_runs_to_buy_next(concluded):
    study, found = concluded
    page = found.report.read_text()
    assert '<h2 id="next-runs-worth-buying">Next runs worth buying</h2>' in page
    later = found.document["next_runs"]
    assert later["said"].startswith(("Buy ", "No runs pay "))
    spent = sum(run.rung.training_flops(run.n_tokens) for run in plan(study))
    assert 0 < later["runs"]["price"].sum() <= 0.5 * spent
    made = {(run.rung.name, *np.round(list(run.ratios.values()), 4)) for run in plan(study)}
    shares = [f"w_{name}" for name in study.domains]
    asked = {(row["size"], *np.round(row[shares], 4)) for _, row in later["runs"].iterrows()}
    assert not made & asked


def test_a_report_without_a_plan_says_why(study_file, tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "REPLICATES", 8)
    monkeypatch.setattr(next_runs, "PART", 1e-9)
    study = load_study(study_file())
    found = conclude(study, table_of(study), tmp_path / "out")
    assert "No plan could be made: budget: " in found.report.read_text()
    assert found.document["next_runs"]["runs"].empty


def test_the_verdict_comes_first_with_its_interval_and_cautions(concluded):
    _, found = concluded
    [verdict, *_] = found.document["verdicts"]
    page = found.report.read_text()
    titles = re.findall(r"<h2 id=[^>]*>([^<]*)</h2>", page)
    assert titles[:3] == ["Verdict", "The proposed mixture", "What if"]
    card = page[page.index('class="card"') : page.index("The proposed mixture</h2>")]
    assert str(escape(verdict["kind"])) in card
    assert f"{verdict['low']:.2f} to {verdict['high']:.2f} %" in card
    assert all(str(escape(text)) in card for text in verdict["cautions"])


def test_every_domain_has_a_row_to_decide_by(concluded):
    study, found = concluded
    rows = found.document["ranges"]
    assert list(rows["domain"]) == list(study.domains)
    assert rows["best"].sum() == pytest.approx(1)
    assert (rows["low"] <= rows["best"] + 1e-9).all()
    assert (rows["best"] <= rows["high"] + 1e-9).all()
    assert dict(zip(rows["domain"], rows["current"], strict=True)) == pytest.approx(
        study.mixtures[study.target.current]
    )
    assert len(found.document["verdicts"]) == 2


def test_other_weights_are_priced_by_the_target_s_own(concluded):
    study, found = concluded
    what_if = found.document["what_if"]
    weighted = [row for row in what_if["scenarios"] if row["kind"] == "weights"]
    for row in weighted:
        assert sum(row["mixture"].values()) == pytest.approx(1)
        assert row["cost_percent"] > -0.2  # the proposal is the best but for its refits
    assert {row["what"] for row in weighted} >= {f"{d} weighted 2 times" for d in study.domains}


def test_a_scenario_is_made_again_by_its_command(study_file, tmp_path):
    study = load_study(study_file(), ("target.bounds.bio=[0.3,0.9]", "target.size=w32"))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "study.yaml").write_text(save_study(load_study(study_file())))
    overrides = changes(study, folder)
    assert overrides == ['target.size="w32"', "target.bounds.bio=[0.3, 0.9]"]
    assert load_study(study_file(), tuple(overrides)) == study


def test_scenarios_do_not_take_each_other_s_place(study_file, tmp_path, quick):
    study, out = load_study(study_file()), tmp_path / "out"
    table = table_of(study)
    first = conclude(study, table, out)
    before = first.report.read_bytes(), (out / "proposed.yaml").read_bytes()
    study.target.bounds = {next(iter(study.domains)): [0.5, 0.6]}
    second = conclude(study, table, out, name="more")
    assert second.report == out / "report-more.html"
    assert (first.report.read_bytes(), (out / "proposed.yaml").read_bytes()) == before
    assert json.loads((out / "report-more.json").read_text())["scenario"] == "more"
    assert "proposed-more.yaml" in (out / "proposed-more.yaml").read_text()
    assert second.document["ranges"]["best"].iloc[0] >= 0.5 - 1e-6


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-x", "a b"])
def test_a_scenario_s_name_is_part_of_a_file_s(study_file, tmp_path, name):
    study = load_study(study_file())
    with pytest.raises(ConfigError, match="--name: letters, digits"):
        conclude(study, table_of(study), tmp_path / "out", name=name)
    with pytest.raises(ConfigError, match="--name: letters, digits"):
        report_study("nowhere.yaml", name=name)  # before anything is read


def test_what_runs_left_is_shown_and_counted(concluded):
    study, found = concluded
    runs, cost, page = plan(study), found.document["cost"], found.report.read_text()
    assert cost["runs"].sum() == len(runs)
    assert cost["seconds"].sum() == sum(10.0 + i for i in range(len(runs)))
    assert page.count("<polyline") == len(runs)
    assert f"30 of {runs[0].steps}" in page
    links = re.findall(r'href="(runs/[^"]+)"', page)
    assert len(links) == len(runs)
    assert all((found.report.parent / unquote(link)).is_file() for link in links)
