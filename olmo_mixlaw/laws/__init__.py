"""The laws that losses obey: fit them, choose among them by held-out error.

`fit(law, table)` gives a `Fit`; `compare(table, laws)` says which law predicts runs that it has not
seen. Nothing here knows how a model is trained; what follows from a fit is in `advice`.
"""

from olmo_mixlaw.laws.choice.selection import Comparison, compare
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import Settings, fit
from olmo_mixlaw.laws.law import Law, Parameter, Scene

__all__ = ["Comparison", "Fit", "Law", "Parameter", "Scene", "Settings", "compare", "fit"]
