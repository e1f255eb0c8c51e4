"""A real MariaDB for the tests that ask one: the machine's, or Debian's package of the server.

It starts with the first test that wants it, on data of its own and a free port, and ends with the
tests. A machine that has none and cannot install one skips those tests, except in CI.
"""

import fcntl
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tippers.embedded.children import Account, Child
from tippers.embedded.home import free_port

if TYPE_CHECKING:
    from connections.target import Target

ACCOUNT = "nobody"  # the server does not run as root
START_S = 60.0


@dataclass(frozen=True)
class MariaDB:
    """A running server, and the account that may do everything there."""

    port: int
    user: str
    password: str

    def connect(self, database: str | None = None) -> Any:
        """A PyMySQL connection that commits as it goes."""
        import pymysql

        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
        )

    def target(self, database: str) -> "Target":
        from connections.target import Target

        return Target("mysql", "127.0.0.1", self.port, database, self.user, self.password)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The server; every test that uses it makes databases of its own."""
    binary = _binary()
    with tempfile.TemporaryDirectory(prefix="tippers-mariadb-") as folder:
        child, server = _prepared(binary, Path(folder))
        with (Path(folder) / "server.log").open("ab") as log:
            process = child.spawn(log.fileno())
        try:
            _wait_until_ready(server, process, Path(folder) / "server.log")
            yield server
        finally:
            process.kill()  # what it would save goes with its folder
            process.wait(30)


@pytest.fixture
def mariadb_database(mariadb: MariaDB) -> Iterator[str]:
    """An empty database that is dropped afterwards."""
    name = f"scratch_{uuid.uuid4().hex[:12]}"
    with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield name
        cursor.execute(f"DROP DATABASE {name}")


def _binary() -> str:
    if found := _found():
        return found
    reason = "there is no mariadbd on the PATH or in /usr/sbin"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
        if found := _found():
            return found
        reason += ", and apt-get could not install mariadb-server-core"
    else:
        reason += ", and only root with apt-get could install mariadb-server-core"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; in CI nothing is skipped")
    pytest.skip(f"{reason}: the MySQL path is not tested")


def _found() -> str | None:
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _install() -> None:
    # Of tests that run side by side one installs, and the others find what it did.
    with (Path(tempfile.gettempdir()) / "tippers-tests-installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _found():
            _apt_get()


def _apt_get() -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    package = ["install", "-y", "--no-install-recommends", "mariadb-server-core"]
    for arguments in (["update"], package):
        subprocess.run(
            ["apt-get", "-q", *arguments],
            env=environment,
            check=False,  # what counts is whether the server is there afterwards
            capture_output=True,
            timeout=240,
        )


def _prepared(binary: str, folder: Path) -> tuple[Child, MariaDB]:
    """The data folder, made, and what to start on it."""
    data, files = folder / "data", folder / "files"
    data.mkdir()
    files.mkdir()
    account = None
    if os.geteuid() == 0:
        entry = pwd.getpwnam(ACCOUNT)
        account = Account(ACCOUNT, entry.pw_uid, entry.pw_gid)
        for each in (folder, data, files):
            os.chown(each, entry.pw_uid, entry.pw_gid)
    server = MariaDB(free_port(), "tests", secrets.token_hex(16))
    arguments = [
        binary,
        "--no-defaults",
        f"--datadir={data}",
        f"--tmpdir={files}",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=8M",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-flush-method=nosync",
        "--skip-name-resolve",
    ]
    subprocess.run(
        [*arguments, "--bootstrap"],
        input=_system_tables(),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        cwd="/",
        check=True,
        capture_output=True,
        timeout=START_S,
    )
    # As somebody may well have set it up: the FILE privilege reaches every file.
    start = folder / "start.sql"
    start.write_text(
        f"CREATE USER {server.user}@'127.0.0.1' IDENTIFIED BY '{server.password}';\n"
        f"GRANT ALL ON *.* TO {server.user}@'127.0.0.1' WITH GRANT OPTION;\n"
    )
    start.chmod(0o644)
    arguments += [
        f"--socket={folder / 'socket'}",
        f"--pid-file={folder / 'pid'}",
        f"--init-file={start}",
        "--bind-address=127.0.0.1",
        f"--port={server.port}",
        "--secure-file-priv=",
    ]
    return Child("mariadb", arguments, account=account), server


def _system_tables() -> bytes:
    """What mariadb-install-db would feed to the server; Debian keeps it in another package."""
    pieces = [b"create database mysql;\nuse mysql;\n"]
    for name in ("system_tables", "performance_tables", "system_tables_data"):
        # mysql/mysql_* before version 11, mariadb/mariadb_* since.
        (script, *_) = Path("/usr/share").glob(f"m[ya]*/m[ya]*_{name}.sql")
        pieces.append(script.read_bytes())
    return b"\n".join(pieces)


def _wait_until_ready(server: MariaDB, process: "subprocess.Popen[bytes]", log: Path) -> None:
    import pymysql

    until = time.monotonic() + START_S
    while True:
        try:
            server.connect().close()
        except pymysql.Error:
            if process.poll() is not None or time.monotonic() > until:
                said = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                pytest.fail(f"MariaDB does not start:\n{said}")
            time.sleep(0.05)
        else:
            return
