"""The same fence around MySQL's family, held against a real MariaDB."""

import dataclasses
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from connections import query
from connections.query import DatabaseDown, QueryFailed, QueryStopped, Target
from tests.conftest import body
from tests.connections.conftest import NASTY
from tests.mariadb import MariaDB
from tippers import sql

NASTIES = [
    NASTY,
    "with a space",
    "per%cent@at:colon/slash",
    "\"double\" 'single' `back`",
    "漢字é\u202e",
]


@pytest.fixture
def owner(mariadb: MariaDB, mariadb_database: str) -> Iterator[Any]:
    """A cursor outside the fence, to prepare and to look."""
    with closing(mariadb.connect(mariadb_database)) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def target(mariadb: MariaDB, mariadb_database: str, settings: Settings) -> Target:
    """The database as an account that may do everything."""
    settings.ALLOWED_DB_NETWORKS = ["127.0.0.0/8", "::1/128"]
    return mariadb.target(mariadb_database)


@pytest.fixture
def reader(target: Target, owner: Any) -> Iterator[Target]:
    """The same database as an account that can only read, with a password hard to carry."""
    with account(target, owner, NASTY) as found:
        yield found


@contextmanager
def account(target: Target, owner: Any, password: str) -> Iterator[Target]:
    name = f"reader_{uuid.uuid4().hex[:8]}"
    owner.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY %s", [password])
    owner.execute(f"GRANT SELECT ON {target.database}.* TO {name}@'127.0.0.1'")
    yield dataclasses.replace(target, user=name, password=password)
    owner.execute(f"DROP USER {name}@'127.0.0.1'")


def table(target: Target, text: str, **kwargs: Any) -> pa.Table:
    with query.stream(target, text, **kwargs) as batches:
        return batches.read_all()


# --- types -----------------------------------------------------------------------------------

COLUMNS: list[tuple[str, str, pa.DataType, Any]] = [
    ("TINYINT", "-5", pa.int8(), -5),
    ("TINYINT UNSIGNED", "200", pa.uint8(), 200),
    ("BOOLEAN", "TRUE", pa.int8(), 1),
    ("SMALLINT", "-30000", pa.int16(), -30000),
    ("SMALLINT UNSIGNED", "60000", pa.uint16(), 60000),
    ("MEDIUMINT", "8000000", pa.int32(), 8_000_000),
    ("INT", "-2000000000", pa.int32(), -2_000_000_000),
    ("INT UNSIGNED", "4000000000", pa.uint32(), 4_000_000_000),
    ("BIGINT", "-9000000000000000000", pa.int64(), -9_000_000_000_000_000_000),
    ("BIGINT UNSIGNED", "18000000000000000000", pa.uint64(), 18_000_000_000_000_000_000),
    ("YEAR", "2024", pa.int16(), 2024),
    ("FLOAT", "0.25", pa.float32(), 0.25),
    ("DOUBLE", "0.1", pa.float64(), 0.1),
    ("DECIMAL(20, 4)", "-1234567890.1234", pa.float64(), -1234567890.1234),
    ("DATE", "'2024-02-29'", pa.date32(), date(2024, 2, 29)),
    (
        "DATETIME(6)",
        "'2024-02-29 10:20:30.123456'",
        pa.timestamp("us"),
        datetime.fromisoformat("2024-02-29 10:20:30.123456"),
    ),
    ("DATETIME", "'2024-02-29 10:20:30'", pa.timestamp("us"), datetime.fromisoformat("2024-02-29 10:20:30")),
    (
        "TIMESTAMP NULL",
        "'2024-01-01 00:00:01'",
        pa.timestamp("us", "UTC"),
        datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC),
    ),
    ("CHAR(4)", "'ab'", pa.string(), "ab"),
    ("VARCHAR(20)", "'é漢😀'", pa.string(), "é漢😀"),
    ("VARCHAR(20) CHARACTER SET latin1", "'é'", pa.string(), "é"),
    ("TEXT", "'it''s \"x\" \\\\ y'", pa.string(), 'it\'s "x" \\ y'),
    ("LONGTEXT", "''", pa.string(), ""),
    ("ENUM('a', 'b')", "'b'", pa.string(), "b"),
    ("SET('a', 'b')", "'a,b'", pa.string(), "a,b"),
    ("JSON", "'{\"a\": [1]}'", pa.string(), '{"a": [1]}'),
    ("UUID", "'00000000-0000-0000-0000-00000000000a'", pa.string(), "00000000-0000-0000-0000-00000000000a"),
    ("INET6", "'::1'", pa.string(), "::1"),
    ("INET4", "'10.0.0.1'", pa.string(), "10.0.0.1"),
]  # fmt: skip


@pytest.fixture
def things(owner: Any) -> str:
    """A table with a column of each type: a row of values and a row of nulls."""
    defined = ", ".join(f"c{number} {column[0]}" for number, column in enumerate(COLUMNS))
    owner.execute("SET SESSION time_zone = '+00:00'")
    owner.execute(f"CREATE TABLE things (id INT, {defined})")
    owner.execute(f"INSERT INTO things VALUES (1, {', '.join(column[1] for column in COLUMNS)})")
    owner.execute("INSERT INTO things (id) VALUES (2)")
    return "things"


def test_every_type_arrives_with_its_values_and_nulls(reader: Target, things: str) -> None:
    found = table(reader, f"SELECT * FROM {things} ORDER BY id").drop_columns(["id"])
    assert [str(type_) for type_ in found.schema.types] == [str(each[2]) for each in COLUMNS]
    values, nulls = found.to_pylist()
    assert list(values.values()) == [each[3] for each in COLUMNS]
    assert set(nulls.values()) == {None}


def test_a_result_without_rows_has_its_types(reader: Target, things: str) -> None:
    found = table(reader, f"SELECT * FROM {things} WHERE id > 5").drop_columns(["id"])
    assert (found.num_rows, found.schema.types) == (0, [each[2] for each in COLUMNS])


def test_computed_columns_have_the_types_of_the_server(reader: Target) -> None:
    found = table(
        reader,
        "SELECT 1 AS a, 1.5 AS b, 1e0 AS c, 'x' AS d, NULL AS e, DATE('2024-01-01') AS f,"
        " COUNT(*) AS g, AVG(2) AS h, JSON_OBJECT('k', 1) AS i, SUM(1) AS j, 3 > 2 AS k",
    )
    assert found.to_pylist() == [
        {"a": 1, "b": 1.5, "c": 1.0, "d": "x", "e": None, "f": date(2024, 1, 1), "g": 1, "h": 2.0,
         "i": '{"k": 1}', "j": 1.0, "k": 1}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("CAST('10:00' AS TIME) AS span", ["span", "time", "TIME_TO_SEC(span)"]),
        ("CAST('x' AS BINARY) AS raw", ["raw", "binary", "HEX(raw)"]),
        ("b'101' AS bits", ["bits"]),
        ("POINT(1, 2) AS place", ["place", "geometry", "ST_AsText(place)"]),
    ],
)
def test_a_type_that_cannot_be_kept_is_refused_by_column(
    reader: Target, written: str, words: list[str]
) -> None:
    with pytest.raises(QueryFailed) as refused:
        table(reader, f"SELECT 1 AS a, {written}")
    assert all(word in refused.value.detail for word in words), refused.value.detail


def test_a_zero_date_is_refused_by_column(reader: Target, owner: Any) -> None:
    owner.execute("SET SESSION sql_mode = ''")
    owner.execute("CREATE TABLE early (began DATE)")
    owner.execute("INSERT INTO early VALUES ('0000-00-00')")
    with pytest.raises(QueryFailed, match=r"began.*NULLIF"):
        table(reader, "SELECT began FROM early")


def test_the_session_is_in_utc(reader: Target, owner: Any, things: str) -> None:
    owner.execute("SET GLOBAL time_zone = '+09:00'")
    try:
        found = table(reader, f"SELECT @@time_zone AS zone, c17 FROM {things} WHERE id = 1")
    finally:
        owner.execute("SET GLOBAL time_zone = 'SYSTEM'")
    moment = datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert found.to_pylist() == [{"zone": "+00:00", "c17": moment}]


# --- read only -------------------------------------------------------------------------------


@pytest.fixture
def kept(owner: Any) -> str:
    owner.execute("CREATE TABLE kept (a INT)")
    owner.execute("INSERT INTO kept VALUES (0)")
    owner.execute(
        "CREATE FUNCTION sneak() RETURNS INT BEGIN INSERT INTO kept VALUES (1); RETURN 1; END"
    )
    return "kept"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT sneak()",
        "SELECT sneak() FROM kept",
        "INSERT INTO kept VALUES (1)",
        "UPDATE kept SET a = 2",
        "DELETE FROM kept",
        "REPLACE INTO kept VALUES (1)",
        "SELECT 1; INSERT INTO kept VALUES (1)",
        "CREATE TABLE elsewhere (a INT)",
        "TRUNCATE kept",
        "SELECT a INTO @b FROM kept; DELETE FROM kept",
    ],
)
def test_the_server_itself_refuses_to_write(
    target: Target, owner: Any, kept: str, text: str
) -> None:
    """Even for an account that may do everything, and without the judge of queries."""
    for ask in (table, query.fetch):
        with pytest.raises(QueryFailed):
            ask(target, text)
    owner.execute(f"SELECT a FROM {kept}")
    assert owner.fetchall() == ((0,),)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM kept INTO OUTFILE '{path}'",
        "SELECT a INTO OUTFILE '{path}' FROM kept",
        "SELECT a FROM kept /*!50000 INTO OUTFILE '{path}' */",
        "SELECT a FROM kept /*M!100000 INTO DUMPFILE '{path}' */",
        "SELECT LOAD_FILE('/etc/passwd') AS a",
        "SELECT `LOAD_FILE`('/etc/passwd') AS a",
        "SELECT 1 /*! , LOAD_FILE('/etc/passwd') */ AS a",
        "SELECT /* */ LOAD_FILE /* */ ('/etc/passwd') AS a",
        "SELECT sneak() AS a",
    ],
)
def test_what_the_server_would_do_for_a_mighty_account_is_refused_before(
    target: Target, owner: Any, kept: str, text: str, tmp_path: Path
) -> None:
    """READ ONLY stops neither files nor functions of files, so the judge is what stands there."""
    written = tmp_path / "out"
    with pytest.raises(sql.SqlRefused):
        sql.render(text.format(path=written), dialect="mysql")
    assert not written.exists()


def test_a_mode_of_the_server_does_not_change_how_text_is_read(reader: Target, owner: Any) -> None:
    owner.execute("SELECT @@GLOBAL.sql_mode")
    ((before,),) = owner.fetchall()
    owner.execute("SET GLOBAL sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'")
    try:
        found = table(reader, r"""SELECT 'a\'b' AS a, "text" AS b, 1 || 0 AS c""")
    finally:
        owner.execute("SET GLOBAL sql_mode = %s", [before])
    assert found.to_pylist() == [{"a": "a'b", "b": "text", "c": 1}]


# --- errors and secrets ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELEC 1", "SQL syntax"),
        ("SELECT * FROM nowhere", "doesn't exist"),
        ("SELECT nme FROM (SELECT 1 AS name) q", "Unknown column"),
        ("SELECT * FROM mysql.global_priv", "denied"),
    ],
)
def test_a_bad_query_gets_the_servers_own_sentence(reader: Target, text: str, words: str) -> None:
    for ask in (table, query.fetch):
        with pytest.raises(QueryFailed) as failed:
            ask(reader, text)
        assert words in failed.value.detail


@pytest.mark.parametrize("password", NASTIES)
def test_a_nasty_password_signs_in_and_stays_hidden(
    target: Target, owner: Any, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with account(target, owner, password) as reader:
        assert table(reader, "SELECT 1 AS a").to_pylist() == [{"a": 1}]
        assert query.fetch(reader, "SELECT 1") == [(1,)]
        assert query.test(reader)["status"] == "success"
        told = [repr(reader)]
        for change in (
            {"user": "nobody at all"},
            {"database": "no such database"},
            {"port": 9},
            {"password": password + "x"},
        ):
            wrong = dataclasses.replace(reader, **change)
            told.append(query.test(wrong)["message"])
            for ask in (table, query.fetch):
                with pytest.raises((QueryFailed, DatabaseDown)) as failed:
                    ask(wrong, "SELECT 1")
                error: BaseException | None = failed.value
                while error is not None:  # what a traceback in a log would show
                    told.append(f"{error} {error.args}")
                    hidden = error.__suppress_context__
                    error = None if hidden else error.__cause__ or error.__context__
        with pytest.raises(QueryFailed) as failed:
            query.fetch(
                reader, "SELECT %s FROM nowhere_" + quote(password, safe="").replace("%", "%%"), [1]
            )
        told.append(failed.value.detail)
    told.append(caplog.text)
    spellings = {password, quote(password), quote(password, safe="")}
    assert not [each for text in told for each in spellings if each in text]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"password": "wrong"}, QueryFailed),
        ({"database": "no such database"}, QueryFailed),
        ({"port": 9}, DatabaseDown),
    ],
)
def test_only_what_may_pass_is_worth_another_try(
    reader: Target, change: dict[str, Any], error: type[Exception]
) -> None:
    for ask in (table, query.fetch):
        with pytest.raises(error):
            ask(dataclasses.replace(reader, **change), "SELECT 1")


def test_a_server_that_breaks_off_is_down(reader: Target, owner: Any) -> None:
    text = "SELECT a.seq, REPEAT('x', 200) AS x FROM seq_1_to_3000000 a"
    with pytest.raises(DatabaseDown), query.stream(reader, text) as batches:
        for _ in batches:
            for number in sessions_of(reader, owner):
                owner.execute(f"KILL CONNECTION {number}")


# --- size and stopping -----------------------------------------------------------------------


def sessions_of(reader: Target, owner: Any, doing: str = "") -> list[int]:
    owner.execute(
        "SELECT id FROM information_schema.processlist WHERE user = %s AND info LIKE %s"
        if doing
        else "SELECT id FROM information_schema.processlist WHERE user = %s",
        [reader.user, doing] if doing else [reader.user],
    )
    return [number for (number,) in owner.fetchall()]


def test_a_slow_query_is_stopped_by_the_server(reader: Target) -> None:
    begun = time.monotonic()
    for ask in (table, query.fetch):
        with pytest.raises(QueryFailed, match=r"longer than 0\.3 seconds"):
            ask(reader, "SELECT SLEEP(20) AS a", timeout_s=0.3)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "text",
    [
        "SELECT BENCHMARK(1000000000, SHA2('x', 512)) AS a",
        "SELECT a.seq, REPEAT('x', 100) AS x FROM seq_1_to_100000000 a",
    ],
)
def test_another_thread_stops_a_query_at_once(reader: Target, owner: Any, text: str) -> None:
    stops: list[Callable[[], None]] = []
    stopped_at: list[float] = []

    @contextmanager
    def on_stop(stop: Callable[[], None]) -> Iterator[None]:
        stops.append(stop)
        stopper.start()
        yield

    def stop_when_it_runs() -> None:
        until = time.monotonic() + 20
        while not sessions_of(reader, owner, f"{text[:15]}%"):
            assert time.monotonic() < until
            time.sleep(0.01)
        stopped_at.append(time.monotonic())
        stops[0]()

    stopper = threading.Thread(target=stop_when_it_runs)
    with pytest.raises(QueryStopped), query.stream(reader, text, on_stop=on_stop) as batches:
        for _ in batches:
            pass
    assert time.monotonic() - stopped_at[0] < 3
    stopper.join()
    until = time.monotonic() + 20
    while sessions_of(reader, owner):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_reader_may_leave_early(reader: Target) -> None:
    with query.stream(reader, "SELECT seq FROM seq_1_to_100000000") as batches:
        batches.read_next_batch()
        begun = time.monotonic()
    assert time.monotonic() - begun < 1


def test_many_rows_take_the_memory_of_a_few_batches(reader: Target) -> None:
    pool = pa.default_memory_pool()
    before, highest, rows = pool.bytes_allocated(), 0, 0
    text = "SELECT seq, seq * 1.5 AS n, MD5(seq) AS m FROM seq_1_to_200000"
    with query.stream(reader, text) as batches:
        for batch in batches:
            rows += batch.num_rows
            highest = max(highest, pool.bytes_allocated() - before)
    assert rows == 200_000
    assert highest < 32 * 2**20


# --- the test endpoint -----------------------------------------------------------------------


def connection_body(target: Target) -> dict[str, Any]:
    return {
        "name": "campus on MariaDB",
        "connection_type": "mysql",
        "host": target.host,
        "port": target.port,
        "database": target.database,
        "user": target.user,
        "password": target.password,
    }


def test_the_test_of_a_connection_says_what_it_found(
    api: APIClient, reader: Target, target: Target
) -> None:
    created = body(api.post("/database-connections", connection_body(reader)))
    path = f"/database-connections/{created['conn_id']}"
    found = body(api.post(f"{path}/test"))
    assert (found["status"], found["message"]) == ("success", "Connection successful")
    assert found["server_version"].startswith("MariaDB 1")
    assert 0 < found["latency_ms"] < 10_000
    assert found["warnings"] == []
    answer = api.patch(path, {"user": target.user, "password": target.password})
    assert answer.status_code == 200
    (warning,) = body(api.post(f"{path}/test"))["warnings"]
    assert "can do more than read" in warning
    assert "GRANT SELECT" in warning
    api.patch(path, {"password": "wrong"})
    failed = body(api.post(f"{path}/test"))
    assert (failed["status"], failed["server_version"]) == ("failed", None)
    assert "Access denied" in failed["message"]


# --- through the API -------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_index_and_a_rule_are_materialized_on_mariadb(
    api: APIClient, reader: Target, owner: Any, perform_all: Callable[[], int]
) -> None:
    owner.execute("CREATE TABLE wifi (mac VARCHAR(20), began DATETIME, ended DATETIME)")
    sessions = [
        ("aa", "2024-01-01 00:00", "2024-01-01 02:00"),
        ("aa", "2024-01-02 10:00", "2024-01-02 10:30"),
        ("it's \\ 漢", "2024-01-01 09:00", "2024-01-01 17:00"),
        ("elsewhere", "2024-01-01 09:00", "2024-01-01 17:00"),
        (None, "2024-01-01 09:00", "2024-01-01 17:00"),
    ]
    owner.executemany("INSERT INTO wifi VALUES (%s, %s, %s)", sessions)
    conn_id = body(api.post("/database-connections", connection_body(reader)))["conn_id"]
    c_id = body(api.post("/concepts", {"name": "device_classification"}))["c_id"]

    def materialized(family: str, key: str, **fields: Any) -> Any:
        created = body(api.post(f"/concepts/{c_id}/{family}", fields))
        path = f"/concepts/{c_id}/{family}/{created[key]}"
        run_id = body(api.post(f"{path}/materialize"))["dagster_run_id"]
        perform_all()
        run = body(api.get(f"/dagster/runs/{run_id}"))
        logs = api.get(f"/dagster/runs/{run_id}/logs")
        assert run["status"] == "SUCCESS", run
        assert NASTY not in f"{run}{logs.content.decode()}"
        return created[key], body(api.get(f"{path}/preview?limit=1000"))["rows"]

    index_id, rows = materialized(
        "indexes",
        "index_id",
        name="macs",
        conn_id=conn_id,
        sql_query="SELECT DISTINCT mac FROM wifi WHERE mac <> {{ left_out }} OR mac IS NULL",
        query_template_params={"left_out": "elsewhere"},
    )
    assert {row["mac"] for row in rows} == {"aa", "it's \\ 漢", None}
    _, rows = materialized(
        "rules",
        "r_id",
        name="hours",
        index_id=index_id,
        sql_query="SELECT mac, SUM(TIMESTAMPDIFF(MINUTE, began, ended)) / 60 AS hours FROM wifi"
        " WHERE mac IN (:index_values) GROUP BY mac ORDER BY mac",
    )
    assert rows == [{"mac": "aa", "hours": 2.5}, {"mac": "it's \\ 漢", "hours": 8.0}]
    bad = body(
        api.post(
            f"/concepts/{c_id}/rules",
            {"name": "bad", "index_id": index_id, "sql_query": "SELECT mac FROM nowhere"},
        )
    )
    launched = body(api.post(f"/concepts/{c_id}/rules/{bad['r_id']}/materialize"))
    perform_all()
    run = body(api.get(f"/dagster/runs/{launched['dagster_run_id']}"))
    assert run["status"] == "FAILURE"
    assert "doesn't exist" in run["error_message"]


# --- :index_values ---------------------------------------------------------------------------

INDEXED = ["c1", "c6", "c8", "c9", "c11", "c12", "c13", "c14", "c15", "c17", "c2", "c19", "c21", "c26", "c27"]  # fmt: skip


@pytest.mark.parametrize("column", INDEXED)
def test_index_values_find_the_rows_that_they_came_from(
    reader: Target, things: str, column: str
) -> None:
    index = table(reader, f"SELECT {column} AS v FROM {things}").column("v")

    def found(condition: str, values: Any) -> list[int]:
        text = sql.render(
            f"WITH q AS (SELECT id, {column} AS v FROM {things} WHERE {column} IN (:index_values)"
            f" OR {column} IS NULL OR 1 = 1) SELECT id FROM q WHERE {condition}",
            dialect="mysql",
            index_values=values,
        )
        return list(table(reader, text).column("id").to_pylist())

    assert found("v IN (:index_values)", index) == [1]
    assert found("v NOT IN (:index_values)", index) == []
    assert found("v IN (:index_values)", index.slice(0, 0)) == []
    assert sorted(found("v NOT IN (:index_values)", index.slice(0, 0))) == [1, 2]


def test_existing_names_are_those_that_the_account_may_read(
    target: Target, reader: Target, owner: Any
) -> None:
    odd = "odd `name %s"
    owner.execute("CREATE TABLE visits (mac text, `odd ``name %s` int, secret text)")
    owner.execute("CREATE VIEW daily AS SELECT mac AS device FROM visits")
    owner.execute("INSERT INTO visits VALUES ('aa', 7, 'x')")
    there = {target.database, "visits", "mac", odd, "secret", "daily", "device"}
    absent = {"global_priv", "mysql", "user", "unknown", "Visits", "'; DROP TABLE visits; --"}
    assert query.existing_names(reader, there | absent) == there
    text = sql.render(
        "SELECT {{ c | identifier }} AS v FROM {{ t | identifier }}",
        dialect="mysql",
        params={"c": odd, "t": f"{target.database}.visits"},
        existing_names=partial(query.existing_names, reader),
    )
    assert table(reader, text).column("v").to_pylist() == [7]
    with account(target, owner, "narrow") as narrow:
        owner.execute(f"REVOKE SELECT ON {target.database}.* FROM {narrow.user}@'127.0.0.1'")
        owner.execute(
            f"GRANT SELECT (mac) ON {target.database}.visits TO {narrow.user}@'127.0.0.1'"
        )
        assert query.existing_names(narrow, there) == {target.database, "visits", "mac"}
