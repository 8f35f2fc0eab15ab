"""The script that settles what only a GPU shows runs through on a CPU, with tiny shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("olmo")
pytest.importorskip("transformers")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("name", gpu.CHECKS)
def test_every_check_runs_through_on_a_cpu(name: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--here", name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found or name in ("fsdp_of_one", "compile")  # which need a GPU
    assert all(isinstance(value, float | int) for value in found.values())
    if name in ("reference", "resume"):
        limits = gpu.LIMITS[name]
        assert limits.keys() <= found.keys()
        assert all(gpu._within(found[key], limit) for key, limit in limits.items())


def test_a_figure_beyond_its_limit_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(figures: dict[str, float], code: int = 0) -> dict:
        done = subprocess.CompletedProcess([], code, json.dumps(figures), "a\nRuntimeError: no")
        monkeypatch.setattr(gpu.subprocess, "run", lambda *args, **kwargs: done)
        return gpu.run_check("moe_layer", "cuda")

    assert answered({"least_of_bound": 0.8})["failed"] == ""
    assert answered({"least_of_bound": 0.7})["failed"] == "least_of_bound is 0.7, goal 0.75"
    assert answered({}, code=1)["failed"] == "RuntimeError: no"


def test_every_limit_is_of_a_check() -> None:
    assert gpu.LIMITS.keys() <= gpu.CHECKS.keys()
