# SPDX-License-Identifier: Apache-2.0
"""Downloads from a server on this machine that cuts, lies and sends pages; archives that attack."""

import hashlib
import io
import stat
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tta_bench.data.acquire.archive import unpack
from tta_bench.data.acquire.download import ATTEMPTS, fetch
from tta_bench.data.acquire.prepare import get
from tta_bench.data.catalogue.files import Download
from tta_bench.errors import BadInputError

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves one file; ``cuts`` says after how many bytes each answer ends, None: it does not."""

    daemon_threads = True

    def __init__(self, content=CONTENT, cuts=(), ranges=True, kind="application/octet-stream", status=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cuts, self.ranges, self.kind, self.status = (
            content,
            list(cuts),
            ranges,
            kind,
            status,
        )
        self.asked, self.claims, self.delay = [], [], 0.0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, name="data.bin"):
        return f"http://127.0.0.1:{self.server_port}/{name}?download=1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range", "")
        server.asked.append(wanted)
        if server.status:
            self.send_error(server.status)
            return
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(server.content) - start))
        if start:
            first = server.claims.pop(0) if server.claims else start
            if first is not None:
                total = len(server.content)
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        self.end_headers()
        time.sleep(server.delay)
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(server.content[start : None if cut is None else start + cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(**options):
        servers.append(Server(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def download(server, content=CONTENT, kind="sha256", **more):
    return Download(server.url(), f"{kind}:{hashlib.new(kind, content).hexdigest()}", **more)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_is_fetched_once(tmp_path, serve, kind):
    server = serve()
    told = []
    path = fetch(download(server, kind=kind), tmp_path, lambda *progress: told.append(progress))
    assert path == tmp_path / "data.bin"
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(download(server, kind=kind), tmp_path) == path
    assert server.asked == [""]


def test_cut_connections_are_resumed_where_they_stopped(tmp_path, serve):
    server = serve(cuts=(1000, 5000))
    path = fetch(download(server), tmp_path, pause_s=0)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000-", "bytes=6000-"]
    assert [one.name for one in tmp_path.iterdir()] == ["data.bin"]


def test_a_later_run_goes_on_from_the_part(tmp_path, serve):
    server = serve(cuts=(7000,) * ATTEMPTS)
    with pytest.raises(BadInputError, match=rf"in {ATTEMPTS} attempts .*goes on from there"):
        fetch(download(server), tmp_path, pause_s=0)
    assert (tmp_path / "data.bin.part").stat().st_size == 7000 * ATTEMPTS
    assert fetch(download(server), tmp_path, pause_s=0).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={7000 * ATTEMPTS}-"


def test_a_server_without_ranges_sends_all_again(tmp_path, serve):
    server = serve(cuts=(1000,), ranges=False)
    assert fetch(download(server), tmp_path, pause_s=0).read_bytes() == CONTENT


@pytest.mark.parametrize("claim", [None, 0, 999, 10000])
def test_an_answer_that_begins_elsewhere_is_not_appended(tmp_path, serve, claim):
    server = serve(cuts=(1000,))
    server.claims.append(claim)
    assert fetch(download(server), tmp_path, pause_s=0).read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000-", ""]


def test_two_that_fetch_one_file_do_not_meet(tmp_path, serve):
    server = serve(cuts=(5000,))
    server.delay = 0.1
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: fetch(download(server), tmp_path, pause_s=0), range(2)))
    assert paths == [tmp_path / "data.bin"] * 2
    assert paths[0].read_bytes() == CONTENT
    assert server.asked == ["", "bytes=5000-"]


def test_a_whole_part_is_only_checked(tmp_path, serve):
    server = serve()
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(download(server), tmp_path, pause_s=0).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_the_file_removed(tmp_path, serve):
    server = serve()
    with pytest.raises(BadInputError, match=r"was removed because its sha256 was .* not "):
        fetch(download(server, content=b"another"), tmp_path, pause_s=0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data.bin").write_bytes(b"left from before")
    with pytest.raises(BadInputError, match="was removed"):
        fetch(download(server), tmp_path, pause_s=0)
    assert list(tmp_path.iterdir()) == []


def test_a_page_instead_of_a_file_is_refused(tmp_path, serve):
    page = b"<!DOCTYPE html><html>Please log in</html>"
    with pytest.raises(BadInputError, match=r"sent a web page instead of data\.bin"):
        fetch(download(serve(content=page, kind="text/html; charset=utf-8")), tmp_path, pause_s=0)
    with pytest.raises(BadInputError, match="it was a web page"):
        fetch(download(serve(content=page)), tmp_path, pause_s=0)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_gone_is_said_at_once(tmp_path, serve):
    server = serve(status=404)
    with pytest.raises(BadInputError, match="answers 404"):
        fetch(download(server), tmp_path, pause_s=0)
    assert len(server.asked) == 1
    ill = serve(status=503)
    with pytest.raises(BadInputError, match="503"):
        fetch(download(ill), tmp_path, pause_s=0)
    assert len(ill.asked) == ATTEMPTS


def tar_bytes(members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members:
            archive.writestr(member, content)
    return buffer.getvalue()


def tar_link(kind, name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


GOOD = (tarfile.TarInfo("set/a.jpg"), b"a")
ATTACKS = {
    "dots": ("tar", tar_bytes([GOOD, (tarfile.TarInfo("set/../../evil"), b"x")])),
    "absolute": ("tar", tar_bytes([GOOD, (tarfile.TarInfo("/tmp/evil"), b"x")])),
    "symlink": ("tar", tar_bytes([GOOD, (tar_link(tarfile.SYMTYPE, "set/l", "/etc"), b"")])),
    "hardlink": ("tar", tar_bytes([GOOD, (tar_link(tarfile.LNKTYPE, "set/l", "../../evil"), b"")])),
    "device": ("tar", tar_bytes([GOOD, (tar_link(tarfile.CHRTYPE, "set/l", ""), b"")])),
    "compressed": ("tar", tar_bytes([GOOD, (tarfile.TarInfo("../evil"), b"x")], "w:gz")),
    "zip dots": ("zip", zip_bytes([("set/a.jpg", b"a"), ("../evil", b"x")])),
    "zip absolute": ("zip", zip_bytes([("set/a.jpg", b"a"), ("/tmp/evil", b"x")])),
    "zip backslash": ("zip", zip_bytes([("set/a.jpg", b"a"), ("..\\evil", b"x")])),
    "zip drive": ("zip", zip_bytes([("set/a.jpg", b"a"), ("C:\\evil", b"x")])),
    "zip link": ("zip", zip_bytes([("set/a.jpg", b"a"), (zip_link("set/l"), b"/etc")])),
}


@pytest.mark.parametrize(("kind", "content"), ATTACKS.values(), ids=ATTACKS)
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path, kind, content):
    path, target = tmp_path / "archive", tmp_path / "inner" / "target"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="is not unpacked because its member"):
        unpack(path, kind, target)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["archive", "inner", "target"]


def test_a_link_that_is_there_already_leads_nothing_out(tmp_path):
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (target / "set").symlink_to(outside)
    (tmp_path / "archive").write_bytes(tar_bytes([GOOD]))
    with pytest.raises(BadInputError, match="through a link"):
        unpack(tmp_path / "archive", "tar", target)
    assert list(outside.iterdir()) == []


def test_a_broken_archive_is_a_sentence(tmp_path):
    for kind in ("tar", "zip"):
        (tmp_path / "archive").write_bytes(b"\x1f\x8b nonsense")
        with pytest.raises(BadInputError, match="cannot be unpacked"):
            unpack(tmp_path / "archive", kind, tmp_path / "target")


@pytest.mark.parametrize("mode", ["w", "w:gz", "zip"])
def test_preparing_fetches_unpacks_and_does_it_once(tmp_path, serve, mode):
    kind = "zip" if mode == "zip" else "tar"
    content = zip_bytes([("set/a.jpg", b"a")]) if kind == "zip" else tar_bytes([GOOD], mode)
    server = serve(content=content, cuts=(20,))
    wanted = download(server, content=content, unpack=kind, into="Folder")
    told = []
    get([wanted], tmp_path, told=told.append)
    assert (tmp_path / "Folder" / "set" / "a.jpg").read_bytes() == b"a"
    asked = len(server.asked)
    get([wanted], tmp_path, told=told.append)
    assert len(server.asked) == asked == 2
    assert told[-1].endswith("unpacked already")


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("harm", ["remove", "cut"])
def test_preparing_again_mends_what_was_lost(tmp_path, serve, kind, harm):
    if kind == "zip":
        content = zip_bytes([("set/a.jpg", b"abc"), ("set/b.jpg", b"b"), ("set/", b"")])
    else:
        content = tar_bytes([(tarfile.TarInfo("set/a.jpg"), b"abc"), (tarfile.TarInfo("set/b.jpg"), b"b")])
    server = serve(content=content)
    wanted = download(server, content=content, unpack=kind)
    get([wanted], tmp_path)
    lost, told = tmp_path / "set" / "a.jpg", []
    if harm == "remove":
        lost.unlink()
    else:
        lost.write_bytes(b"a")
    get([wanted], tmp_path, told=told.append)
    assert lost.read_bytes() == b"abc"
    assert told[0] == "data.bin: 1 of its files are missing, set/a.jpg among them"
    get([wanted], tmp_path, told=told.append)
    assert told[-1] == "data.bin: unpacked already"
    assert len(server.asked) == 2
