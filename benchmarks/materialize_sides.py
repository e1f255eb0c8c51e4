"""One side of `materialize.py`, in a process of its own: prints seconds and peak memory as JSON."""

import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

DEVICES = 40_000
DAYS = 180
QUERY = "SELECT mac_address, space_id, signal, start_time, end_time FROM benchmark_sessions"
# A week out of the half year, and of it the devices of the index.
WEEK = (
    "SELECT mac_address, space_id, start_time FROM benchmark_sessions"
    " WHERE start_time >= '2024-03-04T00:00:00Z' AND start_time < '2024-03-11T00:00:00Z'"
    " AND mac_address IN ({})"
)
FILL = f"""
    DROP TABLE IF EXISTS benchmark_sessions;
    CREATE TABLE benchmark_sessions (
        mac_address text, space_id integer, signal double precision,
        start_time timestamptz, end_time timestamptz);
    INSERT INTO benchmark_sessions
    SELECT lpad(to_hex(n * 7919::bigint %% {DEVICES}), 12, '0'), n %% 3000, -30 - n * 13 %% 600 / 10.0,
           began, began + n %% 7200 * interval '1 second'
      FROM (SELECT n, timestamptz '2024-01-01Z' + n * (interval '{DAYS} days' / %s) AS began
              FROM generate_series(1, %s) AS n) AS numbers;
    CREATE INDEX ON benchmark_sessions (start_time);
"""


def fill(rows: int) -> None:
    """Migrate; generate the sessions; an index asset that reads them all."""
    _django()
    from django.core.management import call_command
    from django.db import connection

    from concepts.models import Concept, Index
    from connections.models import DatabaseConnection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(FILL, [rows, rows])
        cursor.execute("VACUUM ANALYZE benchmark_sessions")
    conn = DatabaseConnection.register(name="benchmark", url=os.environ["TIPPERS_DB_URL"])
    concept, _ = Concept.objects.get_or_create(name="benchmark")
    for name, text in {"sessions": QUERY, "one row": "SELECT 1 AS id"}.items():
        Index.objects.get_or_create(c=concept, name=name, conn=conn, sql_query=text)


def ours(rows: int) -> float:
    """The whole run as a worker performs it: from the claim to the current version.

    A run of one row comes before: what a process imports once is not counted on any side.
    """
    _django()
    from concepts import materialize
    from concepts.models import Index
    from tippers.runs.engine import perform_next
    from tippers.runs.worker import Pulse

    pulse = Pulse("short")
    seconds = 0.0
    for name, count in {"one row": 1, "sessions": rows}.items():
        index = Index.objects.get(name=name)
        materialize.launch(index, None)
        begun = time.perf_counter()
        assert perform_next("short", pulse)
        seconds = time.perf_counter() - begun
        index.refresh_from_db()
        assert index.row_count == count, index.run and index.run.error_message
    return seconds


def pandas(rows: int) -> float:
    """What a user would write."""
    import pandas as pd
    import pyarrow.parquet  # noqa: F401 - to_parquet's import; see ours()
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        os.environ["TIPPERS_DB_URL"].replace("postgresql://", "postgresql+psycopg2://")
    )
    path = Path(os.environ["TIPPERS_HOME"]) / "pandas.parquet"
    begun = time.perf_counter()
    frame = pd.read_sql(QUERY, engine)
    frame.to_parquet(path)
    seconds = time.perf_counter() - begun
    assert len(frame) == rows
    return seconds


def copy(rows: int) -> float:
    """The limit: the server's binary stream, thrown away as it comes."""
    import psycopg2

    connection = psycopg2.connect(os.environ["TIPPERS_DB_URL"])
    sink = SimpleNamespace(
        write=deque(maxlen=0).append
    )  # called for each row, at no cost in Python
    with connection.cursor() as cursor:
        begun = time.perf_counter()
        cursor.copy_expert(f"COPY ({QUERY}) TO STDOUT (FORMAT BINARY)", sink)
        seconds = time.perf_counter() - begun
        assert cursor.rowcount == rows
    return seconds


def index_values(count: int) -> dict[str, float]:
    """Medians of three, in turn: our placeholder, and the same values as a literal list."""
    _django()
    import pyarrow as pa

    here = min(count, DEVICES) if count > 5_000 else count
    values = pa.array(
        [f"{number:012x}" for number in [*range(here), *range(2**40, 2**40 + count - here)]]
    )
    sides: dict[str, Callable[[], int]] = {
        "ours_s": lambda: _placeholder(values),
        "peer_s": lambda: _literal_list(values),
    }
    assert len({side() for side in sides.values()}) == 1  # the same rows; and warm
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(3):
        for name, side in sides.items():
            begun = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - begun)
    return {name: median(taken) for name, taken in seconds.items()}


def _placeholder(values: Any) -> int:
    from connections import query
    from connections.query import Target
    from tippers import sql

    target = Target.from_url(os.environ["TIPPERS_DB_URL"])
    table = sql.index_table(values, None, target.dialect)
    text = sql.render(
        WEEK.format(":index_values"), dialect=target.dialect, index_values=values, table=table
    )
    with query.stream(target, text, index_table=table) as reader:
        return sum(batch.num_rows for batch in reader)


def _literal_list(values: Any) -> int:
    """Through the same driver, so that only the list differs."""
    from adbc_driver_postgresql import dbapi

    text = WEEK.format(",".join(f"'{value}'" for value in values.to_pylist()))
    with dbapi.connect(os.environ["TIPPERS_DB_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute(text)
        return sum(batch.num_rows for batch in cursor.fetch_record_batch())


def _django() -> None:
    import django

    django.setup()


def main() -> None:
    side, number = sys.argv[1], int(sys.argv[2])
    if side == "fill":
        fill(number)
        return
    if side == "index_values":
        print(json.dumps(index_values(number)))
        return
    seconds = {"ours": ours, "pandas": pandas, "copy": copy}[side](number)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
