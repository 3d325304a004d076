"""Public data sets by name: `md17:aspirin`, `rmd17:ethanol`, `md22:DHA`, `ethanol` ...

`catalog.toml` is the table. Files go to the folder in `GRADPOT_DATA`, or else to the cache folder
of the platform, and are compared with the checksum of the table every time they are used. If
nobody publishes a checksum, the first download writes the file's own SHA-256 beside it
(`FILE.sha256`): that cannot tell whether the first download was right, but every later use and
download is compared with it. Such a download must read as data of the size, the number of frames
and of atoms that the table says, and nothing else gets to its name.

An institute without access to the internet can keep the files on a server of its own: with
`GRADPOT_DATA_MIRROR=http://data.example.org/sets`, that address replaces the scheme and host of
every URL in the table; path and query stay.
"""

import os
import shutil
import tarfile
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from gradpot.data.catalog import download
from gradpot.errors import InputError, did_you_mean
from gradpot.locks import locked
from gradpot.process import write_bytes

FOLDER_VARIABLE, MIRROR_VARIABLE = "GRADPOT_DATA", "GRADPOT_DATA_MIRROR"


class Archive(NamedTuple):
    """A tar file that holds a data set as one of its members."""

    file: str
    urls: tuple[str, ...]
    checksum: str
    member: str


class Entry(NamedTuple):
    """One data set of the catalog."""

    name: str
    file: str
    """name of the file in the data folder"""
    urls: tuple[str, ...]
    """tried in this order; empty for a set that comes with the package"""
    checksum: str | None
    """"md5:..." or "sha256:..."; None if none is published"""
    bytes: int | None
    frames: int | None
    atoms: int | None
    """atoms per frame"""
    energy_unit: str
    length_unit: str
    theory: str
    license: str
    citation: str
    title: str
    archive: Archive | None
    """tried if the file itself cannot be downloaded"""


@cache
def entries() -> dict[str, Entry]:
    """The whole catalog, by name."""
    with open(Path(__file__).with_name("catalog.toml"), "rb") as file:
        table = tomllib.load(file)
    found = {}
    for collection, shared in table.items():
        for short, own in shared["sets"].items():
            row = {**dict.fromkeys(Entry._fields), "urls": [], **shared, **own}
            row["name"] = f"{collection}:{short}" if short else collection
            row["urls"] = tuple(url.format(**row) for url in row["urls"])
            if archive := row["archive"]:
                urls, member = tuple(archive["urls"]), archive["member"].format(**row)
                row["archive"] = Archive(archive["file"], urls, archive["checksum"], member)
            found[row["name"]] = Entry(*(row[key] for key in Entry._fields))
    return found


def find(name: str, problem: str | None = None) -> Entry:
    """Look up an entry by name, ignoring case.

    Args:
        name: a name of the catalog.
        problem: how the error begins, instead of "no data set is called ...".

    Raises:
        InputError: there is no such data set; the message gives the closest names.
    """
    known = {entry.name.lower(): entry for entry in entries().values()}
    if name.lower() in known:
        return known[name.lower()]
    hint = did_you_mean(name, (entry.name for entry in known.values()))
    problem = problem or f"no data set is called {name!r}"
    raise InputError(f"{problem}{hint}; `gradpot data list` shows all")


def default_folder() -> Path:
    """Where data sets are kept: `GRADPOT_DATA`, or the platform's cache folder."""
    import pooch

    return Path(os.environ.get(FOLDER_VARIABLE) or pooch.os_cache("gradpot")).expanduser()


def path_of(entry: Entry, folder: str | Path | None = None) -> Path:
    """Where the file of a data set is, or will be."""
    if not entry.urls:
        return Path(__file__).parent / "embedded" / entry.file
    return Path(folder or default_folder()) / entry.file


def fetch(name: str, folder: str | Path | None = None, progress: bool = False) -> Path:
    """Path of the file of a data set, which is downloaded unless it is there already.

    Args:
        name: a name of the catalog.
        folder: instead of the default folder.
        progress: show a progress bar on standard error.

    Raises:
        InputError: the name is unknown; no host answers (the message says what to download and
            where to put it); a host sends something else than the catalog says; or the checksum of
            a file that is there differs (such a file is kept as FILE.bad).
        OSError: the disk is full; what has arrived stays for the next call.
    """
    entry = find(name)
    path = path_of(entry, folder)
    if not entry.urls or _is_good(path, entry.checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, wait=True):
        # another process may have put it there meanwhile
        if not _is_good(path, entry.checksum):
            _get(path, entry, progress)
            _record(path, entry.checksum)
    return path


def _get(path: Path, entry: Entry, progress: bool) -> None:
    """Put the file of a data set at `path`: from its archive if that is here, or from the host."""
    if _from_archive(path, entry):
        return

    def problem(part: Path, whole: bool) -> str | None:
        known = _known(path, entry.checksum)
        return _wrong_checksum(part, known) if known else _wrong_content(part, entry, whole)

    problems = _download(entry.urls, path, problem, progress)
    hint = f"download {entry.urls[0]} elsewhere and put it at {path.absolute()}"
    if problems and entry.archive:
        kept, archive = entry.archive, path.with_name(entry.archive.file)
        with locked(archive, wait=True):
            if not archive.exists():
                check = lambda part, whole: _wrong_checksum(part, kept.checksum)  # noqa: E731
                problems += _download(kept.urls, archive, check, progress)
        hint += f" (or {kept.urls[0]} at {archive.absolute()})"
    if problems and not _from_archive(path, entry):
        raise InputError(f"could not get {entry.name} ({'; '.join(problems)}): {hint}")


def locate(name_or_path: str | Path) -> tuple[Path, dict[str, str]]:
    """Find what a user gives as `--data`: a file, a name of the catalog, or a folder.

    Returns:
        The file or folder, and the units that the catalog knows for it, as keyword arguments for
        `gradpot.data.files.read`; none for a path.

    Raises:
        InputError: it is neither a file nor a name; and see `fetch`.
    """
    path = Path(name_or_path).expanduser()
    name = str(name_or_path)
    if path.is_file() or (path.is_dir() and name.lower() not in map(str.lower, entries())):
        return path, {}
    entry = find(name, f"{name} is neither a file nor the name of a data set")
    units = {"energy_unit": entry.energy_unit, "length_unit": entry.length_unit}
    return fetch(name, progress=True), units


def _is_good(path: Path, checksum: str | None) -> bool:
    """Whether the file is there with the right checksum.

    Raises:
        InputError: the checksum is wrong; the file is moved out of the way.
    """
    if not path.exists():
        return False
    known = _known(path, checksum)
    if known is None:  # put there by hand
        _record(path, None)
    elif (got := _hash(path, known)) != known:
        bad = path.with_name(path.name + ".bad")
        path.replace(bad)
        raise InputError(
            f"{path} has the checksum {got}, expected {known}; it was moved to {bad}: "
            "fetch it again, or put the right file in its place"
        )
    return True


def _known(path: Path, checksum: str | None) -> str | None:
    """The expected checksum: recorded beside the file, or else that of the table."""
    record = path.with_name(path.name + ".sha256")
    words = record.read_text().split() if record.exists() else []
    return "sha256:" + words[0] if words else checksum


def _record(path: Path, checksum: str | None) -> None:
    """Write FILE.sha256, in the format of sha256sum, unless the table has this checksum."""
    record = path.with_name(path.name + ".sha256")
    if not record.exists() and (checksum is None or _hash(path, checksum) != checksum):
        own = _hash(path, "sha256:").removeprefix("sha256:")
        write_bytes(record, f"{own}  {path.name}\n".encode())


def _hash(path: Path, like: str) -> str:
    """Checksum with the algorithm that `like` names before its colon."""
    import pooch

    algorithm = like.partition(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _wrong_checksum(part: Path, checksum: str) -> str | None:
    """What is wrong with a file that should have this checksum, or None."""
    got = _hash(part, checksum)
    return None if got == checksum else f"wrong checksum: expected {checksum} but got {got}"


def _wrong_content(part: Path, entry: Entry, whole: bool) -> str | None:
    """Why a file is not what the catalog says, or None; `whole` if all of it has arrived for sure.

    For sets whose checksum nobody publishes.
    """
    from gradpot.data.files import read

    if entry.bytes not in (None, n_bytes := download.size(part)):
        return f"the host sent {n_bytes} bytes, but the file has {entry.bytes}"
    try:
        n_atoms = read(part, entry.energy_unit, entry.length_unit).n_atoms
    except InputError as error:
        text = str(error).replace(str(part), "it")
        return f"the host sent something that is no such data set: {text}"
    if entry.frames not in (None, n_atoms.shape[0]):
        return f"the host sent {n_atoms.shape[0]} frames, but the set has {entry.frames}"
    if entry.atoms is not None and (n_atoms != entry.atoms).any():
        return f"the host sent frames of {n_atoms.max()} atoms, but the set has {entry.atoms} each"
    if not whole and entry.frames is None:
        return "the host did not say how long the file is, so that its end may be missing"
    return None


def _download(
    urls: tuple[str, ...],
    path: Path,
    problem: Callable[[Path, bool], str | None],
    progress: bool,
) -> list[str]:
    """Try each URL until one succeeds; return what was wrong with each, or [] if one did.

    `problem` says what is wrong with a file, given whether all of it has arrived for sure. Only a
    file without a problem gets to `path`; another one is removed.
    """
    import requests

    part = path.with_stem(path.stem + ".part")
    problems = []
    for url in map(mirrored, urls):
        try:
            whole = download.resume(url, part, progress)
        except (requests.RequestException, ValueError) as error:
            problems.append(f"{url}: {_reason(error, part)}")
            continue
        except OSError as error:  # such as a full disk; what has arrived stays
            raise OSError(error.errno, error.strerror, error.filename or str(part)) from error
        why = problem(part, whole)
        if why is None:
            part.replace(path)
            download.forget(part)
            return []
        download.forget(part)
        problems.append(f"{url}: {why}")
    return problems


def mirrored(url: str) -> str:
    """The address at which to ask for `url`: on the mirror, if there is one.

    The mirror replaces the scheme and host; path and query stay. If the mirror has a path of its
    own, that comes first.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    path = urlsplit(url)._replace(scheme="", netloc="").geturl()
    return mirror.rstrip("/") + path if mirror else url


def _reason(error: Exception, part: Path) -> str:
    """What went wrong with a transfer, in a few words."""
    import requests

    had = download.size(part)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.RequestException) and had:
        return f"the connection broke after {had} bytes; run again to resume from there"
    if isinstance(error, requests.Timeout):
        return "no answer"
    if isinstance(error, requests.ConnectionError):
        return "cannot connect"
    return str(error)


def _from_archive(path: Path, entry: Entry) -> bool:
    """Extract the file if its archive is in the folder: downloaded, or put there by hand.

    Raises:
        InputError: the archive has the wrong checksum, or lacks the file.
    """
    if entry.archive is None:
        return False
    archive = path.with_name(entry.archive.file)
    if not _is_good(archive, entry.archive.checksum):
        return False
    extract(archive, entry.archive.member, path)
    return True


def extract(archive: Path, member: str, path: Path) -> None:
    """Write one member of a tar file to `path`, and nowhere else, whatever its name.

    Raises:
        InputError: there is no such member, or it is not a regular file.
    """
    source, part = None, path.with_name(path.name + ".unpacking")
    with tarfile.open(archive) as tar:
        with suppress(KeyError):
            source = tar.extractfile(member)
        if source is None:
            raise InputError(f"{archive} has no file {member}; delete it and fetch again")
        try:
            with source, open(part, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except OSError as error:  # such as a full disk
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(part)) from error
    part.replace(path)
