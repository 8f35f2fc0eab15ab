"""Our tasks about counted facts and worked problems: a way to ask, and the dataset asked about.

The registry names each of them; `knowledge` has the ways to ask.
"""

from __future__ import annotations

from typing import ClassVar

from olmo_mixlaw.evaluation.knowledge import (
    Recall,
    RecallBits,
    RecallChoice,
    RecallGeneration,
    Solution,
)


class BioRecall(Recall):
    """What biographies say of people, teacher-forced."""

    dataset_name = "biography"


class BioRecallGeneration(RecallGeneration):
    """What biographies say of people, by greedy generation."""

    dataset_name = "biography"


class BioRecallChoice(RecallChoice):
    """What biographies say of people, among choices."""

    dataset_name = "biography"


class BioRecallBits(RecallBits):
    """What biographies say of people, led by bits a byte."""

    dataset_name = "biography"


class BioRecallBirthDate(BioRecall):
    """The birth date alone."""

    context: ClassVar = {"attribute": "birth_date"}


class BioRecallBirthCity(BioRecall):
    """The birth city alone."""

    context: ClassVar = {"attribute": "birth_city"}


class BioRecallUniversity(BioRecall):
    """The university alone."""

    context: ClassVar = {"attribute": "university"}


class BioRecallMajor(BioRecall):
    """The major alone."""

    context: ClassVar = {"attribute": "major"}


class BioRecallEmployer(BioRecall):
    """The employer alone."""

    context: ClassVar = {"attribute": "employer"}


class FactRecall(Recall):
    """What the rows of a user's table say, teacher-forced."""

    dataset_name = "table"


class FactRecallGeneration(RecallGeneration):
    """What the rows of a user's table say, by greedy generation."""

    dataset_name = "table"


class FactRecallChoice(RecallChoice):
    """What the rows of a user's table say, among choices."""

    dataset_name = "table"


class FactRecallBits(RecallBits):
    """What the rows of a user's table say, led by bits a byte."""

    dataset_name = "table"


class MaxOverNSolution(Solution):
    """The largest of n numbers, solved step by step."""

    dataset_name = "max_over_n"


class MaxOverNForced(Recall):
    """The largest of n numbers, the whole solution teacher-forced."""

    dataset_name = "max_over_n"


class MaxOverNBits(RecallBits):
    """The largest of n numbers, the whole solution, led by bits a byte."""

    dataset_name = "max_over_n"


class SlopeSolution(Solution):
    """The slope of a line through two points, solved step by step."""

    dataset_name = "slope"


class SlopeForced(Recall):
    """The slope of a line through two points, the whole solution teacher-forced."""

    dataset_name = "slope"


class SlopeBits(RecallBits):
    """The slope of a line through two points, the whole solution, led by bits a byte."""

    dataset_name = "slope"
