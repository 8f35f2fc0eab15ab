"""Mixtures that a study file doesn't list are drawn once, and kept."""

import json
import re

import pytest
import yaml

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study import recipes
from olmo_mixlaw.study.config import begun_study, load_study, save_study
from olmo_mixlaw.study.folders import write_study
from olmo_mixlaw.study.plan import plan

LISTED = """  low: {wiki: 0.8, bio: 0.2}
  mid: {wiki: 0.5, bio: 0.5}
  high: {wiki: 0.3, bio: 0.7}
"""


@pytest.fixture
def drawn_file(study_file):
    """Writes the tiny study with a recipe in place of its mixtures."""

    def write(recipe, name="drawn.yaml"):
        return study_file([(LISTED, f"  {recipe}\n")], name)

    return write


def begin(path, *overrides):
    """The study of a file, whose folder keeps it as a run of it would."""
    study = load_study(path, overrides)
    write_study(study, study_folder(study))
    return study


def study_folder(study):
    from pathlib import Path

    return Path(study.output)


def test_a_grid_has_every_mixture_of_its_step(drawn_file):
    study = load_study(drawn_file("grid: {step: 0.25, at_least: {wiki: 0.2}, at_most: {bio: 0.7}}"))
    assert study.mixtures == {
        "g100-0": {"wiki": 1.0},
        "g75-25": {"wiki": 0.75, "bio": 0.25},
        "g50-50": {"wiki": 0.5, "bio": 0.5},
    }


def test_a_finer_grid_has_the_mixtures_of_a_coarser_one(drawn_file):
    path = drawn_file("grid: {step: 0.25}")
    coarse, fine = load_study(path), load_study(path, ("mixtures.grid.step=0.125",))
    assert len(fine.mixtures) == 9
    assert coarse.mixtures.items() <= fine.mixtures.items()


def test_a_swarm_is_the_same_each_time_and_begins_a_larger_one(drawn_file):
    path = drawn_file("swarm: {n: 6, seed: 3, at_least: {bio: 0.1}}")
    first, more = load_study(path), load_study(path, ("mixtures.swarm.n=9",))
    assert load_study(path).mixtures == first.mixtures
    assert list(first.mixtures) == [f"m{i:04d}" for i in range(6)]
    assert list(more.mixtures.items())[:6] == list(first.mixtures.items())
    assert all(ratios.get("bio", 0) >= 0.1 - 1e-12 for ratios in more.mixtures.values())
    other = load_study(path, ("mixtures.swarm.seed=4",))
    assert other.mixtures != first.mixtures


def test_what_was_drawn_is_kept_by_the_folder(drawn_file, monkeypatch):
    path = drawn_file("swarm: {n: 5}")
    study = begin(path)
    # Another version would draw others.
    monkeypatch.setattr(recipes, "_made", lambda *_: pytest.fail("drawn again"))
    assert load_study(path) == study
    assert load_study(study.output).mixtures == study.mixtures
    assert plan(begun_study(study_folder(study))) == plan(study)


def test_a_swarm_that_grows_or_shrinks_keeps_what_the_folder_has(drawn_file, tmp_path):
    path = drawn_file("swarm: {n: 5}")
    study = begin(path)
    file = tmp_path / "out" / recipes.KEPT
    said = json.loads(file.read_text())
    said["mixtures"]["m0003"] = {"wiki": 0.123, "bio": 0.877}  # as an earlier version drew it
    file.write_text(json.dumps(said))
    grown = load_study(study.output, ("mixtures.swarm.n=8",))
    assert len(grown.mixtures) == 8
    assert grown.mixtures["m0003"] == {"wiki": 0.123, "bio": 0.877}
    assert list(load_study(path, ("mixtures.swarm.n=4",)).mixtures) == list(study.mixtures)[:4]


def test_the_studys_own_file_keeps_the_recipe(drawn_file):
    path = drawn_file("base: {wiki: 0.9, bio: 0.1}\n  swarm: {n: 5, least_ratio: 0.01}")
    study = load_study(path)
    assert next(iter(study.mixtures)) == "base"
    written = yaml.safe_load(save_study(study))
    assert written["mixtures"]["base"] == {"wiki": 0.9, "bio": 0.1}
    assert written["mixtures"]["swarm"]["least_ratio"] == 0.01
    assert set(written["mixtures"]) == {"base", "swarm"}
    again = path.with_name("again.yaml")
    again.write_text(save_study(study))
    assert load_study(again) == study


def test_a_table_is_read_and_known_by_what_it_holds(drawn_file, tmp_path):
    path = drawn_file("table: {path: ratios.csv}")
    (tmp_path / "ratios.csv").write_text("run,wiki,bio\na,0.8,0.2\nb,0.5,0.5\nc,0.25,0.75\n")
    study = begin(path)
    assert study.mixtures["c"] == {"wiki": 0.25, "bio": 0.75}
    (tmp_path / "ratios.csv").unlink()  # the folder keeps what it held
    assert load_study(study.output).mixtures == study.mixtures
    (tmp_path / "ratios.csv").write_text("run,wiki,bio\na,0.8,0.2\nb,0.4,0.6\nc,0.25,0.75\n")
    assert load_study(path).mixtures["b"] == {"wiki": 0.4, "bio": 0.6}


def test_a_planner_chooses_runs_of_the_grid_within_its_budget(drawn_file):
    whole = load_study(drawn_file("grid: {step: 0.25}", "grid.yaml"))
    spent = sum(run.rung.training_flops(run.n_tokens) for run in plan(whole))
    path = drawn_file(
        f"current: {{wiki: 0.8, bio: 0.2}}\n  planner: {{budget: {spent:.0f}, n: 12}}"
    )
    study = begin(path)
    runs = plan(study)
    assert {run.rung.name for run in runs} <= {"w16", "w32"}
    assert len(runs) >= 3
    assert sum(run.rung.training_flops(run.n_tokens) for run in runs) <= spent * 1.001
    assert "current" in study.mixtures
    assert plan(load_study(study.output)) == runs
    assert plan(load_study(path)) == runs


def test_a_mixture_may_be_called_like_a_recipe(study_file):
    study = load_study(study_file([("  mid:", "  swarm:")]))
    assert study.drawn is None
    assert study.mixtures["swarm"] == {"wiki": 0.5, "bio": 0.5}


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("grid: {step: 0.3}", r"mixtures.grid: step: 0.3: expected 1 divided by"),
        ("grid: {step: 0}", r"mixtures.grid: step: 0: expected"),
        ("grid: {step: 1e-5}", r"mixtures.grid: step: 1e-05: above 10000 mixtures"),
        ("grid: {step: .5, at_least: {sea: .1}}", r"mixtures.grid: at_least: unknown domain 'sea'"),
        ("grid: {step: .5, at_most: {wiki: .2, bio: .2}}", r"no mixture of this step meets"),
        ("swarm: {n: 0}", r"mixtures.swarm: n: 0: must be positive"),
        ("swarm: {n: 4, method: sobel}", r"mixtures.swarm: unknown method 'sobel'; did you mean"),
        ("swarm: {n: 4, prior: {wiki: 1}}", r"mixtures.swarm: .*leaves out bio"),
        ("swarm: {m: 4}", r"unknown key 'drawn.swarm.m'|unknown key"),
        ("swarm: {}", r"n: this key is required|n"),
        ("planner: {budget: cheap}", r"mixtures.planner: budget: 'cheap' is not a count"),
        ("planner: {budget: 10}", r"mixtures.planner: .*budget"),
        ("table: {path: none.csv}", r"mixtures.table: .*none.csv"),
        ("grid: {step: .5}\n  swarm: {n: 3}", r"one of grid, swarm, planner, table is needed"),
        ("m0001: {wiki: .5, bio: .5}\n  swarm: {n: 3}", r"makes a mixture m0001, which is listed"),
    ],
)
def test_a_recipe_that_can_make_nothing_is_refused(drawn_file, recipe, said):
    with pytest.raises(ConfigError) as error:
        load_study(drawn_file(recipe))
    assert re.search(said, str(error.value))


def test_a_damaged_file_of_mixtures_is_named(drawn_file, tmp_path):
    path = drawn_file("swarm: {n: 5}")
    begin(path)
    (tmp_path / "out" / recipes.KEPT).write_text("{")
    with pytest.raises(ConfigError, match=r"mixtures.json: is not what a study keeps"):
        load_study(path)


def test_a_study_of_listed_runs_needs_no_sizes_and_tokens(study_file):
    runs = (
        "runs: [{size: w16, tokens: 40_000, mixtures: [low, mid, high]}, {size: w32, "
        "tokens: 80_000, mixtures: [low, high], seeds: [3, 4]}]"
    )
    path = study_file(
        [("sizes: [w16, w32]\n", ""), ("tokens: [40_000]\n", ""), ("laws:", f"{runs}\nlaws:")]
    )
    study = load_study(path)
    assert (study.sizes, study.tokens) == (["w16", "w32"], [40_000, 80_000])
    assert len(plan(study)) == 7


@pytest.mark.parametrize(
    "change", [(), ("mixtures.m0007.wiki=0.0085", "mixtures.m0007.bio=0.9915")]
)
def test_very_many_listed_mixtures_are_read_as_few_are(study_file, monkeypatch, change):
    ratios = [round(0.001 * i, 3) for i in range(1, 251)]
    lines = "".join(
        f"  m{i:04d}: {{wiki: {r}, bio: {round(1 - r, 3)}}}\n" for i, r in enumerate(ratios)
    )
    path = study_file([(LISTED, lines)])
    many = load_study(path, change)
    monkeypatch.setattr("olmo_mixlaw.study.config.MANY", 1000)
    assert load_study(path, change) == many
    assert len(many.mixtures) == 250
    monkeypatch.undo()
    path.write_text(path.read_text().replace("wiki: 0.007,", "wiki: few,"))
    with pytest.raises(ConfigError, match=r"mixtures.m0006.wiki: Value 'few': expected a number"):
        load_study(path)
