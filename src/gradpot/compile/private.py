"""Folders that only this user can write to: what they hold is as trustworthy as the user."""

import atexit
import os
import shutil
import stat
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

# names the folder in which torch's compiler keeps its files
INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"


def keep_inductor_private() -> None:
    """Let torch's compiler use no folder that others can write to.

    By default that is a folder in /tmp with a name that anybody can take first. torch unpickles
    and loads what it finds there. A folder that the user names is left alone.

    Warns:
        UserWarning: others can write to torch's folder, so a temporary one is used.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    folder = default_cache_dir()
    if os.environ.get(INDUCTOR, folder) != folder or not (problem := make_private(Path(folder))):
        return
    warnings.warn(f"torch compiles without its cache: {problem}", stacklevel=2)
    os.environ[INDUCTOR] = tempfile.mkdtemp(prefix="gradpot-")
    atexit.register(shutil.rmtree, os.environ[INDUCTOR], ignore_errors=True)


def make_private(folder: Path) -> str | None:
    """Create a folder for this user alone, unless it is one; return why that is not possible.

    Whoever can write to a folder above it could put another in its place, so these are checked
    too. Folders with a sticky bit, such as /tmp, protect what others own in them.
    """
    folder = Path(os.path.abspath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.callback(os.umask, os.umask(0o077))
            folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            return f"{folder} is a link; remove it"
        for path in {*folder.parents, *folder.resolve().parents}:
            found = path.lstat()
            others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if found.st_uid not in (0, os.geteuid()):
                return f"{path} belongs to another user"
            if others and not stat.S_ISLNK(found.st_mode) and not found.st_mode & stat.S_ISVTX:
                return f"others can write to {path}: chmod go-w {path}"
        if not is_ours(folder):
            return f"others own {folder} or can write to it: remove it"
        folder.chmod(0o700)
    except OSError as error:
        return f"{folder} cannot be used ({error.strerror})"
    return None


def is_ours(path: Path) -> bool:
    """Whether this is a file or folder of this user, no link, that nobody else can write to."""
    try:
        found = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return kind and found.st_uid == os.geteuid() and not others
