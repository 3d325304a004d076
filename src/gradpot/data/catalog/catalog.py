"""Public data sets by name: `md17:aspirin`, `rmd17:ethanol`, `md22:DHA`, `ethanol` ...

`catalog.toml` is the table. Files go to the folder in `GRADPOT_DATA`, or else to the cache
folder of the platform, and are compared with the checksum of the table every time they are
used. Where nobody publishes a checksum, the first download writes the file's own SHA-256 beside
it (`FILE.sha256`): that cannot tell whether the first download was right, but every later use
and download is compared with it.

An institute without access to the internet can keep the files on a server of its own: with
`GRADPOT_DATA_MIRROR=http://data.example.org/sets`, that address takes the place of scheme and
host in every URL of the table, the path and the query staying as they are.
"""

import os
import tarfile
import tomllib
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gradpot.data.catalog import download
from gradpot.errors import InputError

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
    """tried in this order; empty for what comes with the package"""
    checksum: str | None
    """"md5:..." or "sha256:..."; None where none is published"""
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
    """tried when the file itself cannot be had"""

    @property
    def units(self) -> dict[str, str]:
        """Keyword arguments for `gradpot.data.files.read`."""
        return {"energy_unit": self.energy_unit, "length_unit": self.length_unit}


@cache
def entries() -> dict[str, Entry]:
    """The whole catalog, by name."""
    with open(Path(__file__).with_name("catalog.toml"), "rb") as file:
        table = tomllib.load(file)
    found = [
        _entry(collection, name, {**shared, **own})
        for collection, shared in table.items()
        for name, own in shared["sets"].items()
    ]
    return {entry.name: entry for entry in found}


def find(name: str) -> Entry:
    """Look up an entry by name, whatever the case.

    Raises:
        InputError: there is no such data set; says which names come close.
    """
    for entry in entries().values():
        if entry.name.lower() == name.lower():
            return entry
    raise InputError(f"no data set is called {name!r}; {_close(name)}`gradpot data list` shows all")


def default_folder() -> Path:
    """Where data sets are kept: `GRADPOT_DATA`, or the platform's cache folder."""
    import pooch

    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("gradpot"))


def path_of(entry: Entry, folder: str | Path | None = None) -> Path:
    """Where the file of a data set is, or would be."""
    if not entry.urls:
        return Path(__file__).parent / "embedded" / entry.file
    return Path(folder or default_folder()) / entry.file


def fetch(name: str, folder: str | Path | None = None, progress: bool = False) -> Path:
    """Give the file of a data set, downloading it unless it is there already.

    Args:
        name: a name of the catalog.
        folder: instead of the default folder.
        progress: show a progress bar on standard error.

    Raises:
        InputError: unknown name; host out of reach (says what to download and where to put
            it); or a checksum that differs (a file found so is kept as FILE.bad).
    """
    entry = find(name)
    path = path_of(entry, folder)
    if not entry.urls or _is_good(path, entry.checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _from_local_archive(path, entry):
        problems = _download(entry.urls, path, _known(path, entry.checksum), progress)
        if problems and not _from_archive(path, entry, problems, progress):
            raise _cannot_get(entry, path, problems)
    _record(path, entry.checksum)
    return path


def locate(name_or_path: str | Path) -> tuple[Path, dict[str, str]]:
    """Resolve what a user gives as `--data`: a file, or a name of the catalog.

    Returns:
        The file, and the units that the catalog knows for it, as keyword arguments for
        `gradpot.data.files.read`; none for a path.

    Raises:
        InputError: neither a file nor a name; and as `fetch`.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path, {}
    name = str(name_or_path)
    if name.lower() not in {known.lower() for known in entries()}:
        what = "is a folder, not a file" if path.is_dir() else "is neither a file"
        raise InputError(
            f"{name} {what} nor the name of a data set; {_close(name)}`gradpot data list` shows all"
        )
    return fetch(name, progress=True), find(name).units


def _entry(collection: str, name: str, row: dict[str, Any]) -> Entry:
    def fill(template: str) -> str:
        return template.format(file=row["file"], id=row.get("id", ""))

    archive = row.get("archive")
    plain: dict[str, Any] = {key: row.get(key) for key in Entry._fields}
    return Entry(**plain)._replace(
        name=f"{collection}:{name}" if name else collection,
        urls=tuple(fill(url) for url in row.get("urls", ())),
        archive=archive
        and Archive(
            file=archive["file"],
            urls=tuple(archive["urls"]),
            checksum=archive["checksum"],
            member=fill(archive["member"]),
        ),
    )


def _close(name: str) -> str:
    import difflib

    names = {known.lower(): known for known in entries()}
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(names[key] for key in close)}? " if close else ""


def _is_good(path: Path, checksum: str | None) -> bool:
    """Whether the file is there with the right checksum; a wrong one is moved out of the way."""
    if not path.exists():
        return False
    known = _known(path, checksum)
    if known is None:  # put there by hand
        _record(path, None)
        return True
    got = _hash(path, known)
    if got == known:
        return True
    bad = path.with_name(path.name + ".bad")
    path.replace(bad)
    raise InputError(
        f"{path} has the checksum {got}, expected {known}; it was moved to {bad}: "
        "fetch it again, or put the right file in its place"
    )


def _known(path: Path, checksum: str | None) -> str | None:
    """The checksum to expect: recorded beside the file, or else that of the table."""
    record = _record_of(path)
    return "sha256:" + record.read_text().split()[0] if record.exists() else checksum


def _record(path: Path, checksum: str | None) -> None:
    """Write FILE.sha256, in the format of sha256sum, unless the table already vouches."""
    record = _record_of(path)
    if not record.exists() and (checksum is None or _hash(path, checksum) != checksum):
        record.write_text(f"{_hash(path, 'sha256:').removeprefix('sha256:')}  {path.name}\n")


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _hash(path: Path, like: str) -> str:
    """Checksum with the algorithm that `like` names before its colon."""
    import pooch

    algorithm = like.partition(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _download(urls: tuple[str, ...], path: Path, checksum: str | None, progress: bool) -> list[str]:
    """Try each URL until one succeeds; otherwise say what was wrong with each of them."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    part = path.with_name(path.name + ".part")
    problems = []
    for url in map(_mirrored, urls):
        get: Any = partial(download.resume, part=part, progress=progress)
        try:
            pooch.retrieve(url, checksum, fname=path.name, path=path.parent, downloader=get)
            _check_form(path)
        except InputError:
            raise
        except (requests.RequestException, ValueError) as error:
            problems.append(f"{url}: {_reason(error, part)}")
        else:
            return []
    return problems


def _mirrored(url: str) -> str:
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return url
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{mirror.rstrip('/')}{parts.path}{query}"


def _check_form(path: Path) -> None:
    """Refuse a login page or the like that came with status 200 in place of an npz."""
    if path.suffix == ".npz" and not zipfile.is_zipfile(path):
        path.unlink()
        raise ValueError("what came is not an npz file")


def _reason(error: Exception, part: Path) -> str:
    import requests

    had = download.size(part)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.RequestException) and had:
        return f"the connection broke after {had} bytes; run again to go on from there"
    if isinstance(error, requests.Timeout):
        return "no answer"
    if isinstance(error, requests.ConnectionError):
        return "cannot connect"
    return str(error).partition(". Deleted")[0]


def _from_local_archive(path: Path, entry: Entry) -> bool:
    """Use an archive that was put in the folder by hand, or that another set came from."""
    if entry.archive is None:
        return False
    archive = path.with_name(entry.archive.file)
    if not _is_good(archive, entry.archive.checksum):
        return False
    extract(archive, entry.archive.member, path)
    return True


def _from_archive(path: Path, entry: Entry, problems: list[str], progress: bool) -> bool:
    """Download the archive and take the member; add what went wrong to `problems`."""
    if entry.archive is None:
        return False
    archive = path.with_name(entry.archive.file)
    problems += _download(entry.archive.urls, archive, entry.archive.checksum, progress)
    return _from_local_archive(path, entry)


def extract(archive: Path, member: str, path: Path) -> None:
    """Write one member of a tar file to `path`; names inside the archive choose no path.

    Raises:
        InputError: no such member, or it is not a regular file.
    """
    import shutil

    part = path.with_name(path.name + ".unpacking")
    with tarfile.open(archive) as tar:
        try:
            source = tar.extractfile(member)
        except KeyError:
            source = None
        if source is None:
            raise InputError(f"{archive} has no file {member}; delete it and fetch again")
        with source, open(part, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    part.replace(path)


def _cannot_get(entry: Entry, path: Path, problems: list[str]) -> InputError:
    hint = f"download {entry.urls[0]} elsewhere and put it at {path.absolute()}"
    if entry.archive:
        hint += f" (or {entry.archive.urls[0]} at {path.absolute().with_name(entry.archive.file)})"
    return InputError(f"could not get {entry.name} ({'; '.join(problems)}): {hint}")
