"""Score models on what they should have learnt, and read scores back.

Tasks are defined once, without a host (`tasks`, `knowledge`, `held_out`), named in the registry
and found by `catalog`. The embedded scorer (`run`, `scorer`) and the OLMES bridge (`olmes`) ask
them of a model and write files of one format, which `outputs` reads.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olmo_mixlaw.evaluation.outputs import read_scores
    from olmo_mixlaw.evaluation.run import evaluate

__all__ = ["evaluate", "read_scores"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: OLMES's launcher wants the task tables without pandas."""
    if name == "evaluate":
        from olmo_mixlaw.evaluation.run import evaluate

        return evaluate
    if name == "read_scores":
        from olmo_mixlaw.evaluation.outputs import read_scores

        return read_scores
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
