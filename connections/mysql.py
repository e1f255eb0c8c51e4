"""MySQL and MariaDB: a server-side cursor, its text turned into Arrow column by column."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from connections.target import DatabaseDown, QueryFailed, QueryStopped, Target
from tippers.sql import IndexTable

if TYPE_CHECKING:
    import pyarrow as pa

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 10
LOOK_TIMEOUT_S = 5
BATCH_ROWS = 20_000

# Modes under which the server would read a text otherwise than the judge of queries did.
_OTHER_GRAMMARS = frozenset(
    [
        "ANSI",
        "ANSI_QUOTES",
        "NO_BACKSLASH_ESCAPES",
        "PIPES_AS_CONCAT",
        "HIGH_NOT_PRECEDENCE",
        "IGNORE_SPACE",
        "DB2",
        "MAXDB",
        "MSSQL",
        "ORACLE",
        "POSTGRESQL",
    ]
)
# See `query.existing_names`; each %s is the list of names. The account sees what it has a right to.
_SYSTEM = "('information_schema', 'mysql', 'performance_schema', 'sys')"
NAMES = f"""
    SELECT schema_name FROM information_schema.schemata
     WHERE schema_name IN %s AND schema_name NOT IN {_SYSTEM}
    UNION SELECT table_name FROM information_schema.tables
     WHERE table_name IN %s AND table_schema NOT IN {_SYSTEM}
    UNION SELECT column_name FROM information_schema.columns
     WHERE column_name IN %s AND table_schema NOT IN {_SYSTEM} AND privileges LIKE '%%select%%'
"""  # noqa: S608 - our own constants
_TIMED_OUT = frozenset({1969, 3024})  # MariaDB's and MySQL's
# Too many connections, shutdown, lock wait, deadlock, and the client's own 2xxx.
_TRANSIENT = frozenset({1040, 1053, 1077, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226})
_GONE = 1094
_BINARY = 63  # the character set of bytes


@contextmanager
def _connected(target: Target, timeout_s: float) -> Iterator[Any]:
    """A connection whose transaction is READ ONLY, in UTC, under a time limit."""
    with closing(_connect(target, timeout_s)) as connection:
        with _explained(target, timeout_s), connection.cursor() as cursor:
            _fence(cursor, timeout_s)
        try:
            yield connection
        finally:
            # PyMySQL would read a result that was left early to its end; hang up instead.
            if connection._result is not None:  # noqa: SLF001 - nothing public says so
                connection._result.unbuffered_active = False  # noqa: SLF001


def _fence(cursor: Any, timeout_s: float) -> None:
    cursor.execute("SELECT @@version, @@sql_mode")
    version, modes = cursor.fetchone()
    kept = [mode for mode in modes.split(",") if mode not in _OTHER_GRAMMARS]
    cursor.execute("SET SESSION sql_mode = %s, time_zone = '+00:00'", [",".join(kept)])
    if "MariaDB" in version:
        cursor.execute("SET SESSION max_statement_time = %s", [float(timeout_s)])
    else:
        cursor.execute("SET SESSION max_execution_time = %s", [int(timeout_s * 1000)])
    cursor.execute(
        "SET SESSION lock_wait_timeout = %s, innodb_lock_wait_timeout = %s",
        [LOCK_TIMEOUT_S, LOCK_TIMEOUT_S],
    )
    # The default of the session too: what commits by itself, as TRUNCATE does, leaves the
    # transaction and its fence behind.
    cursor.execute("SET SESSION TRANSACTION READ ONLY")
    cursor.execute("START TRANSACTION READ ONLY")


def _connect(target: Target, timeout_s: float) -> Any:
    import pymysql
    from pymysql.converters import encoders

    failure: pymysql.Error | None = None
    for address in target.addresses():
        try:
            return pymysql.connect(
                host=address,
                port=target.port,
                user=target.user,
                password=target.password.encode(),  # PyMySQL itself would take Latin-1
                database=target.database,
                charset="utf8mb4",
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=timeout_s + 30,
                local_infile=False,
                conv=dict(encoders),  # and no decoders: columns are cast whole
            )
        except pymysql.Error as error:
            failure = error
    raise _failure(target, failure, timeout_s) from None


@contextmanager
def stream(
    target: Target,
    sql: str,
    *,
    timeout_s: float,
    on_stop: Callable[[Callable[[], None]], AbstractContextManager[None]],
    index_table: IndexTable | None,
) -> "Iterator[pa.RecordBatchReader]":
    """See `query.stream`."""
    import pyarrow as pa
    import pymysql
    from pymysql.cursors import SSCursor

    if index_table is not None:
        sql = index_table.inlined(sql)
    stopped = threading.Event()
    with _connected(target, timeout_s) as connection:

        def stop() -> None:
            stopped.set()
            with closing(_connect(target, LOOK_TIMEOUT_S)) as other:
                try:
                    other.cursor().execute(f"KILL QUERY {connection.thread_id()}")
                except pymysql.err.OperationalError as error:
                    if error.args[0] != _GONE:  # the reader saw the flag first and has left
                        raise

        explained = partial(_explained, target, timeout_s, stopped)
        with on_stop(stop):
            cursor = SSCursor(connection)
            with explained():
                cursor.execute(sql)
            if cursor.description is None:
                raise QueryFailed("The query returns no columns.", field="sql_query")
            columns = [_Column(field) for field in cursor._result.fields]  # noqa: SLF001 - flags and character sets are nowhere else
            schema = pa.schema([column.field for column in columns])
            yield pa.RecordBatchReader.from_batches(schema, _batches(cursor, columns, explained))


def _batches(
    cursor: Any,
    columns: "list[_Column]",
    explained: Callable[[], AbstractContextManager[None]],
) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    schema = pa.schema([column.field for column in columns])
    while True:
        with explained():
            rows = cursor.fetchmany(BATCH_ROWS)
        if not rows:
            return
        arrays = [
            column.array([row[place] for row in rows]) for place, column in enumerate(columns)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Column:
    """One column of a result: its Arrow field, and how its text becomes that."""

    def __init__(self, field: Any) -> None:
        import pyarrow as pa
        from pymysql.constants import FIELD_TYPE as TYPE
        from pymysql.constants import FLAG

        name, code = field.name, field.type_code
        unsigned = bool(field.flags & FLAG.UNSIGNED)
        types = {
            TYPE.TINY: pa.uint8() if unsigned else pa.int8(),
            TYPE.SHORT: pa.uint16() if unsigned else pa.int16(),
            TYPE.YEAR: pa.int16(),
            TYPE.INT24: pa.int32(),
            TYPE.LONG: pa.uint32() if unsigned else pa.int32(),
            TYPE.LONGLONG: pa.uint64() if unsigned else pa.int64(),
            TYPE.FLOAT: pa.float32(),
            TYPE.DOUBLE: pa.float64(),
            TYPE.DECIMAL: pa.float64(),
            TYPE.NEWDECIMAL: pa.float64(),
            TYPE.DATE: pa.date32(),
            TYPE.NEWDATE: pa.date32(),
            TYPE.DATETIME: pa.timestamp("us"),
            TYPE.TIMESTAMP: pa.timestamp("us", "UTC"),
            TYPE.JSON: pa.string(),
            TYPE.NULL: pa.string(),
        }
        texts = {TYPE.VARCHAR, TYPE.VAR_STRING, TYPE.STRING, TYPE.ENUM, TYPE.SET}
        texts |= {TYPE.TINY_BLOB, TYPE.MEDIUM_BLOB, TYPE.LONG_BLOB, TYPE.BLOB}
        refused = {
            TYPE.TIME: ("time", "TIME_TO_SEC({0})"),
            TYPE.BIT: ("bit", "{0} + 0"),
            TYPE.GEOMETRY: ("geometry", "ST_AsText({0})"),
        }
        if code in texts:
            if field.charsetnr == _BINARY:
                refused[code] = ("binary", "HEX({0})")
            types[code] = pa.string()
        if code in refused or code not in types:
            kind, instead = refused.get(code, (f"number {code}", "CAST({0} AS CHAR)"))
            raise QueryFailed(
                f"The column {name} has the type {kind}, which a result cannot keep; "
                f"write {instead.format(name)}.",
                field="sql_query",
            )
        metadata = {b"source_type": b"json"} if code == TYPE.JSON else None
        self.field = pa.field(name, types[code], metadata=metadata)

    def array(self, cells: list[Any]) -> "pa.Array":
        import pyarrow as pa

        # A type without a character set comes as bytes.
        texts = [cell.decode() if isinstance(cell, bytes) else cell for cell in cells]
        array = pa.array(texts, pa.string())
        try:
            if pa.types.is_timestamp(self.field.type):
                return array.cast(pa.timestamp("us")).cast(self.field.type)
            return array.cast(self.field.type)
        except pa.ArrowInvalid as error:
            raise QueryFailed(
                f"The column {self.field.name} holds what is no {self.field.type}: {error}; "
                f"write NULLIF({self.field.name}, 0) for zero dates, or a CAST.",
                field="sql_query",
            ) from error


@contextmanager
def _explained(
    target: Target, timeout_s: float, stopped: threading.Event | None = None
) -> Iterator[None]:
    import pymysql

    if stopped is not None and stopped.is_set():
        raise QueryStopped("The query was stopped.")
    try:
        yield
    except (pymysql.Error, OSError) as error:
        if stopped is not None and stopped.is_set():
            raise QueryStopped("The query was stopped.") from None
        raise _failure(target, error, timeout_s) from None


def _failure(target: Target, error: Exception | None, timeout_s: float) -> Exception:
    code, text = (*getattr(error, "args", ()), None, None)[:2]
    said = target.scrubbed(str(text or error))
    if code in _TIMED_OUT:
        return QueryFailed(
            f"The query took longer than {timeout_s:g} seconds and was stopped.", field="sql_query"
        )
    if not isinstance(code, int) or code in _TRANSIENT or 2000 <= code < 3000:
        return DatabaseDown(f"{target.host}:{target.port} does not answer: {said}")
    return QueryFailed(f"The database says: {said}", field="sql_query")


def fetch(
    target: Target, sql: str, params: Sequence[object] | None, *, timeout_s: float
) -> list[tuple[Any, ...]]:
    """See `query.fetch`."""
    from pymysql.converters import decoders

    with _connected(target, timeout_s) as connection, _explained(target, timeout_s):
        connection.decoders = decoders
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())


def look(target: Target) -> tuple[str, list[str]]:
    """The server's version, and a sentence when the account can do more than read."""
    with (
        _connected(target, LOOK_TIMEOUT_S) as connection,
        _explained(target, LOOK_TIMEOUT_S),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT @@version")
        ((version,),) = cursor.fetchall()
        cursor.execute("SHOW GRANTS")
        grants = [grant for (grant,) in cursor.fetchall()]
    harmless = ("GRANT USAGE ", "GRANT SELECT ", "GRANT SELECT, SHOW VIEW ")
    warnings = []
    if not all(grant.startswith(harmless) for grant in grants):
        warnings.append(
            f"{target.user} can do more than read; use an account that can only read: "
            "CREATE USER reader IDENTIFIED BY '...'; GRANT SELECT ON database.* TO reader;"
        )
    kind = "MariaDB" if "MariaDB" in version else "MySQL"
    return f"{kind} {version}", warnings
