"""A scratch home per test, and one cluster that the tests which only use it share."""

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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose first start was cut short before, so that it had to begin anew."""
    home = Home(tmp_path_factory.mktemp("shared") / "home")
    home.prepare()
    cluster = Cluster(home)
    unfinished = cluster.folder / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18")
    cluster.start()
    yield cluster
    cluster.stop()
    cluster.remove()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """A running cluster; a test may have stopped or killed it."""
    if shared.process is None or shared.process.poll() is not None:
        shared.start()
    return shared
