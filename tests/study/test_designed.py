"""Studies that list their runs in place of the grid, and how a plan becomes one."""

import pytest

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.config import load_study, save_study
from olmo_mixlaw.study.designed import designed
from olmo_mixlaw.study.plan import plan

RUNS = (
    "runs: [{size: w16, tokens: 40_000, mixtures: [low, mid, high]}, {size: w32, tokens: 40_000, \
mixtures: [low], seeds: [3, 4]}]"
)


def with_runs(study_file, runs=RUNS):
    return study_file([("laws:", f"{runs}\nlaws:")])


def test_only_the_runs_listed_are_trained(study_file):
    study = load_study(with_runs(study_file))
    found = {(run.rung.name, run.mixture, run.seed) for run in plan(study)}
    small = {("w16", name, 1) for name in ("low", "mid", "high")}
    assert found == small | {("w32", "low", 3), ("w32", "low", 4)}


def test_a_study_that_lists_its_runs_is_saved_and_read_again(study_file, tmp_path):
    study = load_study(with_runs(study_file))
    again = tmp_path / "again.yaml"
    again.write_text(save_study(study))
    assert plan(load_study(again)) == plan(study)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("runs: [{size: w64, tokens: 40_000, mixtures: [low]}]", r"runs\[0\].size: .*'w64'"),
        ("runs: [{size: w16, tokens: 7, mixtures: [low]}]", r"runs\[0\].tokens: 7: is none of"),
        ("runs: [{size: w16, tokens: 40_000, mixtures: [lo]}]", r"runs\[0\].mixtures: .*'lo'"),
        ("runs: [{size: w16, tokens: 40_000, mixtures: []}]", "mixtures: at least one is needed"),
        (
            "runs: [{size: w16, tokens: 40_000, mixtures: [low, low]}]",
            "mixtures: low stands there twice",
        ),
        (
            "runs: [{size: w16, tokens: 40_000, mixtures: [low], seeds: [-1]}]",
            r"runs\[0\].seeds: expected 0",
        ),
        ("runs: [{size: w16, tokens: 40_000}]", r"runs.*mixtures"),
    ],
)
def test_runs_outside_the_grid_are_refused(study_file, runs, said):
    with pytest.raises(ConfigError, match=said):
        load_study(with_runs(study_file, runs))


def test_a_plan_becomes_a_study_of_its_runs(study_file):
    study = load_study(study_file())
    first, second = (0.333333, 0.666667), (0.5, 0.5)
    found = designed(
        study, [("w32", 40_000, first, 1), ("w16", 40_000, first, 2), ("w16", 20_000, second, 1)]
    )
    assert found.output == f"{study.output}-next"
    assert found.sizes == ["w32", "w16"]
    assert found.tokens == [20_000, 40_000]
    assert found.mixtures == {
        "m001": {"wiki": 0.3333, "bio": 0.6667},
        "m002": {"wiki": 0.5, "bio": 0.5},
    }
    runs = [(run.rung.name, run.mixture, run.n_tokens > 30_000, run.seed) for run in plan(found)]
    assert sorted(runs) == [
        ("w16", "m001", True, 1),
        ("w16", "m001", True, 2),
        ("w16", "m002", False, 1),
        ("w32", "m001", True, 1),
    ]
