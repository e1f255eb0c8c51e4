"""The parts of a partitioned asset are made by several worker processes at the same time."""

from pathlib import Path

import pytest
from django.db import connection

from concepts import materialize
from concepts.models import Concept, Index
from connections.models import DatabaseConnection
from tests.runs.test_worker import started, succeeded, until, worker
from tippers.runs.models import Run, RunStatus

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = 1_200_000
PARTS = 4


def test_two_workers_make_two_parts_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIPPERS_HOME", str(tmp_path))
    monkeypatch.setenv("ALLOWED_DB_NETWORKS", "127.0.0.0/8")
    server = connection.settings_dict
    url = (
        f"postgresql://{server['USER']}:{server['PASSWORD']}"
        f"@{server['HOST']}:{server['PORT']}/{server['NAME']}"
    )
    index = Index.objects.create(
        c=Concept.objects.create(name="numbers"),
        name="words",
        conn=DatabaseConnection.register(name="own", url=url),
        # The digest keeps a part busy for a second or so, which the other worker has to notice.
        sql_query=f"SELECT n, md5(n::text) AS word FROM generate_series(1, {ROWS}) AS n",
        partition_type="id_range",
        partition_config={"column": "n", "size": ROWS // PARTS},
    )
    with worker(tmp_path / "log"), worker(tmp_path / "log"):
        run = materialize.launch(index, None)
        until(lambda: len(_owners_at_work(run)) == 2, 60)
        assert started(run)
        until(lambda: succeeded(run), 120)
    index.refresh_from_db()
    assert index.row_count == ROWS
    made = run.children.filter(job="materialize_partition").values_list("status", "attempt")
    assert list(made) == [(RunStatus.SUCCESS, 1)] * len(made)
    assert PARTS <= len(made) <= PARTS + 1  # ranges begin at multiples of their size


def _owners_at_work(parent: Run) -> set[str]:
    """The worker processes that hold a part at this moment."""
    at_work = parent.children.filter(job="materialize_partition", status=RunStatus.STARTED)
    return set(at_work.values_list("owner", flat=True))
