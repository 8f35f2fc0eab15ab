"""What a study takes: hours and money, on this machine as measured or on stated hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from olmo_mixlaw.advice.design.prices import SECONDS_AN_HOUR, UTILISATION
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.schema import parse_count
from olmo_mixlaw.study.estimate import Estimate
from olmo_mixlaw.study.paces import works
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.resources import processes
from olmo_mixlaw.study.settings import StudyConfig


@dataclass(frozen=True)
class Hardware:
    """A GPU: operations a second, dense, in 16 and in 32 bits, and bytes of memory."""

    name: str
    bf16: float
    fp32: float
    memory: float

    def peak(self, precision: str) -> float:
        """Operations a second in a study's precision."""
        return self.fp32 if precision == "fp32" else self.bf16


# By NVIDIA's and AMD's data sheets: tensor cores without sparsity in 16 bits (V100: fp16, the
# others bf16), and plain 32 bits. B200: one of the eight of an HGX.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Hardware("v100", 125e12, 15.7e12, 32e9),
        Hardware("a100", 312e12, 19.5e12, 80e9),
        Hardware("l40s", 362e12, 91.6e12, 48e9),
        Hardware("h100", 989e12, 67e12, 80e9),
        Hardware("h200", 989e12, 67e12, 141e9),
        Hardware("b200", 2250e12, 75e12, 180e9),
        Hardware("mi300x", 1307e12, 163.4e12, 192e9),
    )
}


@dataclass(frozen=True)
class Cost:
    """`wall` seconds from beginning to end and `busy` seconds of one device; `dollars` if known."""

    on: str
    device: str
    wall: float
    busy: float
    dollars: float | None = None
    seconds_a_step: Mapping[str, float] | None = None


def hardware(name: str, where: str = "--hardware") -> Hardware:
    """A GPU by its name, or one of so many operations a second (`312T`). Raises `ConfigError`."""
    if name.lower() in GPUS:
        return GPUS[name.lower()]
    if not name[:1].isdigit():
        raise unknown_name("hardware", name, GPUS, where)
    peak = parse_count(name, where)
    return Hardware(name, peak, peak, float("inf"))


def on_hardware(
    study: StudyConfig,
    runs: list[Run],
    gpu: Hardware,
    mfu: float = UTILISATION,
    price: float | None = None,
) -> Cost:
    """The time of `runs` on GPUs of which training reaches the part `mfu`, at a price an hour.

    Raises `ConfigError` for a model whose weights and optimizer one such GPU can't hold.
    """
    if not 0 < mfu <= 1:
        raise ConfigError(f"--mfu: {mfu:g}: expected above 0, and 1 at most")
    if price is not None and not price >= 0:
        raise ConfigError(f"--price: {price:g}: must not be negative")
    largest = max((run.rung for run in runs), key=lambda rung: rung.training_bytes)
    if largest.training_bytes > gpu.memory:
        raise ConfigError(
            f"--hardware {gpu.name}: {largest.name}: weights and optimizer take "
            f"{largest.training_bytes / 1e9:.3g} GB, above the {gpu.memory / 1e9:.3g} GB of one"
        )
    each, peak = processes(study), gpu.peak(study.training.precision) * mfu
    paces = {run.rung.name: run.rung.step_flops / (peak * each) for run in runs}
    wall, busy = _laid_out(study, runs, Estimate(works(runs), study.workers, paces))
    hours = busy * each / SECONDS_AN_HOUR
    said = f"{gpu.name}, {study.workers * each} at once, {100 * mfu:.3g} % of {peak / mfu:.3g}/s"
    return Cost(said, "GPU", wall, busy * each, None if price is None else price * hours, paces)


def on_this_machine(
    study: StudyConfig, runs: list[Run], paces: Mapping[str, float], on: str
) -> Cost:
    """The time of `runs` by seconds a step of some sizes, measured here."""
    estimate = Estimate(works(runs), study.workers, dict(paces))
    wall, busy = _laid_out(study, runs, estimate)
    return Cost(on, "worker", wall, busy, None, dict(paces))


def _laid_out(study: StudyConfig, runs: list[Run], estimate: Estimate) -> tuple[float, float]:
    """Seconds from beginning to end, and in all workers together."""
    wall = estimate.left([], [run.run_id for run in runs], 0.0) or 0.0
    return wall, sum(estimate.seconds(work) or 0.0 for work in estimate.works.values())
