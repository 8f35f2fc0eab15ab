"""From losses to benchmark scores, as a goal that an optimum can have.

Each task is read by the route that erred least on held-out runs (`routes`): its own loss, the
domains', the other tasks', or the law fitted to its score. Tasks that no route predicts better
than the mean of each size are named and kept out of the goal.
"""

from olmo_mixlaw.advice.scores.curves import ScoreLaw
from olmo_mixlaw.advice.scores.fitted import ScoreGoal, Scores, fit_scores
from olmo_mixlaw.advice.scores.routes import ROUTES

__all__ = ["ROUTES", "ScoreGoal", "ScoreLaw", "Scores", "fit_scores"]
