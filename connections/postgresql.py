"""PostgreSQL: Arrow through ADBC (binary COPY), small results through psycopg2."""

import atexit
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from connections.target import DatabaseDown, QueryFailed, QueryStopped, QueryTooSlow, Target
from tippers.sql import IndexTable

if TYPE_CHECKING:
    import pyarrow as pa

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 10
LOOK_TIMEOUT_S = 5
BATCH_BYTES = 4 * 2**20  # several wait between reader and writer; the driver's own are 16 MiB
# The server takes in one piece while the driver writes the next: half the time of all at once.
COPY_BYTES = 2**20
COPY_ROWS = 16_000
STOP_EVERY_S = 0.1
STOP_TRIES = 100

# Server errors that pass: connection, resources, serialization, operator intervention, system.
# 57014 (stopped) is told apart before.
_TRANSIENT = ("08", "53", "40", "57P", "58", "55P03")
# No right to make a temporary table; a standby, or a role that is read only by itself.
_MAY_NOT_CREATE = frozenset({"42501", "25006"})
# libpq has no code for a refused sign-in; these sentences will be the same next time.
_REFUSED_SIGN_IN = re.compile(
    r"authentication failed|does not exist|pg_hba\.conf|not permitted to log in|no password "
    r"supplied|permission denied|not currently accepting connections|must be",
)
_YEAR_1 = -62_135_596_800_000_000
_YEAR_10000 = 253_402_300_800_000_000
_DAYS = (_YEAR_1 // 86_400_000_000, _YEAR_10000 // 86_400_000_000)

# Types without an honest column of their own, and what to write instead.
_REFUSED_TYPES = {
    "money": "{0}::numeric",
    "interval": "EXTRACT(EPOCH FROM {0})",
    "bytea": "encode({0}, 'hex')",
    "record": "to_json({0}), or its parts one by one",
}
# Types that Arrow has, as the driver hands them over; whatever else there is becomes text.
_ARROW_HAS = {
    "bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "name", "char",
    "date", "time", "timestamp", "timestamptz",
}  # fmt: skip
_CASTS = {
    "numeric": "{0}::float8",
    "oid": "{0}::int8",
    "bpchar": "{0}::text",
    "inet": "abbrev({0})",  # as it is shown: the cast would add /32
}

# See `query.existing_names`; each %s is the list of names.
NAMES = r"""
    WITH schemas AS MATERIALIZED (
        SELECT oid, nspname FROM pg_namespace
         WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\_%%'
           AND has_schema_privilege(oid, 'USAGE')),
    relations AS MATERIALIZED (
        SELECT c.oid, c.relname FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_any_column_privilege(c.oid, 'SELECT'))
    SELECT nspname::text FROM schemas WHERE nspname::text = ANY(%s)
    UNION SELECT relname::text FROM relations WHERE relname::text = ANY(%s)
    UNION SELECT a.attname::text FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid
           WHERE a.attname::text = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
             AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
"""


def _parameters(target: Target) -> dict[str, str]:
    """libpq's connection parameters: all of them ours, to the resolved addresses."""
    addresses = target.addresses()
    return {
        "host": ",".join([target.host] * len(addresses)),  # the name stays for the TLS handshake
        "hostaddr": ",".join(addresses),
        "port": str(target.port),
        "dbname": target.database,
        "user": target.user,
        "password": target.password,
        "passfile": "/dev/null",
        "connect_timeout": str(CONNECT_TIMEOUT_S),
        "client_encoding": "UTF8",
        "application_name": "tippers",
        "gssencmode": "disable",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
    }


# For the table of an index: it and the hash of it stay in memory, and its statistics, which matter
# as a count, come from the smallest sample, 300 rows: 3 ms at half a million values.
_TABLE_MEMORY = 64 * 2**20
_FOR_TABLE = (
    ", ".join(
        f"set_config('{name}', greatest(pg_size_bytes(current_setting('{name}')), {_TABLE_MEMORY})"
        " / 1024 || 'kB', true)"
        for name in ("work_mem", "temp_buffers")
    )
    + ", set_config('default_statistics_target', '1', true)"
)


def _settings(timeout_s: float, *, read_only: bool = True) -> str:
    """One statement that fences the transaction; read only cannot be taken back within it.

    The default is for whatever comes after a COMMIT.
    """
    values = {
        "timezone": "UTC",
        "statement_timeout": f"{int(timeout_s * 1000)}ms",
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "standard_conforming_strings": "on",
    }
    if read_only:
        values["transaction_read_only"] = "on"
    calls = (f"set_config('{name}', '{value}', true)" for name, value in values.items())
    default = "set_config('default_transaction_read_only', 'on', false)"
    return f"SELECT {', '.join([*calls, default])}"


@contextmanager
def stream(
    target: Target,
    sql: str,
    *,
    timeout_s: float,
    on_stop: Callable[[Callable[[], None]], AbstractContextManager[None]],
    index_table: IndexTable | None,
    keep_bytes: bool = False,
) -> "Iterator[pa.RecordBatchReader]":
    """See `query.stream`, and `query.packed` for `keep_bytes`."""
    import pyarrow as pa
    from adbc_driver_manager import Error
    from adbc_driver_postgresql import StatementOptions

    # ADBC takes a URI and nothing else; with every part percent-encoded libpq never gets to
    # complain about (and quote) a part of it.
    uri = f"postgresql://?{urlencode(_parameters(target), quote_via=quote)}"
    try:
        connection = _connected(uri)
    except Error as error:
        raise _not_connected(target, str(error)) from None  # the cause would carry the URI
    with closing(connection), closing(connection.cursor()) as cursor:
        stopping = _Stopping(cursor)
        explain = _Explaining(target, connection, stopping, timeout_s)
        with stopping, on_stop(stopping.stop):
            batch_bytes = StatementOptions.BATCH_SIZE_HINT_BYTES.value
            with explain:
                if index_table is not None:
                    cursor.adbc_statement.set_options(**{batch_bytes: str(COPY_BYTES)})
                    sql = _with_table(connection, cursor, sql, index_table, timeout_s)
                cursor.adbc_statement.set_options(**{batch_bytes: str(BATCH_BYTES)})
                cursor.execute(_settings(timeout_s))
                names = cursor.adbc_execute_schema(sql).names
                types = _declared(cursor, sql, len(names)) if names else []
            if not names:
                raise QueryFailed("The query returns no columns.", field="sql_query")
            casts = [
                None if keep_bytes and each.is_bytes else each.cast(name)
                for name, each in zip(names, types, strict=True)
            ]
            wrapped = _with_castings(sql, names, casts)
            with explain:
                cursor.execute(wrapped)
                source = cursor.fetch_record_batch()
            schema = pa.schema(
                [
                    pa.field(name, new.type, metadata=each.metadata if cast else None)
                    for name, new, each, cast in zip(
                        names, source.schema, types, casts, strict=True
                    )
                ]
            )
            yield pa.RecordBatchReader.from_batches(schema, _batches(source, schema, explain))


# The driver reads the whole catalogue of types and columns for each `connect`: 60 ms of processor
# time over an empty database, 300 ms over one of 1,000 tables. Clones share it, for as
# long as no other server can have taken the address, whose types would have other numbers.
_origins: dict[str, tuple[float, Any]] = {}
_origins_lock = threading.RLock()
MAX_ORIGINS = 8
MAX_ORIGIN_AGE_S = 60


def _is_known(uri: str) -> bool:
    return uri in _origins and time.monotonic() - _origins[uri][0] < MAX_ORIGIN_AGE_S


def _forget(uri: str) -> None:
    with _origins_lock:
        if uri in _origins:
            _origins.pop(uri)[1].close()


@atexit.register
def _forget_all() -> None:
    for uri in list(_origins):
        _forget(uri)


def _connected(uri: str) -> Any:
    """A connection that shares with others what the driver reads of the catalogue."""
    from adbc_driver_postgresql import dbapi

    with _origins_lock:
        if not _is_known(uri):
            origin = dbapi.connect(uri)
            origin.adbc_connection.close()
            _forget(uri)
            if len(_origins) >= MAX_ORIGINS:
                _forget(next(iter(_origins)))
            _origins[uri] = time.monotonic(), origin
        return _origins[uri][1].adbc_clone()


def _with_table(connection: Any, cursor: Any, sql: str, table: IndexTable, timeout_s: float) -> str:
    """Make the table, in the transaction that is fenced next; the query that can then run."""
    from adbc_driver_manager import Error

    cursor.execute(f"{_settings(timeout_s, read_only=False)}, {_FOR_TABLE}")
    try:
        values, kind, cast = table.copied()
        name = f"{table.name}_text" if cast else table.name
        cursor.execute(f"CREATE TEMPORARY TABLE {name} (v {kind})")
        pieces = values.to_reader(max_chunksize=COPY_ROWS)
        cursor.adbc_ingest(name, pieces, mode="append", temporary=True)
        if cast:
            cursor.execute(
                f"CREATE TEMPORARY TABLE {table.name} AS SELECT v::{cast} AS v FROM pg_temp.{name}"  # noqa: S608 - names and types are ours
            )
        cursor.execute(f"ANALYZE {table.name}")
    except Error as error:
        if error.sqlstate not in _MAY_NOT_CREATE:
            raise
        connection.rollback()
        return table.inlined(sql)
    return sql


def _batches(
    source: "pa.RecordBatchReader", schema: "pa.Schema", explain: "_Explaining"
) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    while True:
        with explain:
            try:
                batch = source.read_next_batch()
            except StopIteration:
                return
        _check_times(batch, schema)
        yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _check_times(batch: "pa.RecordBatch", schema: "pa.Schema") -> None:
    """'infinity' comes through COPY as a number that no calendar has; refuse it by column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for field, column in zip(schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            lowest, highest, raw = _YEAR_1, _YEAR_10000, column.view(pa.int64())
        elif pa.types.is_date32(field.type):
            lowest, highest, raw = *_DAYS, column.view(pa.int32())
        else:
            continue
        ends = pc.min_max(raw).as_py()
        if ends["min"] is not None and not lowest <= ends["min"] <= ends["max"] < highest:
            raise QueryFailed(
                f"The column {field.name} holds 'infinity' or a year outside 1 to 9999, which a "
                f"result cannot keep; write NULLIF({field.name}, 'infinity') or choose the rows.",
                field="sql_query",
            )


@dataclass(frozen=True)
class _Type:
    """The server's type of a column: the name of it, or of its elements if it is an array."""

    name: str
    is_array: bool
    is_composite: bool
    is_everywhere: bool  # in every database, so that the name alone says which it is

    def cast(self, column: str) -> str | None:
        """How to select a column of the type; None for one that is well as it is."""
        if self.name in _REFUSED_TYPES or self.is_composite:
            instead = _REFUSED_TYPES.get(self.name, _REFUSED_TYPES["record"]).format(column)
            raise QueryFailed(
                f"The column {column} has the type {self.name}, which a result cannot keep; "
                f"write {instead}.",
                field="sql_query",
            )
        if self.name in _ARROW_HAS:
            return None
        cast = _CASTS.get(self.name, "{0}::text")
        if not self.is_array:
            return cast
        return f"{cast}[]" if "::" in cast else "{0}::text[]"

    @property
    def is_bytes(self) -> bool:
        return self.name == "bytea" and not self.is_array

    @property
    def metadata(self) -> dict[bytes, bytes] | None:
        """What a column that was cast says it was before."""
        name = f"_{self.name}" if self.is_array else self.name
        return {b"source_type": name.encode()} if self.is_everywhere else None


def _declared(cursor: Any, sql: str, columns: int) -> list[_Type]:
    """The types of the query's columns, which is planned for it and not run.

    The driver knows them only as far as Arrow does: to it money is a whole number.
    """
    numbers = range(columns)
    names = ", ".join(f"c{number}" for number in numbers)
    cursor.execute(
        f"""
        SELECT coalesce(item.typname, base.typname, t.typname)::text, item.oid IS NOT NULL,
               coalesce(item.typtype, base.typtype, t.typtype) = 'c',
               coalesce(item.typnamespace, base.typnamespace, t.typnamespace)
                 = 'pg_catalog'::regnamespace
          FROM (SELECT ARRAY[{", ".join(f"pg_typeof(c{number})::oid" for number in numbers)}] AS oids
                  FROM (SELECT) AS one LEFT JOIN
                       (SELECT * FROM ({sql}\n) AS q({names}) LIMIT 0) AS q ON true) AS declared,
               unnest(oids) WITH ORDINALITY AS o(oid, number)
          JOIN pg_catalog.pg_type t ON t.oid = o.oid
          LEFT JOIN pg_catalog.pg_type base ON base.oid = nullif(t.typbasetype, 0)
          LEFT JOIN pg_catalog.pg_type item
            ON item.oid = nullif(coalesce(base.typelem, t.typelem), 0) AND t.typcategory = 'A'
         ORDER BY number
        """  # noqa: S608 - the query is what was judged; the rest is ours
    )
    return [_Type(*row) for row in cursor.fetchall()]


def _with_castings(sql: str, names: Sequence[str], casts: Sequence[str | None]) -> str:
    """The query with the columns that Arrow has no type for cast by the server."""
    if not any(casts):
        return sql
    columns = [
        f"{(cast or '{0}').format(f'c{number}')} AS {_quoted(name)}"
        for number, (name, cast) in enumerate(zip(names, casts, strict=True))
    ]
    inner = ", ".join(f"c{number}" for number in range(len(casts)))
    # The line break ends a comment that the query may end with.
    return f"SELECT {', '.join(columns)} FROM ({sql}\n) AS q({inner})"  # noqa: S608 - the query is what was described; names are quoted


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Stopping:
    """Cancels what the cursor does, from another thread, until the work has noticed."""

    def __init__(self, cursor: Any) -> None:
        self.cursor = cursor
        self.stopped = threading.Event()
        self.over = threading.Event()
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        with self.lock:  # the cursor is closed next; nobody may be using it then
            self.over.set()
            # The reader may leave in the middle of a long result, and closing would read it to
            # its end.
            with suppress(Exception):
                self.cursor.adbc_cancel()

    def stop(self) -> None:
        self.stopped.set()
        # A cancel that arrives between two statements is lost, hence more than one.
        for _ in range(STOP_TRIES):
            with self.lock:
                if self.over.is_set():
                    return
                self.cursor.adbc_cancel()
            if self.over.wait(STOP_EVERY_S):
                return


class _Explaining:
    """Turns what ADBC raises into our errors. A block may be entered many times."""

    def __init__(
        self, target: Target, connection: Any, stopping: _Stopping, timeout_s: float
    ) -> None:
        self.target = target
        self.connection = connection
        self.stopping = stopping
        self.timeout_s = timeout_s

    def __enter__(self) -> None:
        if self.stopping.stopped.is_set():
            raise QueryStopped("The query was stopped.")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from adbc_driver_manager import Error

        # Within a stream pyarrow raises the driver's errors as its own: OSError, ArrowInvalid.
        if not isinstance(error, Error | OSError | ValueError):
            return
        if self.stopping.stopped.is_set():
            raise QueryStopped("The query was stopped.") from None
        raise self._explained(error) from None  # the driver's text quotes the whole query

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        state = getattr(error, "sqlstate", None) or ""
        said = self.target.scrubbed(_said(text))
        if state == "57014" or "statement timeout" in text:
            return QueryTooSlow(
                f"The query took longer than {self.timeout_s:g} seconds and was stopped.",
                field="sql_query",
            )
        is_over = re.search(r"\b(FATAL|PANIC):", text)  # the server ends the connection with it
        if state.startswith(_TRANSIENT) or is_over or not self._is_alive():
            return DatabaseDown(f"The database {self.target.database} broke off: {said}")
        return QueryFailed(f"The database says: {said}", field="sql_query")

    def _is_alive(self) -> bool:
        """Whether the connection outlived the error: the server said no, it did not go away."""
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import ConnectionOptions

        option = ConnectionOptions.TRANSACTION_STATUS.value
        try:
            return bool(self.connection.adbc_connection.get_option(option) != "unknown")
        except Error:
            return False


def _said(text: str) -> str:
    """The server's sentence in libpq's report, with its hint; not the query, nor a position."""
    message = re.search(r"(?:ERROR|FATAL|PANIC):\s+(.+)", text)
    hint = re.search(r"^HINT:\s+(.+)", text, re.MULTILINE)
    sentence = message[1] if message else text.strip().partition("\n")[0]
    return f"{sentence} ({hint[1]})" if hint else sentence


def _not_connected(target: Target, text: str) -> Exception:
    said = target.scrubbed(_said(text.removeprefix("IO: [libpq] Failed to connect: ")))
    if _REFUSED_SIGN_IN.search(said):
        return QueryFailed(f"The database refuses the connection: {said}")
    return DatabaseDown(f"{target.host}:{target.port} does not answer: {said}")


@contextmanager
def _transaction(target: Target, timeout_s: float) -> Iterator[Any]:
    """A psycopg2 cursor within the fence."""
    import psycopg2

    parameters = _parameters(target)
    try:
        connection = psycopg2.connect(**parameters)
    except psycopg2.Error as error:
        raise _not_connected(target, str(error)) from None
    with closing(connection):
        try:
            with connection.cursor() as cursor:
                cursor.execute(_settings(timeout_s))
                yield cursor
        except psycopg2.Error as error:
            said = target.scrubbed(_said(f"ERROR:  {error}"))
            state = error.pgcode or ""
            if state == "57014":
                raise QueryTooSlow(f"The query took longer than {timeout_s:g} seconds.") from None
            if connection.closed or state.startswith(_TRANSIENT):
                raise DatabaseDown(f"The database {target.database} broke off: {said}") from None
            raise QueryFailed(f"The database says: {said}") from None


def fetch(
    target: Target, sql: str, params: Sequence[object] | None, *, timeout_s: float
) -> list[tuple[Any, ...]]:
    """See `query.fetch`."""
    with _transaction(target, timeout_s) as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def look(target: Target) -> tuple[str, list[str]]:
    """The server's version, and a sentence for each thing that the role should not be able to."""
    with _transaction(target, LOOK_TIMEOUT_S) as cursor:
        cursor.execute("SHOW server_version")
        ((version,),) = cursor.fetchall()
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        ((is_superuser,),) = cursor.fetchall()
        cursor.execute("""
            SELECT EXISTS (
                SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema'
                   AND n.nspname NOT LIKE 'pg\\_%'
                   AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
                OR has_database_privilege(current_database(), 'CREATE')
        """)
        ((can_write,),) = cursor.fetchall()
    advice = (
        "use a role that can only read: CREATE ROLE reader LOGIN PASSWORD '...'; "
        "GRANT pg_read_all_data TO reader;"
    )
    warnings = []
    if is_superuser:
        warnings.append(f"{target.user} is a superuser; {advice}")
    elif can_write:
        warnings.append(f"{target.user} can write to this database; {advice}")
    return f"PostgreSQL {version}", warnings
