"""The servers that tests stand on: a real PostgreSQL and a real broker, in a scratch home.

Loaded before Django's settings are read. DATABASE_URL or REDIS_URL in the environment replaces a
part; the database role must be allowed to create databases. Tests that run side by side stand on
servers of their own: a broker's hint taken by the other half's worker would be lost.
"""

import base64
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tippers.embedded.broker import Broker
from tippers.embedded.home import Home
from tippers.embedded.postgres import Cluster

_cluster: Cluster | None = None
_broker: "subprocess.Popen[bytes] | None" = None
_home: tempfile.TemporaryDirectory[str] | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    global _home
    if early_config.known_args_namespace.numprocesses and "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ.setdefault("SECRET_KEY", "tests only")
        return  # it hands the tests out and runs none
    _home = tempfile.TemporaryDirectory(prefix="tippers-tests-")
    home = Home(Path(_home.name) / "home")
    home.prepare()
    os.environ["TIPPERS_HOME"] = str(home.path)
    os.environ.setdefault("SECRET_KEY", "tests only")
    os.environ.setdefault(
        "TIPPERS_ENCRYPTION_KEYS", base64.urlsafe_b64encode(os.urandom(32)).decode()
    )
    if not os.environ.get("DATABASE_URL"):
        _start_postgres(home)
    os.environ.setdefault("TIPPERS_DB_URL", os.environ["DATABASE_URL"])
    if not os.environ.get("REDIS_URL"):
        _start_broker(home)


def _start_postgres(home: Home) -> None:
    global _cluster
    _cluster = Cluster(home)
    _cluster.start()
    os.environ["DATABASE_URL"] = _cluster.superuser_url


def _start_broker(home: Home) -> None:
    global _broker
    broker = Broker(home)
    child = broker.prepare()
    with (home.logs / "broker.log").open("ab") as log:
        _broker = child.spawn(log.fileno())
    broker.wait_until_ready(lambda: time.sleep(0.02))
    os.environ["REDIS_URL"] = broker.url


def pytest_unconfigure() -> None:
    if _broker is not None:
        _broker.terminate()
        _broker.wait(10)
    if _cluster is not None:
        _cluster.stop()
        _cluster.remove()
    if _home is not None:
        _home.cleanup()
