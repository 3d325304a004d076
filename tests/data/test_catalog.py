"""Downloads from a real HTTP server on the loopback; no other address is contacted."""

import hashlib
import io
import json
import random
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gradpot.data.catalog import catalog, download
from gradpot.errors import InputError

MOLECULES = (
    *("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde"),
    *("naphthalene", "paracetamol", "salicylic", "toluene", "uracil"),
)


def make_npz(n_frames: int = 2000) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    np.savez(
        buffer,
        R=rng.normal(size=(n_frames, 9, 3)),
        z=[6, 6, 8, *[1] * 6],
        E=np.zeros(n_frames),
        F=rng.normal(size=(n_frames, 9, 3)),
    )
    return buffer.getvalue()


NPZ = make_npz()


class Server:
    """Serves bytes by path, with ranges; can break connections and counts what it sends."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.tag = '"one"'
        self.break_after: int | None = None
        self.breaks = 0
        self.requests: list[tuple[str, str | None]] = []
        self.sent = 0
        self.status = 200
        self.says_length = True
        self.pause_s = 0.0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        body = self.files.get(handler.path)
        if body is None:
            handler.send_error(404)
            return
        begin = 0
        if asked and self.tag and handler.headers.get("If-Range") == self.tag:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if begin >= len(body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if begin else self.status)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        if self.tag:
            handler.send_header("ETag", self.tag)
        if self.says_length:
            handler.send_header("Content-Length", str(len(body) - begin))
        handler.end_headers()
        self.send(handler, body[begin:])

    def send(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.breaks and self.break_after is not None:
            self.breaks -= 1
            body = body[: self.break_after]
        # counted before it is sent: the client may be done before this line is
        self.sent += len(body)
        for start in range(0, len(body), 20_000 if self.pause_s else len(body) or 1):
            handler.wfile.write(body[start:][: 20_000 if self.pause_s else None])
            time.sleep(self.pause_s)


@pytest.fixture
def server(monkeypatch, tmp_path):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        mirror = f"http://127.0.0.1:{http.server_port}"
        monkeypatch.setenv(catalog.MIRROR_VARIABLE, mirror)
        monkeypatch.setenv(catalog.FOLDER_VARIABLE, str(tmp_path / "sets"))
        # what the server has is smaller than the real sets
        small = {"frames": 2000, "atoms": 9, "bytes": None}
        table = {name: entry._replace(**small) for name, entry in catalog.entries().items()}
        monkeypatch.setattr(catalog, "entries", lambda: table)
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A loopback port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(catalog.MIRROR_VARIABLE, f"http://127.0.0.1:{port}")
    monkeypatch.setenv(catalog.FOLDER_VARIABLE, str(tmp_path / "sets"))


def url_path(name: str) -> str:
    """The address on the mirror."""
    return "/" + catalog.find(name).urls[0].split("/", 3)[3]


def with_checksum(monkeypatch, name: str, body: bytes, archive: bytes | None = None) -> None:
    """Make the table expect these bytes."""
    entry = catalog.find(name)
    if archive is not None and entry.archive is not None:
        packed = "sha256:" + hashlib.sha256(archive).hexdigest()
        entry = entry._replace(archive=entry.archive._replace(checksum=packed))
    entry = entry._replace(checksum="md5:" + hashlib.md5(body).hexdigest())
    table = {**catalog.entries(), name: entry}
    monkeypatch.setattr(catalog, "entries", lambda: table)


def make_tar(member: str, body: bytes, **kwargs) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(body)
        for key, value in kwargs.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def left_over(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".npz"))


# the table


def test_the_table_holds_what_the_documentation_promises():
    names = set(catalog.entries())
    assert {f"rmd17:{molecule}" for molecule in MOLECULES} <= names
    assert {f"md17:{molecule}" for molecule in MOLECULES} <= names
    assert len([name for name in names if name.startswith("md22:")]) == 7
    assert "ethanol" in names


def test_every_entry_is_complete():
    from gradpot import units

    for entry in catalog.entries().values():
        units.energy_factor(entry.energy_unit)
        units.length_factor(entry.length_unit)
        assert entry.theory
        assert entry.license
        assert entry.citation
        assert entry.atoms
        assert "{" not in "".join(entry.urls)
        if entry.checksum:
            algorithm, _, digest = entry.checksum.partition(":")
            assert len(bytes.fromhex(digest)) == {"md5": 16, "sha256": 32}[algorithm]
    files = [entry.file for entry in catalog.entries().values()]
    assert len(set(files)) == len(files)


def test_sizes_of_rmd17_are_what_the_arrays_take():
    for entry in catalog.entries().values():
        if entry.name.startswith("rmd17:"):
            content = entry.frames * (entry.atoms * 9 * 8 + 24)
            assert 0 < entry.bytes - content < 2000


def test_an_unknown_name_brings_close_ones():
    with pytest.raises(InputError, match=r"'rmd17:etanol' \(did you mean rmd17:ethanol"):
        catalog.fetch("rmd17:etanol")


# transfers


def test_a_download_is_checked_and_used_again_without_network(server, monkeypatch):
    with_checksum(monkeypatch, "rmd17:ethanol", NPZ)
    server.files[url_path("rmd17:ethanol")] = NPZ
    path = catalog.fetch("rmd17:ethanol")
    assert path.read_bytes() == NPZ
    assert left_over(path.parent) == []
    assert catalog.fetch("RMD17:Ethanol") == path
    assert len(server.requests) == 1


def test_a_chosen_folder(server, tmp_path):
    server.files[url_path("md17:uracil")] = NPZ
    path = catalog.fetch("md17:uracil", tmp_path / "deep" / "here")
    assert path == tmp_path / "deep" / "here" / "md17_uracil.npz"


def test_a_broken_connection_is_taken_up_again(server):
    server.files[url_path("md17:uracil")] = NPZ
    server.break_after, server.breaks = 300_000, 2
    path = catalog.fetch("md17:uracil")
    assert path.read_bytes() == NPZ
    assert len(server.requests) == 3
    assert server.sent < len(NPZ) + 3 * download.CHUNK


def test_a_later_call_goes_on_where_the_earlier_stopped(server, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with_checksum(monkeypatch, "rmd17:uracil", NPZ)
    server.files[url_path("rmd17:uracil")] = NPZ
    server.break_after, server.breaks = 400_000, 1
    with pytest.raises(InputError, match=r"broke after \d+ bytes; run again to resume"):
        catalog.fetch("rmd17:uracil")
    part = catalog.path_of(catalog.find("rmd17:uracil")).with_suffix(".part.npz")
    had = part.stat().st_size
    assert 400_000 - download.CHUNK <= had <= 400_000
    server.sent = 0
    path = catalog.fetch("rmd17:uracil")
    assert path.read_bytes() == NPZ
    assert server.sent == len(NPZ) - had
    assert server.requests[-1][1] == f"bytes={had}-"
    assert left_over(path.parent) == []


def test_a_file_that_changed_meanwhile_is_not_joined(server, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.files[url_path("md17:toluene")] = NPZ[::-1]
    server.break_after, server.breaks = 400_000, 2
    with pytest.raises(InputError):
        catalog.fetch("md17:toluene")
    server.files[url_path("md17:toluene")], server.tag = NPZ, '"two"'
    server.breaks = 0
    assert catalog.fetch("md17:toluene").read_bytes() == NPZ


def test_without_a_version_the_transfer_starts_anew(server, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.files[url_path("rmd17:toluene")] = NPZ
    with_checksum(monkeypatch, "rmd17:toluene", NPZ)
    server.tag, server.break_after, server.breaks = "", 400_000, 1
    with pytest.raises(InputError):
        catalog.fetch("rmd17:toluene")
    assert catalog.fetch("rmd17:toluene").read_bytes() == NPZ
    assert server.requests[-1][1] is None


def test_a_run_killed_before_the_last_rename_is_completed(server):
    server.files[url_path("md17:uracil")] = NPZ
    folder = catalog.default_folder()
    folder.mkdir()
    url = catalog.mirrored(catalog.find("md17:uracil").urls[0])
    (folder / "md17_uracil.part.npz").write_bytes(NPZ)
    (folder / "md17_uracil.part.npz.json").write_text(json.dumps({"url": url, "version": '"one"'}))
    assert catalog.fetch("md17:uracil").read_bytes() == NPZ
    assert server.sent == 0


def test_a_damaged_note_on_the_version_means_starting_anew(server):
    server.files[url_path("md17:uracil")] = NPZ
    folder = catalog.default_folder()
    folder.mkdir()
    (folder / "md17_uracil.part.npz").write_bytes(NPZ[:1000])
    (folder / "md17_uracil.part.npz.json").write_text("")
    assert catalog.fetch("md17:uracil").read_bytes() == NPZ


FETCH = "import sys; from gradpot.data.catalog import catalog; print(catalog.fetch(sys.argv[1]))"


def fetching(name: str) -> subprocess.Popen:
    """Another process that fetches a set of the real table."""
    command = [sys.executable, "-W", "ignore", "-c", FETCH, name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_share_one_download(server):
    """The second waits for the first, and finds the file."""
    xyz = "27\n\n" + "H 0 0 0\n" * 27
    server.files[url_path("3bpa:test-300K")] = xyz.encode() * 300
    server.pause_s = 0.2
    both = [fetching("3bpa:test-300K") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f"{catalog.default_folder()}/3bpa_test_300K.xyz\n")
        assert "Traceback" not in err
    assert len(server.requests) == 1
    assert left_over(catalog.default_folder()) == [
        "3bpa_test_300K.xyz",
        "3bpa_test_300K.xyz.sha256",
    ]


# checksums


def test_a_wrong_checksum_says_expected_and_got_and_leaves_nothing(server, monkeypatch):
    with_checksum(monkeypatch, "rmd17:ethanol", NPZ)
    server.files[url_path("rmd17:ethanol")] = make_npz(3)
    with pytest.raises(InputError, match=r"expected md5:\w+ but got \w+") as caught:
        catalog.fetch("rmd17:ethanol")
    assert "\n" not in str(caught.value)
    assert list(catalog.default_folder().iterdir()) == []


def test_a_file_that_went_bad_is_kept_aside(server, monkeypatch):
    with_checksum(monkeypatch, "rmd17:ethanol", NPZ)
    path = catalog.path_of(catalog.find("rmd17:ethanol"))
    path.parent.mkdir()
    path.write_bytes(b"PK damaged")
    with pytest.raises(InputError, match=r"checksum md5:\w+, expected md5:\w+; it was moved to"):
        catalog.fetch("rmd17:ethanol")
    assert path.with_name(path.name + ".bad").read_bytes() == b"PK damaged"
    assert not path.exists()


def test_where_no_checksum_is_known_the_first_download_is_recorded(server):
    server.files[url_path("md22:DHA")] = NPZ
    path = catalog.fetch("md22:DHA")
    record = path.with_name(path.name + ".sha256")
    assert record.read_text() == f"{hashlib.sha256(NPZ).hexdigest()}  {path.name}\n"
    path.unlink()
    server.files[url_path("md22:DHA")] = make_npz(3)
    with pytest.raises(InputError, match="expected sha256:"):
        catalog.fetch("md22:DHA")


def test_a_file_put_there_by_hand_is_used(nobody):
    path = catalog.path_of(catalog.find("md22:DHA"))
    path.parent.mkdir()
    path.write_bytes(NPZ)
    assert catalog.fetch("md22:DHA") == path
    path.write_bytes(make_npz(3))
    with pytest.raises(InputError, match=r"md22_DHA.npz has the checksum"):
        catalog.fetch("md22:DHA")


# sets without a checksum


def is_refused(name: str, message: str) -> None:
    """The answer is refused, and nothing of it stays."""
    with pytest.raises(InputError, match=message):
        catalog.fetch(name)
    assert list(catalog.default_folder().iterdir()) == []


XYZ = b"1\nenergy=1 pbc=F\nHe 0 0 0\n"


def of_xyz(server, monkeypatch, frames: int | None, body: bytes) -> str:
    """Serve a set of helium atoms, of which the table knows the number of frames or not."""
    name = "3bpa:test-300K"
    entry = catalog.find(name)._replace(frames=frames, atoms=1)
    table = {**catalog.entries(), name: entry}
    monkeypatch.setattr(catalog, "entries", lambda: table)
    server.files[url_path(name)] = body
    return name


@pytest.mark.parametrize("name", ["md17:uracil", "3bpa:test-300K"])
@pytest.mark.parametrize("body", [b"<!DOCTYPE html><title>Log in</title>", b"", b"\0" * 99])
def test_a_login_page_is_not_taken_for_data(server, name, body):
    server.files[url_path(name)] = body
    is_refused(name, "the host sent something that is no such data set|416|200")


@pytest.mark.parametrize("status", [202, 203, 204, 206])
def test_only_success_is_success(server, status):
    server.files[url_path("md17:uracil")], server.status = NPZ, status
    is_refused("md17:uracil", str(status))


@pytest.mark.parametrize("end", [len(NPZ) // 2, len(NPZ) - 1])
def test_half_an_npz_from_a_host_that_does_not_say_its_length(server, end):
    server.files[url_path("md17:uracil")], server.says_length = NPZ[:end], False
    is_refused("md17:uracil", "the host sent something that is no such data set")


def test_half_a_text_file_from_a_host_that_does_not_say_its_length(server, monkeypatch):
    server.says_length = False
    is_refused(of_xyz(server, monkeypatch, 40, XYZ * 20), "sent 20 frames, but the set has 40")
    is_refused(of_xyz(server, monkeypatch, None, XYZ * 20 + XYZ[:9]), "no such data set")
    is_refused(of_xyz(server, monkeypatch, None, XYZ * 20), "did not say how long the file is")
    path = catalog.fetch(of_xyz(server, monkeypatch, 20, XYZ * 20))
    assert path.read_bytes() == XYZ * 20


def test_another_set_than_asked_for(server, monkeypatch):
    name = of_xyz(server, monkeypatch, 20, XYZ * 19)
    is_refused(name, "sent 19 frames, but the set has 20")
    name = of_xyz(server, monkeypatch, 20, (b"2" + XYZ[1:] + b"He 0 0 1\n") * 20)
    is_refused(name, "sent frames of 2 atoms, but the set has 1 each")


def test_another_size_than_recorded(server, monkeypatch):
    entry = catalog.find("md17:uracil")._replace(bytes=len(NPZ) + 1)
    monkeypatch.setattr(catalog, "entries", lambda: {"md17:uracil": entry})
    server.files[url_path("md17:uracil")] = NPZ
    is_refused("md17:uracil", rf"sent {len(NPZ)} bytes, but the file has {len(NPZ) + 1}")


def test_an_empty_record_of_a_killed_process_is_no_checksum(server):
    server.files[url_path("md17:uracil")] = NPZ
    catalog.default_folder().mkdir()
    (catalog.default_folder() / "md17_uracil.npz.sha256").write_text("")
    assert catalog.fetch("md17:uracil").read_bytes() == NPZ


@pytest.mark.slow
def test_a_killed_download_leaves_nothing_under_the_final_name(server):
    """Ten kills at random moments; every next call takes up what the killed one left."""
    generator, folder = random.Random(0), catalog.default_folder()
    body = b"".join(b"15\n%d\n" % i + b"H 0 0 0\n" * 15 for i in range(5000))
    server.files[url_path("3bpa:test-300K")], server.pause_s = body, 0.05
    for _ in range(10):
        process = fetching("3bpa:test-300K")
        time.sleep(generator.uniform(0.3, 1.5))
        process.kill()
        process.communicate()
        left = {path.name for path in folder.iterdir()} if folder.exists() else set()
        assert "3bpa_test_300K.xyz" not in left
        if "3bpa_test_300K.part.xyz" in left:
            part = (folder / "3bpa_test_300K.part.xyz").read_bytes()
            assert body.startswith(part)
    server.pause_s = 0.0
    entry = catalog.find("3bpa:test-300K")._replace(frames=5000, atoms=15)
    catalog.entries()["3bpa:test-300K"] = entry
    assert catalog.fetch("3bpa:test-300K").read_bytes() == body
    assert left_over(folder) == ["3bpa_test_300K.xyz", "3bpa_test_300K.xyz.sha256"]


def test_an_old_beginning_is_never_joined_with_a_new_version(server, monkeypatch):
    """Not even by a process that is killed when it has just learned of the new version."""
    server.files[url_path("md17:uracil")] = NPZ
    folder = catalog.default_folder()
    folder.mkdir()
    url = catalog.mirrored(catalog.find("md17:uracil").urls[0])
    part = folder / "md17_uracil.part.npz"
    part.write_bytes(NPZ[::-1][:400_000])
    (folder / "md17_uracil.part.npz.json").write_text(json.dumps({"url": url, "version": '"old"'}))
    seen = []
    write = Path.write_text

    def killed(path, text, *rest):
        seen.append((json.loads(text)["version"], part.stat().st_size))
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        catalog.fetch("md17:uracil")
    monkeypatch.setattr(Path, "write_text", write)
    assert seen == [('"one"', 0)]
    assert catalog.fetch("md17:uracil").read_bytes() == NPZ


def test_a_full_disk_is_one_line_and_what_has_arrived_stays(server):
    """A limit on the size of files stands for the full disk."""
    server.files[url_path("3bpa:test-300K")] = XYZ * 20_000
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
    run = "from gradpot.cli import main; main()"
    command = [sys.executable, "-c", limit + run, "data", "fetch", "3bpa:test-300K"]
    done = subprocess.run(command, capture_output=True, text=True)
    part = catalog.default_folder() / "3bpa_test_300K.part.xyz"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"error: file too large: {part}"
    assert (XYZ * 20_000).startswith(part.read_bytes())
    assert part.stat().st_size > 200_000


# failures


def test_offline_it_says_what_to_download_and_where_to_put_it(nobody):
    path = catalog.path_of(catalog.find("md17:aspirin"))
    with pytest.raises(InputError, match="cannot connect") as caught:
        catalog.fetch("md17:aspirin")
    line = str(caught.value)
    assert "\n" not in line
    assert "download http://www.quantum-machine.org/gdml/data/npz/md17_aspirin.npz" in line
    assert f"put it at {path}" in line


def test_a_missing_file_is_named_with_its_status(server):
    with pytest.raises(InputError, match="404 Not Found"):
        catalog.fetch("md17:aspirin")


def test_the_next_address_is_tried(server):
    second = catalog.find("md22:DHA").urls[1].split("/", 3)[3]
    server.files["/" + second] = NPZ
    assert catalog.fetch("md22:DHA").read_bytes() == NPZ


# archives


def test_a_member_of_the_archive_where_the_file_itself_is_gone(server, monkeypatch):
    archive = make_tar("rmd17/npz_data/rmd17_ethanol.npz", NPZ)
    with_checksum(monkeypatch, "rmd17:ethanol", b"the single file", archive)
    entry = catalog.find("rmd17:ethanol")
    server.files["/" + entry.archive.urls[0].split("/", 3)[3]] = archive
    path = catalog.fetch("rmd17:ethanol")
    assert path.read_bytes() == NPZ
    assert left_over(path.parent) == ["rmd17.tar.bz2", "rmd17_ethanol.npz.sha256"]
    n_requests = len(server.requests)
    assert catalog.fetch("rmd17:ethanol") == path
    assert len(server.requests) == n_requests


def test_an_archive_put_there_by_hand(nobody, monkeypatch):
    archive = make_tar("rmd17/npz_data/rmd17_uracil.npz", NPZ)
    with_checksum(monkeypatch, "rmd17:uracil", NPZ, archive)
    folder = catalog.default_folder()
    folder.mkdir()
    (folder / "rmd17.tar.bz2").write_bytes(archive)
    assert catalog.fetch("rmd17:uracil").read_bytes() == NPZ


@pytest.mark.parametrize(
    ("member", "kwargs"),
    [
        ("../../escape.npz", {}),
        ("rmd17/npz_data/rmd17_uracil.npz", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("rmd17/npz_data/rmd17_uracil.npz", {"type": tarfile.DIRTYPE}),
    ],
)
def test_an_archive_cannot_write_elsewhere(tmp_path, member, kwargs):
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    (inner / "a.tar.bz2").write_bytes(make_tar(member, NPZ if not kwargs else b"", **kwargs))
    with pytest.raises(InputError, match="has no file"):
        catalog.extract(
            inner / "a.tar.bz2", "rmd17/npz_data/rmd17_uracil.npz", inner / "uracil.npz"
        )
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar.bz2", "one", "two"]


# names on the command line


def test_locate_a_path(tmp_path):
    (tmp_path / "x.npz").write_bytes(NPZ)
    assert catalog.locate(tmp_path / "x.npz") == (tmp_path / "x.npz", {})


def test_locate_a_name_gives_file_and_units(server):
    from gradpot.data.files import read

    server.files[url_path("md17:ethanol")] = NPZ
    path, units = catalog.locate("md17:ethanol")
    assert units == {"energy_unit": "kcal/mol", "length_unit": "Ang"}
    assert read(path, **units).n_atoms.shape == (2000,)


def test_locate_the_embedded_set_even_where_a_folder_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ethanol").mkdir()
    path, units = catalog.locate("ethanol")
    assert path.is_file()
    assert units == {"energy_unit": "eV", "length_unit": "Ang"}


def test_locate_neither(tmp_path):
    with pytest.raises(InputError, match=r"is neither a file nor the name of a data set \(did you"):
        catalog.locate("md17:asprin")
    assert catalog.locate(tmp_path) == (tmp_path, {})


# the command line


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command; return its exit code, standard output and standard error."""
    import sys

    from gradpot.cli import main

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gradpot", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


def test_list(run, nobody):
    code, out, _ = run("data", "list")
    assert code == 0
    assert "rmd17:aspirin" in out
    code, out, err = run("data", "list", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)[0]["name"] == "ethanol"


def test_fetch_prints_the_path(run, server):
    server.files[url_path("md17:uracil")] = NPZ
    code, out, err = run("data", "fetch", "md17:uracil")
    assert code == 0
    assert out.strip() == str(catalog.path_of(catalog.find("md17:uracil")))
    assert "10.1126/sciadv.1603015" in err
    assert "no checksum is published" in err
    code, out, _ = run("data", "fetch", "md17:uracil", "--json")
    assert json.loads(out)["path"].endswith("md17_uracil.npz")


def test_fetch_offline_is_one_line_and_exit_code_2(run, nobody):
    code, out, err = run("data", "fetch", "rmd17:aspirin", "--json")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("error: could not get rmd17:aspirin")
