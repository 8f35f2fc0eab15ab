"""`olmo-mixlaw ladder`: show a ladder with its counts and costs, or invent a rung for one."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from olmo_mixlaw import schema
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import NAME_COUNTS, Ladder, Rung, ladders, load_ladder, short

COLUMNS = (
    "rung",
    "width",
    "layers",
    "total",
    "active",
    "embedding",
    "FLOPs/token",
    "memory",
    "learning rate",
    "batch",
    "warm-up",
    "tokens",
    "FLOPs",
)


@click.group()
def ladder() -> None:
    """Show ladders of sizes, and invent rungs for one."""


@ladder.command("list")
@answers
def list_ladders(answer: Answer) -> None:
    """The ladders that come with the package."""
    known = list(ladders())
    answer.document = [
        {"name": found.name, "rungs": list(found.rungs), "description": found.description}
        for found in known
    ]
    for found in known:
        answer.show(f"{found.name:14} {len(found.rungs):2} rungs  {found.description}")


@ladder.command()
@click.argument("name")
@click.option(
    "--multiple",
    default=1.0,
    show_default=True,
    help="Tokens, as a multiple of what Chinchilla's rule gives.",
)
@answers
def show(answer: Answer, name: str, multiple: float) -> None:
    """Counts, memory, tokens and compute of every rung of NAME (a ladder, or its YAML file)."""
    if not multiple > 0:
        raise ConfigError(f"--multiple is {multiple}; it must be above 0")
    found = load_ladder(name)
    answer.show(f"{found.name}: {found.description}\n")
    answer.show(_table([COLUMNS, *(_row(rung, multiple) for rung in found.rungs.values())]))
    answer.show("\n" + "\n".join(_conventions(found, multiple)))
    answer.document = {
        "name": found.name,
        "description": found.description,
        "rungs": [_counts(rung, multiple) for rung in found.rungs.values()],
        "warnings": found.warnings(),
    }
    for warning in found.warnings():
        click.echo(f"warning: {warning}", err=True)


def _counts(rung: Rung, multiple: float) -> dict[str, Any]:
    """A rung as `--json` has it: whole counts, tokens and bytes."""
    steps, tokens = rung.n_steps(multiple), rung.n_tokens(multiple)
    return {
        "rung": rung.name,
        "d_model": rung.d_model,
        "n_layers": rung.n_layers,
        "n_params": rung.n_params,
        "n_active": rung.n_active,
        "n_embedding": rung.n_embedding,
        "flops_per_token": rung.flops_per_token,
        "training_bytes": rung.training_bytes,
        "learning_rate": rung.learning_rate,
        "batch_tokens": rung.batch_tokens,
        "warmup_tokens": rung.warmup_steps(steps) * rung.batch_tokens,
        "n_tokens": tokens,
        "flops": rung.training_flops(tokens),
    }


def _row(rung: Rung, multiple: float) -> tuple[str, ...]:
    steps = rung.n_steps(multiple)
    tokens = rung.n_tokens(multiple)
    wide = partial(short, zeros=True)
    return (
        rung.name,
        str(rung.d_model),
        str(rung.n_layers),
        wide(rung.n_params),
        wide(rung.n_active),
        wide(rung.n_embedding),
        f"{rung.flops_per_token:.2e}",
        _bytes(rung.training_bytes),
        f"{rung.learning_rate:.2e}",
        wide(rung.batch_tokens),
        wide(rung.warmup_steps(steps) * rung.batch_tokens),
        wide(tokens),
        f"{rung.training_flops(tokens):.2e}",
    )


def _conventions(found: Ladder, multiple: float) -> list[str]:
    rules = [rung.training for rung in found.rungs.values()]
    per_param = sorted({rule.tokens_per_param for rule in rules})
    by_rule = all(rule.learning_rate is None and rule.batch_sequences is None for rule in rules)
    lines = [
        "total, active: parameters without embedding tables; active are those a token goes through",
        "embedding: input and output table (one if tied)",
        "FLOPs/token: 6 (active - norms + vocabulary x width) + 6 layers x width x context,",
        "  forward and backward, causal attention",
        "memory: 16 bytes a parameter (weight, gradient, two Adam moments in fp32), no activations",
        f"batch, warm-up, tokens: in tokens; {multiple:g} x "
        f"{' or '.join(f'{p:g}' for p in per_param)} tokens an active parameter, in whole steps",
    ]
    if by_rule:
        lines.append(
            "learning rate 0.00235 (N / 108M)^(-1/3), batch 327680 (N / 108M)^(2/3) tokens, "
            "warm-up N tokens; N active parameters"
        )
    if found.name_counts != "none":
        lines.append(f"names count {NAME_COUNTS[found.name_counts]}")
    return lines


@ladder.command()
@click.option("--active", required=True, help="Active parameters without embeddings: 12M, 1.2B.")
@click.option("--total", help="All parameters without embeddings; unset, the model is dense.")
@click.option("--sparsity", type=float, help="Total over active parameters, instead of --total.")
@click.option("--experts", type=int, help="Routed experts a layer; unset, a power of two.")
@click.option("--top-k", default=4, show_default=True, help="Routed experts a token.")
@click.option("--shared", default=1, show_default=True, help="Shared experts.")
@click.option("--like", help="A ladder whose vocabulary, context, norms and router to take.")
@answers
def make(
    answer: Answer,
    active: str,
    total: str | None,
    sparsity: float | None,
    experts: int | None,
    top_k: int,
    shared: int,
    like: str | None,
) -> None:
    """Invent a rung for asked counts, and print it as a line of a ladder's YAML."""
    from olmo_mixlaw.models.invent import invent

    n_active = schema.parse_count(active, "--active")
    if total is not None and sparsity is not None:
        raise ConfigError("--total and --sparsity say the same thing; give one of them")
    n_params = None if total is None else schema.parse_count(total, "--total")
    if sparsity is not None:
        if sparsity < 1:
            raise ConfigError(f"--sparsity is {sparsity}; total over active is at least 1")
        n_params = sparsity * n_active
    base = None
    if like is not None:
        base = list(load_ladder(like, "--like").rungs.values())[-1]
    shape = invent(
        n_active, n_params, num_experts=experts, top_k=top_k, shared_experts=shared, base=base
    )
    name = short(shape.n_params, zeros=True)
    if shape.moe is not None:
        name += f"-A{short(shape.n_active, zeros=True)}"
    fields: dict[str, Any] = {
        key: getattr(shape, key) for key in ("d_model", "n_layers", "n_heads", "mlp_size")
    }
    moe = None
    if shape.moe is not None:
        keys = ("num_experts", "top_k", "expert_size", "shared_experts", "dense_layers")
        moe = {key: getattr(shape.moe, key) for key in keys}
        fields["moe"] = _inline(moe)
    answer.document = {
        "rung": name,
        "n_params": shape.n_params,
        "n_active": shape.n_active,
        "n_embedding": shape.n_embedding,
        "shape": {key: value for key, value in fields.items() if key != "moe"},
        "moe": moe,
    }
    answer.show(f"  {name}: {_inline(fields)}")
    answer.show(
        f"# {shape.n_params:,} parameters, {shape.n_active:,} active "
        f"(total/active {shape.sparsity:.1f}), {shape.n_embedding:,} in embeddings "
        f"(vocabulary {shape.vocab_size:,})"
    )


def _inline(fields: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}"


def _bytes(count: float) -> str:
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
