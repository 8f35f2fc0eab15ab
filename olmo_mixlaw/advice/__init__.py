"""What follows from a fit: the best mixture, how far it may move, what it scores, how sure that is.

Advice asks a law for losses and slopes and knows none by name.
"""

from olmo_mixlaw.advice.optimum import Optimum, near_optimal, optimum, optimum_path

__all__ = ["Optimum", "near_optimal", "optimum", "optimum_path"]
