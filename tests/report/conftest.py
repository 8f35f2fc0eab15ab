import pytest
from drawn_runs import RATIOS, SIZES, PowerLaw, made_table


@pytest.fixture
def table():
    return made_table(RATIOS, SIZES)


@pytest.fixture
def law():
    return PowerLaw()
