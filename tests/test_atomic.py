"""Nothing is half-written, and no name that somebody planted is followed."""

import errno
import os

import pytest

from olmo_mixlaw.atomic import open_atomic, open_lock, write_text


def test_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    out = tmp_path / "out.txt"
    # The name that the temporary file had when it could be guessed.
    (tmp_path / f".out.txt.{os.getpid()}.tmp").symlink_to(victim)
    out.symlink_to(victim)
    write_text(out, "ours")
    assert victim.read_text() == "precious"
    assert out.read_text() == "ours"
    assert not out.is_symlink()


def test_a_lock_is_never_a_link_nor_a_pipe(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match="lock"):
        open_lock(tmp_path / ".lock")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a plain file"):
        open_lock(tmp_path / "pipe")
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    os.close(open_lock(kept))
    assert kept.read_text() == "as it was"
    assert victim.read_text() == "precious"


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(TypeError), open_atomic(tmp_path / "a") as file:
        file.writelines(["half", 3])
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, open_atomic(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_that_the_system_allows_can_be_written(tmp_path):
    path = write_text(tmp_path / ("n" * 255), "text")
    assert path.read_text() == "text"


def test_permissions_are_the_masks_or_those_of_the_file_replaced(tmp_path):
    mask = os.umask(0o027)
    try:
        path = write_text(tmp_path / "new", "text")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    write_text(path, "other")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_of_that_name_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "out", "text")
    assert list((tmp_path / "out").iterdir()) == []
