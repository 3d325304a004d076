"""Transfer one file over HTTP, resuming where an earlier attempt stopped.

What has arrived stays in `part`; beside it, `part.json` says which version of the remote file it is
(ETag or Last-Modified), so that halves of two versions are never joined.
"""

import json
import os
from pathlib import Path

ATTEMPTS = 3
# to connect, and between two chunks
TIMEOUT_S = (20, 60)
CHUNK = 1 << 16


def resume(url: str, part: Path, progress: bool = False) -> bool:
    """Download `url` to `part`.

    A connection that breaks after delivering something is reopened, `ATTEMPTS` attempts in all.

    Returns:
        Whether all of the file has arrived for sure: the host has said how long it is.

    Raises:
        requests.RequestException: no connection, another status than success, or too many breaks;
            what has arrived stays in `part` for the next call.
        OSError: the disk is full.
    """
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    for attempt in range(1, ATTEMPTS + 1):
        had = size(part)
        try:
            return _receive(url, part, progress)
        except (ConnectionError, ChunkedEncodingError, Timeout):
            if attempt == ATTEMPTS or size(part) <= had:
                raise
    raise AssertionError("unreachable")


def forget(part: Path) -> None:
    """Remove what is left of a transfer that is over, for better or worse."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    """Where it says of which version the beginning of a file is."""
    return part.with_name(part.name + ".json")


def size(path: Path) -> int:
    """Bytes in a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path, progress: bool) -> bool:
    """Append what is missing to `part`; start over if the remote file has changed."""
    import requests
    from tqdm import tqdm

    headers = {"Accept-Encoding": "identity", **_range(url, part)}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        had, span = size(part), response.headers.get("Content-Range", "")
        if had and response.status_code == 416 and span.endswith(f"/{had}"):
            return True  # an earlier run was killed before it could rename the complete file
        continues = response.status_code == 206 and span.startswith(f"bytes {had}-")
        if "Range" in headers and response.status_code in (206, 416) and not continues:
            forget(part)  # what we have does not fit what they have
            return _receive(url, part, progress)
        response.raise_for_status()
        if not (response.status_code == 200 or continues):
            raise requests.HTTPError(response=response)
        begin = had if continues else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else begin + int(length)
        bar = tqdm(
            initial=begin, total=total, unit="B", unit_scale=True, unit_divisor=1024,
            desc=part.name, disable=not progress,
        )  # fmt: skip
        with open(part, "r+b" if begin else "wb") as file, bar:
            file.seek(begin)
            file.truncate()
            # only now: a kill must not leave an old beginning with the name of a new version
            tag = response.headers.get("ETag", "")
            # a weak tag does not promise equal bytes
            version = "" if tag.startswith("W/") else tag
            version = version or response.headers.get("Last-Modified", "")
            _note(part).write_text(json.dumps({"url": url, "version": version}))
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and size(part) != total:
        raise requests.ConnectionError(f"{size(part)} of {total} bytes arrived")
    # the end of a chunked body is marked, and requests raises an error if the mark is missing
    return total is not None or "chunked" in response.headers.get("Transfer-Encoding", "")


def _range(url: str, part: Path) -> dict[str, str]:
    """Headers that ask for the rest, if there is a beginning and its version is known.

    With If-Range, a host whose file has changed since then sends the whole file.
    """
    try:
        known = json.loads(_note(part).read_text())
        same, version = known["url"] == url, str(known["version"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or killed while writing it
        return {}
    if not size(part) or not same or not version:
        return {}
    return {"Range": f"bytes={size(part)}-", "If-Range": version}
