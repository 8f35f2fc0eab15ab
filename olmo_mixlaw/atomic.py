"""Write files so that a reader never sees a half: to a temporary name, then renamed.

Names that others may have planted are never followed: a temporary file has a random name and is
made anew, and a lock is opened only if it is a plain file. Whatever fails is an `OSError`.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

# Of the name in that of the temporary file, which may be longer than a file system allows.
NAME_KEPT = 40


@contextmanager
def open_atomic(path: str | Path, mode: str = "w", **kwargs: Any) -> Iterator[IO[Any]]:
    """A file for writing that takes the name `path` only once the block ends without error.

    The temporary file lies beside `path`, so that the rename stays on one file system; it is
    removed when the block fails. Folders are made as needed. An `OSError` names the file, also
    where the system doesn't (a full disk).
    """
    path = Path(path)
    if "b" not in mode:
        kwargs.setdefault("encoding", "utf-8")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary: str | None = None
    try:
        # Made with O_EXCL and O_NOFOLLOW, for this user alone.
        handle, temporary = tempfile.mkstemp(".tmp", f".{path.name[:NAME_KEPT]}.", path.parent)
        with open(handle, mode, **kwargs) as file:
            os.fchmod(handle, _mode_of(path))
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` to `path` atomically; returns the path."""
    with open_atomic(path) as file:
        file.write(text)
    return Path(path)


def open_lock(path: str | Path) -> int:
    """A descriptor of the file `path`, made if it isn't there, to be locked; its bytes stay.

    A link under that name is refused, as is anything but a plain file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file, so no lock; remove it", str(path))
    return handle


def _mode_of(path: Path) -> int:
    """The permissions of the file that is replaced, or what the user's mask gives a new one."""
    with suppress(OSError):
        found = path.lstat().st_mode
        if stat.S_ISREG(found):
            return stat.S_IMODE(found)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
