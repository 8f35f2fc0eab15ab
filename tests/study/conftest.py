import pytest
from tiny_study import STUDY


@pytest.fixture(scope="session")
def study_text():
    """A study of six runs of a few seconds, with `{output}` to fill in."""
    return STUDY


@pytest.fixture
def study_file(tmp_path):
    """Writes that study into a folder of its own; `edit` replaces text in it."""

    def write(edit=(), name="tiny.yaml"):
        text = STUDY.format(output=tmp_path / "out")
        for old, new in edit:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
