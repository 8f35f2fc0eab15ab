"""What follows from a fit: the best mixture, how far it may move, what it scores, how sure that is.

Advice asks a law for losses and slopes and knows none by name.
"""

from olmo_mixlaw.advice.near_optimal import near_optimal
from olmo_mixlaw.advice.optimum import Limits, Optimum, optimum, optimum_path

__all__ = ["Limits", "Optimum", "near_optimal", "optimum", "optimum_path"]
