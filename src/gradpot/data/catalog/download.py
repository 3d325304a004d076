"""Transfer one file over HTTP, resuming where an earlier attempt stopped.

`resume` is a downloader for `pooch`, which compares checksums and moves the file to its place, but
starts every transfer from the beginning. What has arrived stays in `FILE.part`; `FILE.part.json`
says which version of the remote file it is (ETag or Last-Modified), so that halves of two versions
are never joined.
"""

import json
import os
from pathlib import Path

from gradpot.locks import locked

ATTEMPTS = 3
# to connect, and between two chunks
TIMEOUT_S = (20, 60)
CHUNK = 1 << 16


def resume(url: str, output_file: str, pooch=None, *, part: Path, progress: bool = False) -> None:
    """Download `url` to `output_file` by way of `part`.

    A connection that breaks after delivering something is reopened, `ATTEMPTS` attempts in all.

    Raises:
        requests.RequestException: no connection, an error status, or too many breaks; what has
            arrived stays in `part` for the next call.
        InputError: another process is downloading the file.
    """
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    state = part.with_name(part.name + ".json")
    with locked(part):
        for attempt in range(1, ATTEMPTS + 1):
            had = size(part)
            try:
                _receive(url, part, state, progress)
                break
            except (ConnectionError, ChunkedEncodingError, Timeout):
                if attempt == ATTEMPTS or size(part) <= had:
                    raise
        os.replace(part, output_file)
        state.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes in a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path, state: Path, progress: bool) -> None:
    """Append what is missing to `part`; start over if the remote file has changed."""
    import requests
    from tqdm import tqdm

    headers = {"Accept-Encoding": "identity", **_range(url, part, state)}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        had, span = size(part), response.headers.get("Content-Range", "")
        if response.status_code == 416 and span.endswith(f"/{had}"):
            return  # an earlier run was killed before it could rename the complete file
        continues = response.status_code == 206 and span.startswith(f"bytes {had}-")
        if response.status_code in (206, 416) and not continues:
            part.unlink()  # what we have does not fit what they have
            _receive(url, part, state, progress)
            return
        response.raise_for_status()
        begin = had if continues else 0
        total = begin + int(response.headers.get("Content-Length", 0))
        tag = response.headers.get("ETag", "")
        if tag.startswith("W/"):  # a weak tag does not promise equal bytes
            tag = ""
        version = tag or response.headers.get("Last-Modified", "")
        state.write_text(json.dumps({"url": url, "version": version}))
        bar = tqdm(
            initial=begin, total=total or None, unit="B", unit_scale=True, unit_divisor=1024,
            desc=part.name.removesuffix(".part"), disable=not progress,
        )  # fmt: skip
        with open(part, "r+b" if begin else "wb") as file, bar:
            file.seek(begin)
            file.truncate()
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total > begin and size(part) != total:
        raise requests.ConnectionError(f"{size(part)} of {total} bytes arrived")


def _range(url: str, part: Path, state: Path) -> dict[str, str]:
    """Headers that ask for the rest, if there is a beginning and its version is known.

    With If-Range, a host whose file has changed since then sends the whole file.
    """
    try:
        known = json.loads(state.read_text())
    except (FileNotFoundError, ValueError):  # none, or killed while writing it
        return {}
    if not size(part) or known["url"] != url or not known["version"]:
        return {}
    return {"Range": f"bytes={size(part)}-", "If-Range": known["version"]}
