"""Which runs to buy: the sizes, mixtures, tokens and seeds that tell most about a target.

`plan_runs` takes candidates with prices, laws, what was run already and a target, and returns the
runs in the order of their worth with what they are expected to bring.
"""

from olmo_mixlaw.advice.design.candidates import Candidates, Target
from olmo_mixlaw.advice.design.plan import Batch, Plan, plan_runs

__all__ = ["Batch", "Candidates", "Plan", "Target", "plan_runs"]
