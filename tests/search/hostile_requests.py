"""Hostile requests to `nrccr serve`, in parts that `tests/search/attack.py` runs one after the other."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from nrccr.search.listen import HEAD_SECONDS, MOST_CONNECTIONS

SECRET = b"this must not be served"
LEAKS = (SECRET, b"Traceback", b"site-packages", b"root:", b'File "', b".py")
SEARCH = "POST /api/search HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"


@dataclass
class Target:
    """The server under attack.

    Attributes:
        port: on loopback.
        folder: of index and media, whose name no answer may hold.
        item: of the index, with a file.
        query: that finds something.
        seen: statuses of the answers.
    """

    port: int
    folder: Path
    item: str
    query: str
    seen: Counter[int] = field(default_factory=Counter)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(self, data: bytes, seconds: float = 30.0) -> bytes:
        """All that it answers to bytes, until it hangs up or says nothing more."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=seconds)) as connection:
            try:
                connection.sendall(data)
            except OSError:
                pass  # it has hung up; what it said is there
            parts = []
            try:
                while part := connection.recv(1 << 16):
                    parts.append(part)
            except (ConnectionResetError, TimeoutError):
                pass
        return b"".join(parts)

    def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
        """Status and body of a request, sent as it is."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", "Connection: close", *headers]
        if body:
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        return self.checked(self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body), (method, path[:80]))

    def checked(self, answer: bytes, what: object) -> tuple[int, bytes]:
        """Status and body of an answer that is sound: an error is one line of JSON, nothing of the machine is in it."""
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), (what, answer[:200])
        status = int(head[9:12])
        self.seen[status] += 1
        if status >= 400 and not str(what).startswith("('HEAD'"):
            assert set(json.loads(body)) == {"error"} and b"\n" not in body, (what, answer[:500])
        if b"text/html" not in head.lower() and b"javascript" not in head.lower():
            found = next((leak for leak in (*LEAKS, str(self.folder).encode()) if leak in answer), None)
            assert found is None, (what, found, answer[:500])
        return status, body


def attack_paths(target: Target) -> None:
    """Ways out of the media folder, and Gradio's other doors."""
    ups = ("..", "%2e%2e", "%252e%252e", "..%00", "%c0%ae%c0%ae", "%uff0e%uff0e", "....", ".%2e", "%2E.")
    ends = ("secret.mp4", "secret", "etc/passwd", "..%5csecret", "../../../../etc/passwd")
    for door in (
        "/media/",
        "/assets/",
        "/static/",
        "/svelte/",
        "/api/",
        "/gradio_api/heartbeat/../file=",
        "/theme.css/",
    ):
        for up in ups:
            for slash in ("/", "%2f", "%5c", "\\", "//", "%252f"):
                path = f"{door}{up}{slash}{ends[(len(up) + len(slash)) % len(ends)]}"
                status, body = target.ask("GET", path)
                assert 400 <= status < 500, (path, status, body[:200])
    inside = target.folder / "media"
    for path in (
        *(
            "/media/out",
            "/media/out.mp4",
            f"/media/{inside}/{target.item}",
            "/media//etc/passwd",
            "/media/C:%5cboot.ini",
        ),
        *(
            "/media/%5c%5chost%5cshare",
            "/media/" + "a" * 20_000,
            "/media/%00",
            "/media/\xff",
            "/media/%ff%fe",
            "/media/",
        ),
        *("/media/" + "%2e%2e/" * 3000, f"/media/{target.item}%00.mp4", f"/media/{target.item}/../{target.item}"),
        *("/gradio_api/file=/etc/passwd", f"/gradio_api/file={target.folder}/secret.mp4", "/file=/etc/passwd"),
        *(
            "/gradio_api/upload",
            "/gradio_api/proxy=http://127.0.0.1:1/",
            "/gradio_api/call/x",
            "/gradio_api/run/predict",
        ),
        *(
            "/gradio_api/stream/a/b/c",
            "/gradio_api/vibe-code/",
            "/login",
            "/token",
            "/docs",
            "/openapi.json",
            "/monitoring",
        ),
        *("/robots.txt", "/pwa_icon", "/gradio_api/deep_link", "/gradio_api/component_server", "/svelte/../../x"),
        *(
            "http://127.0.0.1/media/x",
            "*",
            "//media/x",
            "/%2fmedia/x",
            "/MEDIA/x",
            "/api",
            "/api/",
            "/api/nothing",
            "/media",
        ),
    ):
        status, body = target.ask("GET", path)
        assert 400 <= status < 500, (path, status, body[:200])
    ranges = ",".join(f"{place}-{place}" for place in range(0, 8000, 2))
    for value in (
        "bytes=0-9",
        "bytes=-1",
        "bytes=9-0",
        "bytes=99999999-",
        "bytes=" + ranges[:20_000],
        "lines=1-2",
        "\x01",
    ):
        began = time.monotonic()
        target.ask("GET", f"/media/{target.item}", b"", f"Range: {value}")
        assert time.monotonic() - began < 10, value


def attack_bodies(target: Target) -> None:
    """JSON that is none, of other types, deep, large, and of numbers that are none."""
    good = json.dumps({"query": target.query}).encode()
    wrong: list[bytes] = [
        *(
            b"",
            b"{",
            b"[]",
            b"null",
            b"3",
            b'"x"',
            b"\xff\xfe{",
            b"\xef\xbb\xbf{}",
            b"{}",
            b"[" * 60_000,
            b'{"a":' * 9000,
        ),
        *(good[:-1], good + good, b'{"query": "\\ud800"}', b'{"query": "\xed\xa0\x80"}', b'{"query": 1e400}'),
        *(
            b'{"\\ud800": 1, "query": "a"}',
            b'{"query": "a", "top": NaN}',
            b'{"query": "a", "top": 1' + b"0" * 5000 + b"}",
        ),
        *(
            b'{"query": "a", "top": true}',
            b'{"query": "a", "top": 1.5}',
            b'{"query": "a", "top": -1}',
            b'{"query": {}}',
        ),
        *(b'{"query": "a", "english": "yes"}', b'{"query": "a", "' + b"k" * 50_000 + b'": 1}', b'{"query": "   "}'),
        *(json.dumps({"query": text}).encode() for text in ("", "\u200b", "\0" * 2000, "a" * 1001)),
    ]
    for body in wrong:
        status, answer = target.ask("POST", "/api/search", body)
        assert status in (400, 422), (body[:80], status, answer)
    for text in (
        "\0",
        "[MASK]" * 100,
        "</s>",
        "\u202e" + target.query,
        "a" * 1000,
        "\U0001f600" * 1000,
        "'; DROP TABLE items; --",
    ):
        status, answer = target.ask("POST", "/api/search", json.dumps({"query": text}).encode())
        assert status in (200, 400), (text, answer)
    strange: list[dict[str, object]] = [{"window": value} for value in (float("nan"), float("inf"), 0, -1.5, "4")]
    strange += [{"video": value} for value in ("../x", "\0", "x" * 1001, 3)] + [{"top": 10**30}, {"other": 1}]
    for values in strange:
        body = json.dumps({"video": target.item, "query": target.query} | values).encode()
        status, answer = target.ask("POST", "/api/moments", body)
        assert status in (404, 422), (values, status, answer)
    joins = (b"{}", b"[]", b'{"data": [], "fn_index": 99, "session_hash": "x"}', b'{"data": 3, "fn_index": "x"}')
    joins += (b'{"data": [{}, []], "fn_index": 0, "session_hash": {}}', b'{"fn_index": -1, "data": ["a", "b"]}')
    for join in joins:
        target.ask("POST", "/gradio_api/queue/join", join)
    large = b'{"query": "' + b"x" * 10_000_000 + b'"}'
    for path in ("/api/search", "/api/moments", "/gradio_api/queue/join", "/gradio_api/reset"):
        assert target.ask("POST", path, large)[0] == 413
    head = (SEARCH.format(host=target.host) + "Transfer-Encoding: chunked\r\n\r\n").encode()
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (large[at : at + 9000] for at in range(0, 10**7, 9000))
    )
    assert target.checked(target.send(head + chunks + b"0\r\n\r\n"), "large chunks")[0] == 413
    small = b"".join(b"1\r\n%c\r\n" % byte for byte in good)
    assert target.checked(target.send(head + small + b"0\r\n\r\n"), "small chunks")[0] == 200
    endless = head + b"100000\r\n" + b"x" * (20 << 20)
    assert target.checked(target.send(endless), "endless chunk")[0] in (400, 413)


def attack_protocol(target: Target) -> None:
    """Other methods, hosts and origins, floods of headers, and what is no HTTP."""
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD"):
        assert target.ask(method, "/api/search")[0] == 405
    for method in ("POST", "DELETE", "HEAD", "PROPFIND", "CONNECT", "get"):
        assert target.ask(method, f"/media/{target.item}")[0] in (404, 405)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        assert 400 <= target.ask(method, "/")[0] < 500
    for host in (
        "evil.example",
        "evil.example:80",
        f"127.0.0.1.evil.example:{target.port}",
        "",
        "localhost@evil",
        "[::2]",
    ):
        answer = target.send(f"GET /api/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert target.checked(answer, host)[0] in (400, 421), host
    for host in (f"localhost:{target.port}", "LOCALHOST", f"[::1]:{target.port}", target.host):
        answer = target.send(f"GET /api/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert target.checked(answer, host)[0] == 200, host
    body = json.dumps({"query": target.query}).encode()
    for origin in (
        "http://evil.example",
        "null",
        f"http://{target.host}.evil.example",
        "http://localhost:1",
        "file://",
    ):
        assert target.ask("POST", "/api/search", body, f"Origin: {origin}")[0] == 403
        assert target.ask("GET", "/config", b"", f"Origin: {origin}")[0] == 403
    assert target.ask("POST", "/api/search", body, f"Origin: http://{target.host}")[0] == 200
    get = f"GET /api/health HTTP/1.1\r\nHost: {target.host}\r\n"
    post = SEARCH.format(host=target.host)
    chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
    heads = [
        *(
            "X: " + "y" * (1 << 20),
            "".join(f"X-{number}: {'y' * 50}\r\n" for number in range(20_000)),
            "\0: a",
            "X: \0",
        ),
        *("X : a", "no colon", "Host: other", " folded"),
    ]
    lengths = ("-1", "1e3", "9" * 30, "9\r\nContent-Length: 8", "9\r\nTransfer-Encoding: gzip, chunked")
    for no_http in (
        *(get + head + "\r\n\r\n" for head in heads),
        *(post + f"Content-Length: {length}\r\n\r\n" for length in lengths),
        *(chunked + size for size in ("zz\r\n", "-1\r\n\r\n", "f" * 100 + "\r\n", "1;" + "x" * 100_000)),
        *(
            f"GET /{'a' * 200_000} HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "GET /\r\n\r\n",
        ),
        *("GET  /  HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\0\x01\0", "\xff" * 1000),
        *("\r\n" * 20_000, "x" * 9),
    ):
        answer = target.send(no_http.encode("latin-1"), 1.0)
        if answer:  # to what is no whole request it may only hang up
            assert target.checked(answer, no_http[:60])[0] >= 400, no_http[:60]
    upgrade = (
        get
        + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert target.checked(target.send(upgrade.encode()), "upgrade")[0] in (200, 400, 404)
    both = get + "\r\n" + get + "Connection: close\r\n\r\n"
    assert target.send(both.encode()).count(b"HTTP/1.1 200") == 2  # pipelined


def attack_slowly(target: Target) -> None:
    """Heads and bodies that arrive a byte a second, and more connections than it takes: others are answered."""
    head = f"GET /api/health HTTP/1.1\r\nHost: {target.host}\r\nX: ".encode()
    body = (SEARCH.format(host=target.host) + "Content-Length: 1000\r\n\r\n").encode()
    again = f"GET /api/health HTTP/1.1\r\nHost: {target.host}\r\n\r\nGET ".encode()
    slow = [
        (socket.create_connection(("127.0.0.1", target.port)), data) for data in (head, body, again) for _ in range(40)
    ]
    for connection, data in slow:
        connection.sendall(data)
    began = time.monotonic()
    while time.monotonic() - began < HEAD_SECONDS + 4:
        assert target.ask("GET", "/api/health")[0] == 200
        for connection, _ in slow:
            try:
                connection.send(b"x")
            except OSError:
                pass  # it has hung up, as it should
        time.sleep(1)
    for connection, data in slow:
        answer = _rest(connection)
        if data is again:
            assert answer.startswith(b"HTTP/1.1 200"), answer[:100]
        else:
            assert target.checked(answer, data[:20])[0] == 408
    idle = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(MOST_CONNECTIONS + 50)]
    time.sleep(1)
    refused = _rest(idle[-1])
    assert target.checked(refused, "one connection too many")[0] == 503
    for connection in idle:
        connection.close()
    time.sleep(1)
    assert target.ask("GET", "/api/health")[0] == 200


def _rest(connection: socket.socket) -> bytes:
    """What a connection still says until it ends, which it must."""
    connection.settimeout(5)
    parts = []
    with closing(connection):
        try:
            while part := connection.recv(1 << 16):
                parts.append(part)
        except ConnectionResetError:
            pass
    return b"".join(parts)
