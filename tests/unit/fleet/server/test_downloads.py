"""What boxes fetch over HTTPS: in parts, not too many at once, not too fast, and nothing else of the server."""

from __future__ import annotations

import hashlib
import http.client
import socket
import time
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from tuf_kit import TufKit

from appliance.fleet.server.downloads import Downloads, Limits, Pace, address_of, part_of
from appliance.web.pool import Pool

pytestmark = pytest.mark.req("R-TUF-05")

DATA = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(DATA).hexdigest()
PATH = f"/v1/tuf/targets/models/ich-ct/{SHA256}.2.0.0.zip"


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    made = TufKit(tmp_path_factory.mktemp("downloads") / "tuf")
    made.add_model(DATA, "ich-ct", "2.0.0", "0123456789abcdef")
    (made.folder.parent / "secret.json").write_text("{}")
    (made.folder / "metadata/secret.json").write_text("{}")
    (made.folder / f"targets/{SHA256}.link").symlink_to(made.folder.parent / "secret.json")
    return made


@pytest.fixture(scope="module")
def url(kit):
    with kit.serve() as found:
        yield found


def ask(url, path, method="GET", **headers):
    """Status, headers and body, with the path as it stands."""
    parts = urlsplit(url)
    line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    line.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    got = line.getresponse()
    body = got.read()
    line.close()
    return got.status, got.headers, body


def test_a_target_comes_whole_with_its_hash_as_tag_and_may_be_kept_for_ever(url):
    status, headers, body = ask(url, PATH)
    assert (status, body) == (200, DATA)
    assert headers["ETag"] == f'"{SHA256}"'
    assert "immutable" in headers["Cache-Control"]
    assert headers["Accept-Ranges"] == "bytes"


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(url):
    begun = ask(url, PATH, Range="bytes=0-99999")
    assert (begun[0], begun[1]["Content-Range"]) == (206, f"bytes 0-99999/{len(DATA)}")
    status, headers, rest = ask(url, PATH, Range="bytes=100000-", If_Range=begun[1]["ETag"])
    assert (status, headers["Content-Range"]) == (206, f"bytes 100000-{len(DATA) - 1}/{len(DATA)}")
    assert begun[2] + rest == DATA


def test_a_part_of_another_file_is_not_put_behind_it(url):
    status, _, body = ask(url, PATH, Range="bytes=100000-", If_Range='"' + "0" * 64 + '"')
    assert (status, body) == (200, DATA)


def test_a_part_beyond_the_end_is_refused_with_the_size(url):
    status, headers, _ = ask(url, PATH, Range=f"bytes={len(DATA)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")


@pytest.mark.parametrize(
    ("asked", "size", "part"),
    [
        (None, 10, None),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=3-", 10, (3, 7)),
        ("bytes=3-99", 10, (3, 7)),
        ("bytes=-4", 10, (6, 4)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes=5-4", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,4-5", 10, None),
        ("lines=0-1", 10, None),
        ("bytes=" + "9" * 99 + "-", 10, None),
    ],
)
def test_a_range_is_one_part_or_the_whole(asked, size, part):
    assert part_of(asked, size) == part


@pytest.mark.parametrize(("asked", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)])
def test_a_range_of_nothing_is_refused(asked, size):
    with pytest.raises(ValueError, match=r"end|empty"):
        part_of(asked, size)


def test_head_tells_the_size_and_sends_nothing(url):
    status, headers, body = ask(url, PATH, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(DATA)), b"")
    assert ask(url, PATH, "HEAD", Range="bytes=5-9")[1]["Content-Length"] == "5"


def test_what_changes_is_asked_for_anew_and_what_has_not_is_not_sent_again(url):
    status, headers, body = ask(url, "/v1/tuf/metadata/timestamp.json")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert ask(url, "/v1/tuf/metadata/timestamp.json", If_None_Match=headers["ETag"])[0] == 304
    assert ask(url, PATH, If_None_Match=f'"{SHA256}"')[0] == 304
    assert "immutable" in ask(url, "/v1/tuf/metadata/1.root.json")[1]["Cache-Control"]
    missing = ask(url, "/v1/tuf/metadata/2.root.json")
    assert (missing[0], missing[1]["Cache-Control"]) == (404, "no-store")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tuf/metadata/secret.json",
        "/v1/tuf/metadata/..%2f..%2fsecret.json",
        "/v1/tuf/metadata/../repository.lock",
        "/v1/tuf/targets/../../secret.json",
        "/v1/tuf/targets/..%2f..%2fsecret.json",
        f"/v1/tuf/targets/models/..%2f..%2f..%2f{SHA256}.2.0.0.zip",
        f"/v1/tuf/targets//models/ich-ct/{SHA256}.2.0.0.zip",
        f"/v1/tuf/targets/models/ich-ct/{SHA256}.2.0.0.zip/",
        f"/v1/tuf/targets/models/ich-ct/{SHA256}.2.0.0.zip%00",
        f"/v1/tuf/targets/{SHA256}.link",
        "/v1/tuf/targets/models/ich-ct",
        "/v1/tuf/targets/",
        f"/v1/tuf/targets/{'a/' * 3000}x",
    ],
)
def test_nothing_else_of_the_server_is_found(url, path):
    status, _, body = ask(url, path)
    assert (status, body == b"{}") == (404, False)


def test_nothing_is_put_here(url):
    assert ask(url, PATH, "PUT")[0] == 405
    assert ask(url, PATH, "POST")[0] == 405


class Slow:
    """A box that asks for a large target and reads nothing of it."""

    def __init__(self, url, path, address="127.0.0.1"):
        parts = urlsplit(url)
        source = (address, 0)
        self.line = socket.create_connection((parts.hostname, parts.port), timeout=30, source_address=source)
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.line.recv(1)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    made = TufKit(tmp_path_factory.mktemp("large") / "tuf")
    made.add("large.bin", bytes(24 * 1024 * 1024))
    return made


def until(done):
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_too_many_at_once_are_told_when_to_come_again_and_a_box_that_goes_leaves_its_place(large):
    path = f"/v1/tuf/targets/{large.blob('large.bin').name}"
    with large.serve(limits=Limits(downloads=2)) as url:
        slow = [Slow(url, path, "127.0.0.2"), Slow(url, path)]
        status, headers, _ = ask(url, path)
        assert (status, headers["Retry-After"]) == (503, "60")
        assert ask(url, path, "HEAD")[0] == 200
        assert ask(url, "/v1/tuf/metadata/timestamp.json")[0] == 200, "metadata is always answered"
        slow.pop().line.close()
        # Twice: so does one that has all of it, in a moment, as the server hears of the end after the box.
        until(lambda: ask(url, path, Range="bytes=0-9")[0] == 206)
        until(lambda: ask(url, path, Range="bytes=0-9")[0] == 206)
        slow.pop().line.close()


def test_one_address_takes_half_of_the_places_at_most(large):
    path = f"/v1/tuf/targets/{large.blob('large.bin').name}"
    with large.serve(limits=Limits(downloads=4)) as url:
        slow = [Slow(url, path, "127.0.0.2") for _ in range(2)]
        third = Slow(url, path, "127.0.0.2")
        assert b"503" in third.line.recv(100)
        assert ask(url, path, Range="bytes=0-9")[0] == 206, "others are served"
        slow.pop().line.close()
        third.line.close()

        def is_served():
            again = Slow(url, path, "127.0.0.2")
            answer = again.line.recv(100)
            again.line.close()
            return b"200 OK" in answer

        until(is_served)
        slow.pop().line.close()


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_all_addresses_of_one_ipv6_network_are_one(first, second, is_one):
    one, other = (address_of(Request({"type": "http", "client": (host, 1)})) for host in (first, second))
    assert (one == other) is is_one


def test_of_a_narrow_line_so_few_have_a_part_that_nobody_hears_nothing_for_long():
    assert Limits.of(64, None) == Limits(64)
    for mbit_s in (0.01, 0.5, 1.0, 2.0, 8.0, 1000.0):
        limits = Limits.of(64, mbit_s)
        assert 1 <= limits.downloads <= 64
        turn_s = limits.downloads * 128 * 1024 / limits.bytes_per_s
        assert turn_s <= 10 or limits.downloads == 1, "a box leaves a line that says nothing for 30 s"
    assert Limits.of(64, 1000.0).downloads == 64


def test_a_box_that_takes_nothing_loses_its_place(large):
    path = f"/v1/tuf/targets/{large.blob('large.bin').name}"
    with large.serve(limits=Limits(downloads=1, stall_s=0.3)) as url:
        stuck = Slow(url, path)
        until(lambda: ask(url, path, Range="bytes=0-9")[0] == 206)
        stuck.line.close()


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s


def test_all_downloads_together_keep_to_the_rate():
    clock = Clock()
    pace = Pace(1000.0, clock)
    waited = [pace.wait_s(500) for _ in range(8)]
    # A second's worth goes at once; then half a second for each, whoever asks.
    assert waited == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    clock.now_s += 60
    assert pace.wait_s(500) == 0.0, "time in which nobody asked counts for one second, not for sixty"
    assert [pace.wait_s(500) for _ in range(3)][-1] == 1.0
    assert Pace(None, clock).wait_s(10**12) == 0.0
    assert Limits.of(3, 8.0) == Limits(3, 1e6)


def test_a_download_keeps_to_the_rate(large):
    path = f"/v1/tuf/targets/{large.blob('large.bin').name}"
    with large.serve(limits=Limits(bytes_per_s=4e6)) as url:
        begun = time.monotonic()
        assert ask(url, path, Range="bytes=0-5599999")[0] == 206
        # A second's worth goes at once, the rest takes 0.4 s; the last piece's own time counts before it is sent.
        assert time.monotonic() - begun >= 0.39


def test_a_repository_that_was_never_made_answers_404(tmp_path):
    pool = Pool(1, "none")
    assert [route.path for route in Downloads(tmp_path / "tuf", pool, Clock()).routes()]
    kit = TufKit(tmp_path / "made")
    kit.folder = tmp_path / "none"
    with kit.serve() as url:
        assert ask(url, "/v1/tuf/metadata/root.json")[0] == 404
        assert ask(url, PATH)[0] == 404
    pool.close()
