"""A real S3 server over HTTP, and a proxy before it that says 503 when it is told to."""

import http.client
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_django.fixtures import Settings

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def use_s3(settings: Settings, endpoint: str, **options: Any) -> None:
    """Store in an empty bucket there from now on."""
    options = {
        "bucket_name": "bucket",
        "access_key": "key",
        "secret_key": "secret",
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
    } | options
    bucket = client(endpoint)
    bucket.create_bucket(Bucket="bucket")
    for item in bucket.list_objects_v2(Bucket="bucket").get("Contents", []):
        bucket.delete_object(Bucket="bucket", Key=item["Key"])
    default = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": default}


def client(endpoint: str) -> Any:
    """A client of the server that the tests look with, past the product."""
    import boto3

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)


class Proxy:
    """Passes requests on, save those that it was told to refuse."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.refusals = 0
        self.method = ""
        self.refused: list[str] = []
        self.lock = threading.Lock()

    def refuse(self, times: int, method: str) -> None:
        """Answer 503 to the next `times` requests of this method."""
        self.refusals, self.method, self.refused = times, method, []

    def refuses(self, method: str, path: str) -> bool:
        with self.lock:
            if method != self.method or not self.refusals:
                return False
            self.refusals -= 1
            self.refused.append(path)
            return True


@contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    address = urlsplit(endpoint).netloc

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if self.headers.get("Expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if proxy.refuses(self.command, self.path):
                self.answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
                return
            upstream = http.client.HTTPConnection(address)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
            upstream.request(self.command, self.path, data, headers)
            got = upstream.getresponse()
            kept = {k: v for k, v in got.headers.items() if k.lower() not in HOP_BY_HOP}
            length = got.headers["Content-Length"] if self.command == "HEAD" else None
            self.answer(got.status, kept, got.read(), length)
            upstream.close()

        def answer(
            self, status: int, headers: dict[str, str], data: bytes, length: str | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 - its face

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its face
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
