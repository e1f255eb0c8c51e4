"""Ask a database, read only. What text may run is `tippers.sql`'s matter; this is the fence.

Every query runs in a READ ONLY transaction, in UTC, under a time limit of the server. Errors are
`QueryFailed` (bad SQL, no rights: the same again will not help), `DatabaseDown` (try again), and
`HostRefused`; their sentences are the server's own, shortened, never with the password.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from connections import mysql, postgresql
from connections.hosts import HostRefused, HostUnknown
from connections.target import DatabaseDown, QueryFailed, QueryStopped, QueryTooSlow, Target
from tippers.errors import CannotBeDone, Unavailable
from tippers.sql import IndexTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DatabaseDown",
    "HostRefused",
    "HostUnknown",
    "QueryFailed",
    "QueryStopped",
    "QueryTooSlow",
    "Target",
    "existing_names",
    "fetch",
    "packed",
    "stream",
    "test",
]

MAX_ROWS = 500_000_000
MAX_BYTES = 64 * 2**30
OnStop = Callable[[Callable[[], None]], AbstractContextManager[None]]


class _Database(Protocol):
    """What `postgresql` and `mysql` each are."""

    def stream(
        self,
        target: Target,
        sql: str,
        *,
        timeout_s: float,
        on_stop: OnStop,
        index_table: IndexTable | None,
    ) -> "AbstractContextManager[pa.RecordBatchReader]": ...

    def fetch(
        self, target: Target, sql: str, params: Sequence[object] | None, *, timeout_s: float
    ) -> list[tuple[Any, ...]]: ...

    NAMES: str

    def look(self, target: Target) -> tuple[str, list[str]]: ...


_DATABASES: dict[str, _Database] = {"postgresql": postgresql, "mysql": mysql}


@contextmanager
def stream(
    target: Target,
    sql: str,
    *,
    timeout_s: float = 1800,
    on_stop: OnStop | None = None,
    index_table: IndexTable | None = None,
) -> "Iterator[pa.RecordBatchReader]":
    """The result as Arrow batches, a few megabytes at a time, however large it is.

    Types: numeric and decimal as float64; json, uuid, addresses, ranges and other types that
    Arrow lacks as text, with the database's name of the type in the field's metadata under
    `source_type`; a time with a zone in UTC, one without as it stands. Types that would lose
    their meaning (money, interval, bytea, records) are refused by column.

    `on_stop` is `RunHandle.on_stop`: it is told how to stop the query from another thread; the
    reading thread then gets QueryStopped within a second. `index_table` is what `sql` was rendered
    with: it is made before the session turns read only, or its values go into the text after all.
    """
    import pyarrow as pa

    database = _DATABASES[target.dialect]
    with database.stream(
        target,
        sql,
        timeout_s=timeout_s,
        on_stop=on_stop or (lambda _: nullcontext()),
        index_table=index_table,
    ) as reader:
        yield pa.RecordBatchReader.from_batches(reader.schema, _bounded(reader))


def packed(target: Target, sql: str, *, timeout_s: float, on_stop: OnStop) -> "pa.Table":
    """The whole result of a statement of ours on PostgreSQL, which packs much into few bytea.

    The driver takes half a microsecond for each value of each row; what the server has gathered
    (`string_agg(int8send(x), '')`) arrives as one value, at the cost of a copy, for NumPy to read.
    """
    with postgresql.stream(
        target, sql, timeout_s=timeout_s, on_stop=on_stop, index_table=None, keep_bytes=True
    ) as reader:
        return reader.read_all()


def fetch(
    target: Target, sql: str, params: Sequence[object] = (), *, timeout_s: float = 60
) -> list[tuple[Any, ...]]:
    """A small result whole. Parameters stand as `%s` in the text; without any, `%` is itself."""
    return _DATABASES[target.dialect].fetch(target, sql, params or None, timeout_s=timeout_s)


def existing_names(target: Target, names: Collection[str]) -> set[str]:
    """Which of the names a schema, table, view or column has that the account may read.

    The server's own schemas do not count.
    """
    return {name for (name,) in fetch(target, _DATABASES[target.dialect].NAMES, [list(names)] * 3)}


def test(target: Target) -> dict[str, Any]:
    """What connecting finds, as the API answers it: never raises for a database at fault.

    status (success, failed), message, latency_ms (connect and one query; null when failed),
    server_version (null when failed), warnings (sentences on what the account can do besides).
    """
    begun = time.perf_counter()
    try:
        version, warnings = _DATABASES[target.dialect].look(target)
    except (CannotBeDone, Unavailable) as error:
        return {
            "status": "failed",
            "message": str(error),
            "latency_ms": None,
            "server_version": None,
            "warnings": [],
        }
    return {
        "status": "success",
        "message": "Connection successful",
        "latency_ms": round((time.perf_counter() - begun) * 1000, 1),
        "server_version": version,
        "warnings": warnings,
    }


def _bounded(reader: "pa.RecordBatchReader") -> "Iterator[pa.RecordBatch]":
    rows = size = 0
    for batch in reader:
        rows += batch.num_rows
        size += batch.get_total_buffer_size()
        if rows > MAX_ROWS or size > MAX_BYTES:
            raise QueryFailed(
                f"The result has more than {MAX_ROWS:,} rows or {MAX_BYTES // 2**30} GiB; "
                "narrow the query or aggregate in it.",
                field="sql_query",
            )
        yield batch
