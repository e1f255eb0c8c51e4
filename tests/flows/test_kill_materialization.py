"""A worker killed in the middle of a large materialization costs time and nothing else."""

import hashlib
import os
import signal
from pathlib import Path

import pytest
from django.db import connection
from rest_framework.test import APIClient

from concepts import materialize
from concepts.models import Concept, Index
from connections.models import DatabaseConnection
from tests.conftest import body
from tests.runs.test_worker import started, state, succeeded, until, worker
from tippers import storage
from tippers.runs import engine
from tippers.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)

QUERY = "SELECT n, md5(n::text) AS word FROM generate_series(1, (SELECT count FROM size)) AS n"


@pytest.fixture
def index(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index of as many rows as the table `size` says; the workers store where the test does."""
    monkeypatch.setenv("TIPPERS_HOME", str(tmp_path))
    monkeypatch.setenv("ALLOWED_DB_NETWORKS", "127.0.0.0/8")
    server = connection.settings_dict
    url = (
        f"postgresql://{server['USER']}:{server['PASSWORD']}"
        f"@{server['HOST']}:{server['PORT']}/{server['NAME']}"
    )
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE size AS SELECT 3 AS count")
    concept = Concept.objects.create(name="numbers")
    conn = DatabaseConnection.register(name="own", url=url)
    return Index.objects.create(c=concept, name="words", conn=conn, sql_query=QUERY)


@pytest.mark.parametrize("rows", [1_500_000, pytest.param(5_000_000, marks=pytest.mark.faults)])
def test_a_kill_leaves_the_former_version_and_another_worker_finishes(
    index: Index, api: APIClient, tmp_path: Path, rows: int
) -> None:
    def preview() -> tuple[int, str]:
        """Rows of the current version, and its last row in the first thousand."""
        index.refresh_from_db()
        answer = api.get(f"/concepts/{index.c_id}/indexes/{index.pk}/preview?limit=1000")
        assert answer.status_code == 200, answer.content
        return int(index.row_count or 0), body(answer)["rows"][-1]["word"]

    three, thousand = "eccbc87e4b5ce2fe28308fd9f2a7baf3", "a9b7ba70783b617e9998dc4dd82eb3c5"
    incoming = tmp_path / "storage" / ".incoming"
    with worker(tmp_path / "log") as first:
        run = materialize.launch(index, None)
        until(lambda: succeeded(run))
        assert preview() == (3, three)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE size SET count = %s", [rows])
        run = materialize.launch(index, None)
        until(lambda: any(path.stat().st_size > 2**20 for path in incoming.iterdir()))
        assert started(run)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait(10)
    assert started(run)
    assert preview() == (3, three)
    with worker(tmp_path / "log"):
        until(lambda: _taken_over(run))
        assert preview() == (3, three)
        until(lambda: succeeded(run), 240)
    assert preview() == (rows, thousand)
    assert (state(run).attempt, state(run).lost_workers) == (2, 1)
    table = index.table()
    assert table.num_rows == rows
    assert table["word"][-1].as_py() == _md5(rows)
    # The two versions; what the killed worker wrote was never an object.
    assert len(list(storage.listed(""))) == 2
    assert len(list(incoming.iterdir())) == 1


def _taken_over(run: Run) -> bool:
    engine.sweep()  # what beat does every 15 seconds
    return state(run).attempt == 2


def _md5(number: int) -> str:
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
