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
        self.length, self.location = None, ""
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
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        if server.length is None:
            self.send_header("Content-Length", str(len(server.content) - start))
        else:
            self._headers_buffer.append(b"Content-Length: " + server.length + b"\r\n")
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
    with pytest.raises(BadInputError, match=rf"in {ATTEMPTS} attempts .*resumes from there"):
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


def zip_bytes(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
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


def encrypted():
    """A zip archive that says that its one member needs a password."""
    content = bytearray(zip_bytes([("set/a.jpg", b"a")]))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    return bytes(content)


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
    "a file and a folder": ("tar", tar_bytes([GOOD, (tarfile.TarInfo("set"), b"x")])),
    "a folder that is a file": ("tar", tar_bytes([(tarfile.TarInfo("set"), b"x"), GOOD])),
    "one name twice": ("tar", tar_bytes([GOOD, (tarfile.TarInfo("set/./a.jpg"), b"xx")])),
    "a long name": ("tar", tar_bytes([GOOD, (tarfile.TarInfo("set/" + 300 * "x"), b"x")])),
    "no name": ("tar", tar_bytes([GOOD, (tarfile.TarInfo("./"), b"x")])),
    "zip a file and a folder": ("zip", zip_bytes([("set/a.jpg", b"a"), ("set", b"x")])),
    "zip long name": ("zip", zip_bytes([("set/a.jpg", b"a"), (300 * "é", b"x")])),
    "zip encrypted": ("zip", encrypted()),
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


def damaged(mode):
    content = bytearray(
        tar_bytes([(tarfile.TarInfo(f"set/{n}.jpg"), bytes(range(256)) * 40) for n in range(9)], mode)
    )
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    return bytes(content)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("tar", b""),
        ("zip", b""),
        ("tar", b"<html></html>"),
        ("tar", damaged("w:xz")),
        ("tar", damaged("w:bz2")),
        ("tar", tar_bytes([GOOD], "w:gz")[:-20]),
        ("zip", zip_bytes([("set/a.jpg", 99 * b"a")])[:-30]),
        ("zip", zip_bytes([("set/a.jpg", 99 * b"a")]).replace(b"aaa", b"aab", 1)),
        ("zip", zip_bytes([("set/a.jpg", 99 * b"a")]).replace(b"PK\x03\x04", b"PK\x03\x05")),
    ],
    ids=[
        "empty tar", "empty zip", "a page", "damaged xz", "damaged bz2", "cut gz", "cut zip", "wrong sum", "no header",
    ],  # the bytes hold the time of day, which would rename a test in every worker
)  # fmt: skip
def test_damaged_archives_are_sentences(tmp_path, kind, content):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(
        BadInputError, match=r"cannot be unpacked \(.+\); remove it and fetch it again"
    ) as caught:
        unpack(tmp_path / "archive", kind, tmp_path / "target")
    assert "\n" not in str(caught.value)


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "set").write_bytes(b"x")
    (tmp_path / "archive").write_bytes(tar_bytes([GOOD]))
    with pytest.raises(BadInputError, match=r"cannot be unpacked into .*target/set"):
        unpack(tmp_path / "archive", "tar", tmp_path / "target")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_have_limits(tmp_path, kind, monkeypatch):
    zeros = bytes(1 << 20)
    members = [("set/a.jpg", zeros), ("set/b.jpg", zeros)]
    content = (
        zip_bytes(members, zipfile.ZIP_DEFLATED)
        if kind == "zip"
        else tar_bytes([(tarfile.TarInfo(name), data) for name, data in members], "w:gz")
    )
    (tmp_path / "archive").write_bytes(content)
    unpack(tmp_path / "archive", kind, tmp_path / "small enough")
    for limit, value, sentence in (
        ("FREE_OF_RATIO", 1000, "more than 100 times as large as the archive"),
        ("MOST_MEMBERS", 1, "is one of more than 1;"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"tta_bench.data.acquire.archive.{limit}", value)
            with pytest.raises(BadInputError, match=sentence):
                unpack(tmp_path / "archive", kind, tmp_path / limit)
        assert list((tmp_path / limit).iterdir()) == []
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr("tta_bench.data.acquire.archive.shutil.disk_usage", lambda path: usage)
    with pytest.raises(BadInputError, match=r"needs 2,097,152 bytes unpacked, but .* has room for 1,048,576"):
        unpack(tmp_path / "archive", kind, tmp_path / "full")
    unpack(tmp_path / "archive", kind, tmp_path / "small enough")


@pytest.mark.parametrize("length", ["abc", "-5", "1e9", "", "٣"])
def test_a_length_that_is_no_number_is_as_none(tmp_path, serve, length):
    server = serve()
    server.length = length.encode()
    path = fetch(download(server), tmp_path, pause_s=0)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/data.bin", "file:///etc/hostname", "data.bin", "http//x/data.bin"]
)
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(BadInputError, match="begins with http:// or https://"):
        fetch(Download(url, "md5:0"), tmp_path, pause_s=0)


def test_a_redirect_to_another_kind_of_address_is_refused(tmp_path, serve):
    server = serve()
    server.location = "ftp://127.0.0.1:1/data.bin"
    with pytest.raises(BadInputError) as caught:
        fetch(download(server), tmp_path, pause_s=0)
    assert "\n" not in str(caught.value)


def test_downloads_have_limits(tmp_path, serve, monkeypatch):
    server = serve()
    with pytest.raises(BadInputError, match=r"sends more than the 1,000 bytes of data\.bin"):
        fetch(download(server, size=1000), tmp_path, pause_s=0)
    assert not list(tmp_path.glob("*.part"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("tta_bench.data.acquire.download.shutil.disk_usage", lambda path: usage)
    with pytest.raises(BadInputError, match=r"has 1,024,000 bytes, but .* has room for 1,000"):
        fetch(download(server), tmp_path, pause_s=0)


@pytest.mark.parametrize("content", ["{", "[]", '{"checksum": 3}', '{"members": [1]}', "[" * 100000, '"x"'])
def test_a_damaged_marker_is_as_none(tmp_path, serve, content):
    archive = tar_bytes([GOOD])
    server = serve(content=archive)
    wanted = download(server, content=archive, unpack="tar")
    get([wanted], tmp_path)
    (tmp_path / ".downloads" / "data.bin.done").write_text(content, encoding="utf-8")
    get([wanted], tmp_path)
    assert len(server.asked) == 2


@pytest.mark.parametrize("mode", ["w", "w:gz", "zip"])
def test_preparing_fetches_unpacks_and_does_it_once(tmp_path, serve, mode):
    kind = "zip" if mode == "zip" else "tar"
    content = zip_bytes([("set/a.jpg", b"a")]) if kind == "zip" else tar_bytes([GOOD], mode)
    server = serve(content=content, cuts=(20,))
    wanted = download(server, content=content, unpack=kind, into="Folder")
    told = []
    get([wanted], tmp_path, report=told.append)
    assert (tmp_path / "Folder" / "set" / "a.jpg").read_bytes() == b"a"
    asked = len(server.asked)
    get([wanted], tmp_path, report=told.append)
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
    get([wanted], tmp_path, report=told.append)
    assert lost.read_bytes() == b"abc"
    assert told[0] == "data.bin: 1 of its files are missing, set/a.jpg among them"
    get([wanted], tmp_path, report=told.append)
    assert told[-1] == "data.bin: unpacked already"
    assert len(server.asked) == 2
