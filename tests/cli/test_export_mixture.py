"""`olmo-mixlaw export mixture`: an optimum as the files of other trainers, and back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from olmo_mixlaw.swarm.listed import read_mixture

Command = Callable[..., int]
RATIOS = {"web": 0.6, "code": 0.3, "wiki": 0.1}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A mixture, a source list and an Olmix launch file."""
    mixture, sources, template = (tmp_path / f"{n}.yaml" for n in ("best", "sources", "launch"))
    mixture.write_text(yaml.safe_dump({"mixture": {"ratios": RATIOS}}))
    listed = {name: {"tokens": 10**9, "paths": [f"s3://b/{name}/*.npy"]} for name in RATIOS}
    sources.write_text(yaml.safe_dump({"sources": listed}))
    training = {"proxy_model_id": "olmo3_30m", "chinchilla_multiple": 5}
    launch = {"infra": {"budget": "b"}, "training": training, "eval": {"type": "inloop"}}
    template.write_text(yaml.safe_dump(launch))
    return mixture, sources, template


def test_both_forms_hold_the_mixture_and_are_read_back(
    mixlaw: Command, tmp_path: Path, files: tuple[Path, Path, Path]
) -> None:
    mixture, sources, template = files
    core, olmix = tmp_path / "core.yaml", tmp_path / "olmix.yaml"
    done = mixlaw(
        *("export", "mixture", mixture, sources, "--olmo-core", core),
        *("--olmix", olmix, "--template", template, "--run-tokens", "10B"),
    )
    assert done == 0
    for path in (core, olmix):
        assert read_mixture(path) == pytest.approx(RATIOS)
    often = {
        entry["source_name"]: entry.get("max_repetition_ratio", 1.0)
        for entry in yaml.safe_load(core.read_text())["sources"]
    }
    # 10 B tokens at .6 are six passes over 1 B.
    assert often["web"] >= 6
    assert often["wiki"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --olmo-core FILE or --olmix FILE"),
        (("--olmix", "a.yaml"), "--template: goes with --olmix"),
        (("--template", "a.yaml", "--olmo-core", "b.yaml"), "--template: goes with --olmix"),
    ],
)
def test_a_mistake_is_one_line(
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    files: tuple[Path, Path, Path],
    options: tuple[str, ...],
    said: str,
) -> None:
    assert mixlaw("export", "mixture", *files[:2], *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_source_that_the_list_lacks_is_named(
    mixlaw: Command, capsys: pytest.CaptureFixture, tmp_path: Path, files: tuple[Path, Path, Path]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"web": 0.9, "maths": 0.1}))
    out = tmp_path / "core.yaml"
    assert mixlaw("export", "mixture", other, files[1], "--olmo-core", out) == 2
    assert "maths" in capsys.readouterr().err
    assert not out.exists()
