"""A scratch home per test, and one cluster that the tests which only use it share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tippers.embedded.home import Home
from tippers.embedded.postgres import Cluster


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def scratch_cluster(home: Home) -> Iterator[Cluster]:
    """A cluster that is not started; whatever the test leaves of it is stopped and removed."""
    cluster = Cluster(home)
    yield cluster
    cluster.stop()
    if cluster.folder.exists():
        cluster.remove()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster."""
    home = Home(tmp_path_factory.mktemp("shared") / "home")
    home.prepare()
    cluster = Cluster(home)
    cluster.start()
    yield cluster
    cluster.stop()
    cluster.remove()


@pytest.fixture
def as_ordinary_user() -> tuple[int, int]:
    """User and group to become where the tests run as root; their own otherwise."""
    return (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
