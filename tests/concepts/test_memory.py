"""A result ten times larger than the memory that a worker may take for it still lands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from concepts import materialize
from concepts.models import Concept, Index
from connections.models import DatabaseConnection

pytestmark = pytest.mark.django_db(transaction=True)

BUDGET_MB = 160
ROWS = 800_000
ROW_BYTES = 32 * 64
QUERY = (
    f"SELECT n, repeat(md5(n::text), {ROW_BYTES // 32}) AS words FROM generate_series(1, {{}}) AS n"
)

# A run of few rows comes first: what a process loads once is no part of the budget.
PERFORM = """
import json, resource, django
django.setup()
from tippers.runs.engine import perform_next
peaks = []
for _ in range(2):
    assert perform_next("short")
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(peaks))
"""


def test_a_large_result_takes_a_tenth_of_its_size_in_memory(tmp_path: Path) -> None:
    server = connection.settings_dict
    url = (
        f"postgresql://{server['USER']}:{server['PASSWORD']}"
        f"@{server['HOST']}:{server['PORT']}/{server['NAME']}"
    )
    concept = Concept.objects.create(name="words")
    conn = DatabaseConnection.register(name="own", url=url)
    few, many = (
        Index.objects.create(c=concept, name=str(rows), conn=conn, sql_query=QUERY.format(rows))
        for rows in (1_000, ROWS)
    )
    for index in (few, many):
        materialize.launch(index, None)
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "TIPPERS_HOME": str(tmp_path),
        "ALLOWED_DB_NETWORKS": "127.0.0.0/8",
    }
    done = subprocess.run(
        [sys.executable, "-c", PERFORM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    many.refresh_from_db()
    assert many.row_count == ROWS, many.run and many.run.error_message
    assert ROWS * ROW_BYTES > 10 * BUDGET_MB * 1e6
    assert after - before < BUDGET_MB
