"""Goal files: which tasks they name, how a family shares its weight, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo_mixlaw.advice.families import Families, Family, bare
from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.schema import read_mapping
from olmo_mixlaw.shipped import find_config, shipped_folder

TASKS = [
    "gsm8k::olmes",
    "minerva_math_algebra::olmes",
    "minerva_math_geometry::olmes",
    "codex_humaneval:3shot::none",
    "mt_mbpp_v2fix:java",
    "arc_easy:rc::olmes",
    "hellaswag:rc::olmes",
    "lighteval|piqa|5",
]
GOAL = """
math: {weight: 2, tasks: [gsm8k, minerva_math*]}
code: [codex_humaneval, "mt_mbpp*"]
qa: {tasks: {"arc*": 3, hellaswag: 1}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "goal.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def goal(tmp_path: Path) -> Families:
    return Families.load(written(tmp_path, GOAL))


def test_a_family_shares_its_weight_among_its_tasks(goal: Families) -> None:
    weights = goal.among(TASKS).task_weights(TASKS)
    assert weights == pytest.approx(
        {
            "gsm8k::olmes": 2 / 4 / 3,
            "minerva_math_algebra::olmes": 2 / 4 / 3,
            "minerva_math_geometry::olmes": 2 / 4 / 3,
            "codex_humaneval:3shot::none": 1 / 4 / 2,
            "mt_mbpp_v2fix:java": 1 / 4 / 2,
            "arc_easy:rc::olmes": 1 / 4 * 3 / 4,
            "hellaswag:rc::olmes": 1 / 4 * 1 / 4,
        }
    )
    assert goal.among(TASKS).family_of("gsm8k::olmes") == "math"
    assert goal.among(TASKS).family_of("lighteval|piqa|5") == ""


def test_what_cannot_be_predicted_leaves_its_weight_to_its_family(goal: Families) -> None:
    members = goal.among(TASKS)
    weights = members.task_weights([task for task in TASKS if task != "gsm8k::olmes"])
    assert weights["minerva_math_algebra::olmes"] == pytest.approx(1 / 4)
    only = members.task_weights(["gsm8k::olmes", "arc_easy:rc::olmes"])
    assert only == pytest.approx({"gsm8k::olmes": 2 / 3, "arc_easy:rc::olmes": 1 / 3})
    assert members.lost(["gsm8k::olmes", "arc_easy:rc::olmes"]) == ["code"]
    with pytest.raises(ConfigError, match="no task of math, code, qa can be predicted"):
        members.task_weights([])


def test_what_was_not_found_is_said(tmp_path: Path) -> None:
    text = "qa: [arc_easy, hellaswagg]\nmath: [gsm8k]\n"
    notes = Families.load(written(tmp_path, text)).among(TASKS).notes
    assert "qa.tasks: no run has hellaswagg (did you mean 'hellaswag'?)" in notes[0]
    assert "in no family, so they don't count: minerva_math_algebra::olmes," in notes[1]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("gsm8k", "gsm8k"),
        ("arc_easy:rc::olmes", "arc_easy"),
        ("lighteval|mmlu:abstract_algebra|5", "mmlu"),
        ("leaderboard|gsm8k|5|0", "gsm8k"),
        ("a|b", "a|b"),
    ],
)
def test_the_bare_name_of_a_task(task: str, name: str) -> None:
    assert bare(task) == name


def test_a_pattern_with_a_colon_is_of_one_format() -> None:
    family = Family("qa", 1.0, {"arc_easy:rc*": 1.0})
    assert family.share("arc_easy:rc::olmes") == 1.0
    assert family.share("arc_easy:mc::olmes") is None


def test_a_name_goes_before_a_glob_and_some_are_left_out() -> None:
    family = Family("qa", 1.0, {"arc*": 1.0, "arc_easy": 5.0, "!arc_hard": 1.0})
    shares = [family.share(task) for task in ("arc_challenge", "arc_easy:rc", "arc_hard", "boolq")]
    assert shares == [1.0, 5.0, None, None]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("math: [gsm8k]\nmore: ['gsm*']\n", ConfigError, r"more\.tasks: task 'gsm8k::olmes' is in"),
        ("math: [gsm9k]\n", UnknownNameError, r"math\.tasks: unknown task 'gsm9k'; did you mean"),
        ("math: {weight: -1, tasks: [gsm8k]}\n", ConfigError, r"math\.weight: must be a number"),
        ("math: {weight: .inf, tasks: [gsm8k]}\n", ConfigError, r"math\.weight: must be a number"),
        ("math: {tasks: {gsm8k: -2}}\n", ConfigError, r"math\.tasks\.gsm8k: must be a number"),
        ("math: {tasks: {gsm8k: many}}\n", ConfigError, r"math\.tasks\.gsm8k: must be a number"),
        ("math: {weight: 0, tasks: [gsm8k]}\n", ConfigError, "no family has a weight above 0"),
        ("math: {wight: 1, tasks: [gsm8k]}\n", ConfigError, "unknown key 'wight'; did you mean"),
        ("math: {weight: 1}\n", ConfigError, "tasks: this key is required"),
        ("math: []\n", ConfigError, r"math\.tasks: expected a list of names or globs"),
        ("math: 3\n", ConfigError, "math: expected a list of tasks, or a mapping"),
        ("math: ['!gsm8k']\n", ConfigError, r"math\.tasks: only leaves out"),
        ("math: {tasks: {3: 1}}\n", UnknownNameError, r"math\.tasks: unknown task '3'"),
        ("math: {tasks: {gsm8k: 1.0e+300}}\n", ConfigError, r"gsm8k: must be a number from 0 up"),
        ("math: {tasks: null}\n", ConfigError, r"math\.tasks: expected a list of names"),
        ("math: null\n", ConfigError, "math: expected a list of tasks, or a mapping"),
        ("eval: {tasks: {}}\n", ConfigError, "no family has a weight above 0"),
        ("eval: {tasks: {math: 3}}\nfiltering: 4\n", ConfigError, r"math\.tasks: expected a list"),
        ("[gsm8k]\n", ConfigError, "expected a mapping"),
    ],
)
def test_mistakes_name_the_file_and_the_key(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as found:
        Families.load(written(tmp_path, text)).among(TASKS)
    assert str(found.value).startswith(str(tmp_path / "goal.yaml"))


def test_families_of_an_olmix_configuration(tmp_path: Path) -> None:
    text = """
swarm: {ratios: r.csv, metrics: m.csv}
eval:
  type: offline
  tasks: {math: ["gsm8k::olmes"], code: ["codex_humaneval:3shot::none", "mt_mbpp_v2fix:java"]}
filtering: {obj_weights: {math: "1/4", code: 3/4}}
"""
    weights = Families.load(written(tmp_path, text)).among(TASKS).task_weights(TASKS)
    assert weights["gsm8k::olmes"] == pytest.approx(0.25)
    assert weights["mt_mbpp_v2fix:java"] == pytest.approx(0.375)
    with pytest.raises(ConfigError, match=r"obj_weights\.math: expected a number such as 2 or"):
        Families.load(written(tmp_path, text.replace('"1/4"', "1/0")))


@pytest.mark.parametrize("path", sorted(shipped_folder("configs/goals").glob("*.yaml")), ids=str)
def test_shipped_goals_are_read_and_have_no_task_twice(path: Path) -> None:
    found = Families.load(path.stem)
    names = [p.replace("*", "x") for family in found.families for p in family.patterns]
    weights = found.among(names).task_weights(names)
    assert sum(weights.values()) == pytest.approx(1)
    assert set(weights) == set(names)


def test_a_goal_of_the_suite_that_is_shipped_has_its_tasks() -> None:
    suite = read_mapping(find_config("eval_suites", "olmes-rc"))["tasks"]
    members = Families.load("olmes-rc").among(suite)
    assert members.notes == ()
    assert set(members.task_weights(suite)) == set(suite)


NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)


@given(NAMES, st.lists(st.floats(0.1, 10), min_size=10, max_size=10), st.data())
def test_weights_sum_to_one_and_families_keep_their_proportion(
    tasks: list[str], weights: list[float], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(tasks) - 1))
    parts = [part for part in (tasks[:cut], tasks[cut:]) if part]
    families = tuple(
        Family(str(i), weights[i], dict(zip(part, weights[2:], strict=False)))
        for i, part in enumerate(parts)
    )
    found = Families("goal", families).among(tasks).task_weights(tasks)
    assert sum(found.values()) == pytest.approx(1)
    total = sum(weights[: len(parts)])
    for i, part in enumerate(parts):
        assert sum(found[task] for task in part) == pytest.approx(weights[i] / total)
