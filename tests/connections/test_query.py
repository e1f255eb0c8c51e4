"""The fence around user databases: read only, bounded, stoppable, and silent about passwords."""

import dataclasses
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a type, and here it reads as one

from connections import query
from connections.query import DatabaseDown, HostUnknown, QueryFailed, QueryStopped, Target
from tests.connections.conftest import NASTY
from tippers import sql
from tippers.errors import CannotBeDone

pytestmark = pytest.mark.django_db  # the database exists, also when these tests run alone


def table(target: Target, text: str, **kwargs: Any) -> pa.Table:
    with query.stream(target, text, **kwargs) as reader:
        return reader.read_all()


TYPES = [
    ("1::int2", pa.int16(), 1),
    ("1", pa.int32(), 1),
    ("5000000000", pa.int64(), 5_000_000_000),
    ("4000000000::oid", pa.int64(), 4_000_000_000),
    ("1.5::numeric", pa.float64(), 1.5),
    ("12345678901234567890.12::numeric", pa.float64(), 12345678901234567890.12),
    ("0.25::real", pa.float32(), 0.25),
    ("0.1::float8", pa.float64(), 0.1),
    ("true", pa.bool_(), True),
    ("'é''\"'", pa.string(), "é'\""),
    ("'ab'::char(4)", pa.string(), "ab"),
    ("NULL", pa.string(), None),
    ("NULL::numeric", pa.float64(), None),
    ("date '2024-02-29'", pa.date32(), date(2024, 2, 29)),
    ("time '10:20:30.5'", pa.time64("us"), time_of_day(10, 20, 30, 500_000)),
    (
        "timestamptz '2024-01-01 09:00+09'",
        pa.timestamp("us", "UTC"),
        datetime(2024, 1, 1, tzinfo=UTC),
    ),
    (
        "(timestamp '2024-01-01 09:00')::text::timestamptz",
        pa.timestamp("us", "UTC"),
        datetime(2024, 1, 1, 9, tzinfo=UTC),
    ),
    (
        "timestamp '2024-01-01 09:00:00.123456'",
        pa.timestamp("us"),
        datetime(2024, 1, 1, 9, 0, 0, 123456, tzinfo=UTC).replace(tzinfo=None),
    ),
    (
        "'00000000-0000-0000-0000-00000000000a'::uuid",
        pa.string(),
        "00000000-0000-0000-0000-00000000000a",
    ),
    ("macaddr '08-00-2B-01-02-03'", pa.string(), "08:00:2b:01:02:03"),
    ("inet '10.0.0.1'", pa.string(), "10.0.0.1"),
    ("cidr '10.0.0.0/8'", pa.string(), "10.0.0.0/8"),
    ("int4range(1, 3)", pa.string(), "[1,3)"),
    ("'{\"a\": 1}'::jsonb", pa.string(), '{"a": 1}'),
    ("'{\"a\":1}'::json", pa.string(), '{"a":1}'),
    ("point(1, 2)", pa.string(), "(1,2)"),
    ("B'101'", pa.string(), "101"),
    ("array[1, NULL]", pa.list_(pa.int32()), [1, None]),
    ("array[1.5, 2]", pa.list_(pa.float64()), [1.5, 2.0]),
    ("array['a', 'b']", pa.list_(pa.string()), ["a", "b"]),
    ("array[inet '10.0.0.1/8']", pa.list_(pa.string()), ["10.0.0.1/8"]),
]


def test_every_type_arrives_as_the_design_says(reader: Target) -> None:
    columns = ", ".join(f"{written} AS c{number}" for number, (written, _, _) in enumerate(TYPES))
    found = table(reader, f"SELECT {columns}")
    assert [str(field.type) for field in found.schema] == [str(type_) for _, type_, _ in TYPES]
    assert list(found.to_pylist()[0].values()) == [value for _, _, value in TYPES]


def test_a_result_without_rows_has_its_types(reader: Target) -> None:
    found = table(reader, "SELECT 1.5::numeric AS a, inet '10.0.0.1' AS b WHERE false")
    assert (found.num_rows, found.schema.types) == (0, [pa.float64(), pa.string()])


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("1::money AS price", ["price", "money", "price::numeric"]),
        ("interval '1 day' AS span", ["span", "interval", "EXTRACT(EPOCH FROM span)"]),
        ("'x'::bytea AS raw", ["raw", "bytea", "encode(raw, 'hex')"]),
        ("row(1, 2) AS pair", ["pair", "record", "to_json(pair)"]),
        ("array[interval '1 day'] AS spans", ["spans", "interval"]),
        ("timestamp 'infinity' AS until", ["until", "infinity", "NULLIF"]),
        ("date '-infinity' AS since", ["since", "infinity"]),
    ],
)
def test_a_type_that_cannot_be_kept_is_refused_by_column(
    reader: Target, written: str, words: list[str]
) -> None:
    with pytest.raises(QueryFailed) as refused:
        table(reader, f"SELECT 1 AS a, {written}")
    assert all(word in refused.value.detail for word in words)


def test_a_domain_over_an_array_is_that_array(reader: Target, owner: Cursor) -> None:
    owner.execute("CREATE DOMAIN some_numbers AS integer[]")
    try:
        found = table(reader, "SELECT '{1,2}'::some_numbers AS n")
    finally:
        owner.execute("DROP DOMAIN some_numbers")
    assert found.to_pylist() == [{"n": [1, 2]}]


def test_what_a_statement_of_ours_packs_arrives_as_bytes(reader: Target) -> None:
    text = "SELECT string_agg(int8send(g), '' ORDER BY g) AS n FROM generate_series(-1, 1) AS g"
    found = query.packed(reader, text, timeout_s=10, on_stop=lambda _: nullcontext())
    assert found.to_pylist() == [{"n": struct.pack(">3q", -1, 0, 1)}]


def test_names_and_order_survive_the_casting(reader: Target) -> None:
    text = (
        'SELECT g::numeric AS "a ""b", g AS n, lower(\'X\') '
        "FROM generate_series(1, 1000) g ORDER BY g DESC -- comment"
    )
    found = table(reader, text)
    assert found.column_names == ['a "b', "n", "lower"]
    assert found.column("n").to_pylist() == list(range(1000, 0, -1))


def test_the_session_is_in_utc(reader: Target, owner: Cursor) -> None:
    owner.execute(f"ALTER ROLE {reader.user} SET timezone = 'Asia/Seoul'")
    found = table(reader, "SELECT current_setting('timezone') AS a, '2024-01-01'::timestamptz AS b")
    assert found.to_pylist() == [{"a": "UTC", "b": datetime(2024, 1, 1, tzinfo=UTC)}]


# --- read only -------------------------------------------------------------------------------


@pytest.fixture
def scratch(owner: Cursor) -> Iterator[str]:
    """A table, and a function that adds a row to it when it is called."""
    owner.execute("""
        CREATE TABLE scratch (a int);
        CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS
            'INSERT INTO scratch VALUES (1) RETURNING a';
        CREATE FUNCTION unfence() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            SET TRANSACTION READ WRITE;
            INSERT INTO scratch VALUES (2);
            RETURN 'done';
        END $$;
    """)
    yield "scratch"
    owner.execute("DROP FUNCTION sneak(); DROP FUNCTION unfence(); DROP TABLE scratch")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT sneak()",
        "SELECT unfence()",
        "INSERT INTO scratch VALUES (1) RETURNING a",
        "WITH x AS (DELETE FROM scratch RETURNING a) SELECT a FROM x",
        "SELECT 1 INTO elsewhere",
        "CREATE TABLE elsewhere (a int)",
        "SELECT set_config('transaction_read_only', 'off', true) FROM scratch",
        "SELECT 1; INSERT INTO scratch VALUES (1)",
        "COMMIT; INSERT INTO scratch VALUES (1) RETURNING a",
        "COMMIT",
    ],
)
def test_the_server_itself_refuses_to_write(
    target: Target, owner: Cursor, scratch: str, text: str
) -> None:
    """Even for the owner, and without the judge of queries."""
    owner.execute(f"INSERT INTO {scratch} VALUES (0)")
    with pytest.raises(QueryFailed):
        table(target, text)
    with pytest.raises(QueryFailed):
        query.fetch(target, text)
    owner.execute(f"SELECT a FROM {scratch}")
    assert owner.fetchall() == [(0,)]


def test_strings_are_read_by_the_standard_whatever_the_role_says(
    reader: Target, owner: Cursor
) -> None:
    owner.execute(f"ALTER ROLE {reader.user} SET standard_conforming_strings = off")
    assert table(reader, r"SELECT 'a\' AS a").to_pylist() == [{"a": "a\\"}]


# --- errors and secrets ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT * FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT nme FROM (SELECT 1 AS name) q", "Perhaps you meant to reference the column"),
        ("SELECT 1 / (3 - g) FROM generate_series(1, 5) g", "division by zero"),
        ("SELECT 1 / (500000 - g) FROM generate_series(1, 1000000) g", "division by zero"),
        ("SELECT * FROM pg_authid", "permission denied"),
    ],
)
def test_a_bad_query_gets_the_servers_own_sentence(reader: Target, text: str, words: str) -> None:
    for ask in (table, query.fetch):
        with pytest.raises(QueryFailed) as failed:
            ask(reader, text)
        assert words in failed.value.detail
        assert "Query was" not in failed.value.detail
        assert "SQLSTATE" not in failed.value.detail


def test_a_slow_query_is_stopped_by_the_server(reader: Target) -> None:
    begun = time.monotonic()
    with pytest.raises(QueryFailed, match=r"longer than 0\.3 seconds"):
        table(reader, "SELECT pg_sleep(20)::text", timeout_s=0.3)
    with pytest.raises(QueryFailed, match=r"longer than 0\.3 seconds"):
        query.fetch(reader, "SELECT pg_sleep(20)", timeout_s=0.3)
    assert time.monotonic() - begun < 10


def test_a_nasty_password_signs_in(reader: Target) -> None:
    assert table(reader, "SELECT 1 AS a").to_pylist() == [{"a": 1}]
    assert query.fetch(reader, "SELECT 1") == [(1,)]
    assert query.test(reader)["status"] == "success"


@pytest.mark.parametrize(
    "change",
    [
        {"user": "nobody at all"},
        {"database": "no such database"},
        {"port": 9},
        {"host": "no-such-host.invalid"},
    ],
)
def test_no_error_tells_the_password(reader: Target, change: dict[str, Any]) -> None:
    wrong = dataclasses.replace(reader, **change)
    told = [repr(wrong), query.test(wrong)["message"]]
    for ask in (table, query.fetch):
        with pytest.raises((QueryFailed, DatabaseDown, HostUnknown)) as failed:
            ask(wrong, "SELECT 1")
        error: BaseException | None = failed.value
        while error is not None:  # what a traceback in a log would show
            told.append(f"{error} {error.args}")
            error = None if error.__suppress_context__ else error.__cause__ or error.__context__
    spellings = {NASTY, quote(NASTY), quote(NASTY, safe=""), "p w@%41"}
    assert not [each for text in told for each in spellings if each in text]


def test_a_message_that_quotes_the_password_is_blanked(reader: Target) -> None:
    with pytest.raises(QueryFailed) as failed:
        query.fetch(reader, "SELECT %s::int", [NASTY])
    assert "***" in failed.value.detail
    assert NASTY not in failed.value.detail


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"password": "wrong"}, QueryFailed),
        ({"database": "no such database"}, QueryFailed),
        ({"port": 9}, DatabaseDown),
        ({"host": "no-such-host.invalid"}, HostUnknown),
    ],
)
def test_only_what_may_pass_is_worth_another_try(
    reader: Target, change: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        table(dataclasses.replace(reader, **change), "SELECT 1")


def test_a_server_that_goes_away_in_the_middle_is_down(reader: Target, owner: Cursor) -> None:
    text = "SELECT g, repeat('x', 200) AS x FROM generate_series(1, 3000000) g"
    with (
        pytest.raises(DatabaseDown),
        query.stream(reader, text) as batches,
    ):
        for _ in batches:
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
                [reader.user],
            )


# --- size and stopping -----------------------------------------------------------------------


def test_a_million_rows_take_the_memory_of_a_few_batches(reader: Target) -> None:
    pool = pa.default_memory_pool()
    before, highest, rows, size = pool.bytes_allocated(), 0, 0, 0
    text = "SELECT g, g::numeric AS n, md5(g::text) AS m FROM generate_series(1, 1000000) g"
    with query.stream(reader, text) as batches:
        for batch in batches:
            rows += batch.num_rows
            largest = max(size, batch.get_total_buffer_size())
            size = largest
            highest = max(highest, pool.bytes_allocated() - before)
    assert rows == 1_000_000
    assert size < 32 * 2**20
    assert highest < 64 * 2**20


def sessions_of(reader: Target, owner: Cursor) -> int:
    owner.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [reader.user])
    ((count,),) = owner.fetchall()
    return int(count)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT pg_sleep(30)::text",
        "SELECT g, repeat('x', 100) AS x FROM generate_series(1, 100000000) g",
        "SELECT g, h FROM generate_series(1, 100000) g, generate_series(1, 100000) h",
    ],
)
def test_another_thread_stops_a_query_at_once(reader: Target, owner: Cursor, text: str) -> None:
    stops: list[Any] = []
    stopped_at: list[float] = []

    @contextmanager
    def on_stop(stop: Any) -> Iterator[None]:
        stops.append(stop)
        stopper.start()
        yield

    def stop_when_it_runs() -> None:
        while True:
            owner.execute(
                "SELECT 1 FROM pg_stat_activity WHERE usename = %s AND state = 'active'"
                " AND query NOT LIKE '%%set_config%%'",
                [reader.user],
            )
            if owner.fetchall():
                break
            time.sleep(0.01)
        time.sleep(0.3)  # into the middle of it
        stopped_at.append(time.monotonic())
        stops[0]()

    stopper = threading.Thread(target=stop_when_it_runs)
    with pytest.raises(QueryStopped), query.stream(reader, text, on_stop=on_stop) as batches:
        for _ in batches:
            pass
    took = time.monotonic() - stopped_at[0]
    stopper.join()
    assert took < 3  # of the minutes that it would take; some 0.1 s on an idle machine
    until = time.monotonic() + 20  # its server process first removes what it had on disk
    while sessions_of(reader, owner):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_reader_may_leave_early(reader: Target) -> None:
    text = "SELECT g, h FROM generate_series(1, 100000) g, generate_series(1, 100000) h"
    with query.stream(reader, text) as batches:
        batches.read_next_batch()
        begun = time.monotonic()
    assert time.monotonic() - begun < 1


def test_a_result_beyond_the_bounds_is_refused(
    reader: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "MAX_ROWS", 1000)
    with pytest.raises(QueryFailed, match="more than 1,000 rows"):
        table(reader, "SELECT g FROM generate_series(1, 2000000) g")


# --- small results and the test --------------------------------------------------------------


def test_fetch_takes_parameters(reader: Target) -> None:
    assert query.fetch(reader, "SELECT %s, %s", [1, "it's"]) == [(1, "it's")]
    assert query.fetch(reader, "SELECT 1 WHERE 1 = ANY(%s)", [[1, 2]]) == [(1,)]
    assert query.fetch(reader, "SELECT '100%' LIKE '%0%'") == [(True,)]


def test_the_test_says_what_it_found(reader: Target, target: Target) -> None:
    found = query.test(reader)
    assert (found["status"], found["message"]) == ("success", "Connection successful")
    assert found["server_version"].startswith("PostgreSQL ")
    assert 0 < found["latency_ms"] < 10_000
    assert found["warnings"] == []
    (warning,) = query.test(target)["warnings"]
    assert "superuser" in warning
    assert "CREATE ROLE" in warning


def test_the_test_warns_of_a_role_that_can_write(
    reader: Target, owner: Cursor, scratch: str
) -> None:
    owner.execute(f"GRANT UPDATE ON {scratch} TO {reader.user}")
    (warning,) = query.test(reader)["warnings"]
    assert "can write" in warning


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://bob:p%40%20w@db.example:6543/data%2Fbase",
            Target("postgresql", "db.example", 6543, "data/base", "bob", "p@ w"),
        ),
        ("postgres://bob@h/d", Target("postgresql", "h", 5432, "d", "bob", "")),
        ("mysql://bob:x@[::1]/d", Target("mysql", "::1", 3306, "d", "bob", "x")),
    ],
)
def test_a_target_is_read_from_a_url(url: str, expected: Target) -> None:
    assert Target.from_url(url) == expected


@pytest.mark.parametrize("url", ["", "sqlite:///x", "postgresql://h/d?sslmode=verify-full"])
def test_a_url_that_is_not_understood_is_refused(url: str) -> None:
    with pytest.raises(CannotBeDone):
        Target.from_url(url)


# --- with the renderer -----------------------------------------------------------------------

INDEXED = [
    ("g", None),
    ("g * 5000000000", None),
    ("g / 4.0", "numeric"),
    ("g / 4.0::float8", None),
    ("(g / 3.0)::real", None),
    ("'it''s \"' || g || '\\'", None),
    ("('00000000-0000-0000-0000-00000000000' || g)::uuid", "uuid"),
    ("('08:00:2b:01:02:0' || g)::macaddr", "macaddr"),
    ("('10.0.0.' || g)::inet", "inet"),
    ("timestamp '2024-01-01' + g * interval '1.000001 s'", None),
    ("timestamptz '2024-01-01' + g * interval '1.000001 s'", None),
    ("date '2024-01-01' + g", None),
    ("time '10:00' + g * interval '1 s'", None),
    ("('k' || g)::char(9)", "bpchar"),
    ("g > 2", None),
]


@pytest.mark.parametrize(("written", "source_type"), INDEXED)
def test_index_values_find_the_rows_that_they_came_from(
    reader: Target, written: str, source_type: str | None
) -> None:
    source = f"SELECT CASE WHEN g < 9 THEN {written} END AS v, g FROM generate_series(1, 9) g"
    index = table(reader, source)
    told = (index.schema.field("v").metadata or {}).get(b"source_type")
    assert told == (source_type.encode() if source_type else None)
    for operator, expected in (("IN", {*range(1, 9)}), ("NOT IN", set())):
        text = sql.render(
            f"WITH q AS ({source}) SELECT g FROM q WHERE v {operator} (:index_values)",
            dialect="postgresql",
            index_values=index.column("v"),
            index_type=source_type,
        )
        assert set(table(reader, text).column("g").to_pylist()) == expected
    empty = sql.render(
        f"WITH q AS ({source}) SELECT g FROM q WHERE v IN (:index_values)",
        dialect="postgresql",
        index_values=index.column("v").slice(0, 0),
        index_type=source_type,
    )
    assert table(reader, empty).num_rows == 0


HALF_A_MILLION = """
    WITH q AS (
        SELECT 'mac' || g AS v, g FROM generate_series(499996, 500010) g
         WHERE 'mac' || g NOT IN (:index_values) OR g <> 499996
    )
    SELECT g FROM q WHERE v IN (:index_values) OR v LIKE '%7' AND v NOT IN (:index_values) ORDER BY g
"""


@pytest.fixture(scope="module")
def half_a_million() -> pa.Array:
    return pa.array([f"mac{number}" for number in range(1, 500_001)])


def test_half_a_million_index_values_work_as_five_do(
    reader: Target, half_a_million: pa.Array
) -> None:
    """From a table that the server has counted, and the same from within the text."""
    given = {"dialect": "postgresql", "index_values": half_a_million}
    values = sql.index_table(half_a_million, None, "postgresql")
    assert values is not None
    text = sql.render(HALF_A_MILLION, table=values, **given)
    assert len(text) < 1000
    expected = [499997, 499998, 499999, 500000, 500007]
    assert table(reader, text, index_table=values).column("g").to_pylist() == expected
    inline = sql.render(HALF_A_MILLION, **given)
    assert table(reader, inline).column("g").to_pylist() == expected
    counted = f"SELECT reltuples FROM pg_class WHERE oid = 'pg_temp.{values.name}'::regclass"
    (row,) = table(reader, counted, index_table=values).to_pylist()
    assert row["reltuples"] == pytest.approx(500_000, rel=0.05)  # from a sample of its pages


def test_few_index_values_stand_in_the_query(half_a_million: pa.Array) -> None:
    assert sql.index_table(half_a_million.slice(0, 10_000), None, "postgresql") is None
    assert sql.index_table(half_a_million, None, "mysql") is None


@pytest.mark.parametrize("hindrance", ["no right", "read only"])
def test_index_values_stand_in_the_query_where_no_table_can_be_made(
    reader: Target, owner: Cursor, hindrance: str
) -> None:
    given = pa.array(range(10_001))
    values = sql.index_table(given, None, "postgresql")
    text = sql.render(
        "SELECT g FROM generate_series(9999, 20000) g WHERE g IN (:index_values) ORDER BY g",
        dialect="postgresql",
        index_values=given,
        table=values,
    )
    if hindrance == "no right":
        owner.execute(f'REVOKE TEMPORARY ON DATABASE "{reader.database}" FROM PUBLIC')
    else:
        owner.execute(f"ALTER ROLE {reader.user} SET default_transaction_read_only = on")
    try:
        found = table(reader, text, index_table=values)
    finally:
        owner.execute(f'GRANT TEMPORARY ON DATABASE "{reader.database}" TO PUBLIC')
    assert found.column("g").to_pylist() == [9999, 10000]


def test_the_session_is_read_only_after_the_table_was_made(
    target: Target, owner: Cursor, scratch: str, half_a_million: pa.Array
) -> None:
    values = sql.index_table(half_a_million.slice(0, 10_001), None, "postgresql")
    for text in ("SELECT sneak()", "SELECT unfence()", "CREATE TEMPORARY TABLE more (a int)"):
        with pytest.raises(QueryFailed):
            table(target, text, index_table=values)
    owner.execute(f"SELECT a FROM {scratch}")
    assert owner.fetchall() == []


@pytest.mark.parametrize(
    ("written", "source_type"),
    [
        ("('00000000-0000-0000-0000-' || lpad(g::text, 12, '0'))::uuid", "uuid"),
        ("('08002b' || lpad(to_hex(g), 6, '0'))::macaddr", "macaddr"),
        ("inet '10.0.0.0' + g", "inet"),
        ("g / 4.0", "numeric"),
        ("g", None),
        ("g % 2 = 0", None),
        ("timestamptz '2024-01-01' + g * interval '1 s'", None),
    ],
)
def test_a_table_of_index_values_has_their_type(
    reader: Target, written: str, source_type: str | None
) -> None:
    source = f"SELECT {written} AS v, g FROM generate_series(1, 10010) g"
    index = table(reader, source).column("v")
    values = sql.index_table(index, source_type, "postgresql")
    text = sql.render(
        f"SELECT count(*) AS n FROM ({source}) q WHERE v IN (:index_values)",
        dialect="postgresql",
        index_values=index,
        index_type=source_type,
        table=values,
    )
    assert table(reader, text, index_table=values).to_pylist() == [{"n": 10_010}]


def test_a_type_created_between_two_queries_is_known_to_the_second(
    reader: Target, owner: Cursor
) -> None:
    """The connections of a process share what the driver once read of the types."""
    assert table(reader, "SELECT 1 AS v").num_rows == 1
    owner.execute("CREATE TYPE mood AS ENUM ('fair', 'foul'); CREATE TYPE pair AS (a int, b int)")
    try:
        found = table(reader, "SELECT ARRAY['foul'::mood] AS v")
        with pytest.raises(QueryFailed, match="to_json"):
            table(reader, "SELECT (1, 2)::pair AS v")
    finally:
        owner.execute("DROP TYPE mood, pair")
    assert found.column("v").to_pylist() == [["foul"]]


def test_existing_names_are_those_that_the_role_may_read(reader: Target, owner: Cursor) -> None:
    schema = f"s_{uuid.uuid4().hex[:8]}"
    owner.execute(f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.visits (mac text, "odd ""name %s" int, secret text, gone int);
        ALTER TABLE {schema}.visits DROP COLUMN gone;
        CREATE VIEW {schema}.daily AS SELECT mac AS device FROM {schema}.visits;
        CREATE TABLE {schema}.hidden (unseen int);
        GRANT USAGE ON SCHEMA {schema} TO "{reader.user}";
        GRANT SELECT (mac, "odd ""name %s") ON {schema}.visits TO "{reader.user}";
        GRANT SELECT ON {schema}.daily TO "{reader.user}";
        INSERT INTO {schema}.visits VALUES ('aa', 7);
    """)
    try:
        there = {schema, "visits", "mac", 'odd "name %s', "daily", "device"}
        # Not its own, not granted, dropped, of the server, unquoted otherwise, and no name at all.
        absent = {"hidden", "unseen", "secret", "gone", "pg_authid", "rolname", "ctid", "Visits"}
        absent |= {"visits_mac_idx", "'; DROP TABLE visits; --"}
        assert query.existing_names(reader, there | absent) == there
        text = sql.render(
            "SELECT {{ c | identifier }} AS v FROM {{ t | identifier }} AS t",
            dialect="postgresql",
            params={"c": 't.odd "name %s', "t": f"{schema}.visits"},
            existing_names=lambda names: query.existing_names(reader, names) | {"t"},
        )
        assert table(reader, text).column("v").to_pylist() == [7]
    finally:
        owner.execute(f"DROP SCHEMA {schema} CASCADE")
