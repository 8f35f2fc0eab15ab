"""A study's plan as `study plan` shows it: a line a run, then what all of them take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmo_mixlaw.cli.answer import Answer
from olmo_mixlaw.cli.tables import Column, is_terminal, show_table
from olmo_mixlaw.errors import ConfigError, complain
from olmo_mixlaw.models.ladder import short
from olmo_mixlaw.study import probe as probes
from olmo_mixlaw.study.cost import Cost, hardware, on_hardware, on_this_machine
from olmo_mixlaw.study.needs import needs_of
from olmo_mixlaw.study.paces import finished, learned
from olmo_mixlaw.study.progress import duration

# Seconds of a step below which a GPU waits for its host: some hundred launches of about 10 us.
LAUNCHED = 5e-3

if TYPE_CHECKING:
    from olmo_mixlaw.study.plan import Run
    from olmo_mixlaw.study.settings import StudyConfig


def flops_of(runs: list[Run]) -> list[float]:
    """The operations of each run, counted once a size."""
    each = {run.rung.name: run.rung.flops_per_token for run in runs}
    return [each[run.rung.name] * run.n_tokens for run in runs]


def row_of(run: Run, flops: float) -> dict[str, Any]:
    """A run as `--json` has it."""
    return {
        "run_id": run.run_id,
        "n_params": run.rung.n_params,
        "n_active": run.rung.n_active,
        "n_tokens": run.n_tokens,
        "seed": run.seed,
        "flops": flops,
        "mixture": run.mixture,
        "ratios": run.ratios,
    }


def rows_text(answer: Answer, runs: list[Run]) -> None:
    """A line a run."""
    if answer.as_json:
        return
    columns = [
        Column("run", 28),
        Column("parameters", 10, right=True),
        Column("tokens", 8, right=True),
        Column("FLOPs", 9, right=True),
        Column(" mixture"),
    ]
    said = {id(run.ratios): " ".join(f"{k} {v:.4g}" for k, v in run.ratios.items()) for run in runs}
    params = {run.rung.name: short(run.rung.n_params) for run in runs}
    rows = [
        [
            run.run_id,
            params[run.rung.name],
            short(run.n_tokens),
            f"{flops:.2e}",
            f" {said[id(run.ratios)]}",
        ]
        for run, flops in zip(runs, flops_of(runs), strict=True)
    ]
    show_table(answer, columns, rows)


def costs_of(
    study: StudyConfig,
    runs: list[Run],
    where: str,
    probe: bool | None,
    gpu: str | None,
    mfu: float | None,
    price: float | None,
) -> dict[str, Any]:
    """Operations, tokens, time and money of all runs; time of those that aren't finished.

    Raises `ConfigError` for options that don't go together.
    """
    done = finished(runs, Path(study.output))
    left = [run for run in runs if run.run_id not in done]
    found: dict[str, Any] = {
        "flops": sum(flops_of(runs)),
        "tokens": sum(run.n_tokens for run in runs),
        "finished": len(runs) - len(left),
    }
    cost: Cost | None = None
    if gpu is not None:
        if probe:
            raise ConfigError("--probe: measures this machine; leave out --hardware")
        how = {} if mfu is None else {"mfu": mfu}
        cost = on_hardware(study, left, hardware(gpu), price=price, **how) if left else None
    elif mfu is not None or price is not None:
        raise ConfigError("--mfu and --price go with --hardware")
    elif left:
        cost = _measured(study, runs, left, where, probe)
    found["cost"] = None if cost is None else dataclasses.asdict(cost)
    found["needs"] = dataclasses.asdict(needs_of(study, runs)) if gpu is None else None
    return found


def _measured(
    study: StudyConfig, runs: list[Run], left: list[Run], where: str, probe: bool | None
) -> Cost | None:
    """The time that runs take here, by a probe that is asked for or soon done, or by those that
    are finished; None where nothing is known."""
    if probe:
        made = probes.probe(study, runs, where, complain)
    else:
        earlier = learned(runs, Path(study.output))
        if earlier.paces:
            on = "this machine, as its finished runs were"
            return on_this_machine(study, left, earlier.paces, on)
        wanted = probe is None and is_terminal() and probes.is_soon(runs)
        if wanted:
            found = probes.probe_or_none(study, runs, where, complain)
        else:
            found = None if probe is False else probes.known(study, runs, where)
        if found is None:
            return None
        made = found
    return on_this_machine(study, left, made.paces, f"this machine ({made.machine})")


def costs_text(found: dict[str, Any], count: int, output: str) -> list[str]:
    """What all of it takes, in lines."""
    lines = []
    if (cost := found["cost"]) is not None:
        money = "" if cost["dollars"] is None else f", ${cost['dollars']:,.2f}"
        hours = cost["busy"] / 3600
        what = f"{hours:.3g} {cost['device']}-hours" if hours >= 0.01 else ""
        steps = ", ".join(f"{k} {_seconds(v)}" for k, v in cost["seconds_a_step"].items())
        parts = [f"about {duration(cost['wall'])}", *([what] if what else [])]
        if cost["device"] == "GPU" and min(cost["seconds_a_step"].values()) < LAUNCHED:
            lines.append(
                "mind: a step below 5 ms is bound by the launch of its kernels, not by its "
                "operations: expect more"
            )
        lines.append(f"on {cost['on']}: {', '.join(parts)}{money} (a step: {steps})")
    if (needs := found["needs"]) is not None:
        memory = needs["memory"]
        held = "" if memory is None else f", at least {_bytes(memory)} in memory"
        lines.append(
            f"at least {_bytes(needs['disk'])} on the disk, where {_bytes(needs['free'])} are "
            f"free{held}"
        )
    done = f", {found['finished']} of them finished" if found["finished"] else ""
    lines.append(
        f"{count} runs{done}, {short(found['tokens'])} tokens, {found['flops']:.2e} FLOPs, into "
        f"{output}"
    )
    return lines


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _bytes(count: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
