"""What analysts write gives the same names, types and rows whether it was judged or not."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from pytest_django.fixtures import Settings

from connections import query
from connections.query import Target
from tests.mariadb import MariaDB
from tests.scratch import scratch_database
from tippers import sql

TABLES = Path(__file__).parent / "sql_tables"

SPACE = """CREATE TABLE space (space_id int PRIMARY KEY, name varchar(40), parent_space_id int,
    floor int, capacity int)"""
SPACES = [
    (1, "Main Building", None, None, 0),
    (2, "Lecture Hall", 1, 1, 120),
    (3, "R101", 1, 1, 30),
    (4, "R102", 1, 2, 10),
    (5, "R201 annex", 2, 2, 25),
]
TRAJECTORY = """CREATE TABLE user_ap_trajectory (mac_address varchar(17), space_id int,
    start_time {timestamp}, end_time {timestamp}, {signal} int)"""
SESSIONS = [
    ("aa:00:00:00:00:01", 3, "2024-01-01 09:00", "2024-01-01 11:30", -48),
    ("aa:00:00:00:00:01", 3, "2024-01-01 11:31", "2024-01-01 12:00", -55),
    ("aa:00:00:00:00:01", 4, "2024-01-06 20:00", "2024-01-07 01:00", -71),
    ("aa:00:00:00:00:02", 3, "2024-01-01 10:00", "2024-01-01 10:45", -62),
    ("aa:00:00:00:00:02", 5, "2024-02-29 23:50", "2024-03-01 00:20", -80),
    ("aa:00:00:00:00:03", 2, "2024-01-02 08:15", "2024-01-02 17:15", -59),
]
EVENTS = [
    (1, '{"kind": "door", "detail": {"level": 1, "tags": ["a", "b"]}}', [5, 7, 9]),
    (2, '{"kind": "alarm", "detail": {"level": 3, "tags": ["c"]}}', [1, 2]),
    (3, '{"kind": "door"}', None),
]


def corpus(dialect: str) -> list[str]:
    """The paragraphs of the file without those that are comments alone."""
    text = (TABLES / f"{dialect}_corpus.sql").read_text()
    paragraphs = [each.strip() for each in text.split("\n\n")]
    return [each for each in paragraphs if any(not x.startswith("--") for x in each.splitlines())]


def table(target: Target, text: str) -> pa.Table:
    with query.stream(target, text) as reader:
        return reader.read_all()


def seeded(cursor: Any, *, timestamp: str, signal: str, events: str) -> None:
    cursor.execute(SPACE)
    cursor.execute(TRAJECTORY.format(timestamp=timestamp, signal=signal))
    cursor.execute(events)
    cursor.executemany("INSERT INTO space VALUES (%s, %s, %s, %s, %s)", SPACES)
    cursor.executemany("INSERT INTO user_ap_trajectory VALUES (%s, %s, %s, %s, %s)", SESSIONS)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Target]:
    with scratch_database() as url:
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            events = "CREATE TABLE events (id int, payload jsonb, readings int[])"
            seeded(cursor, timestamp="timestamp", signal="signal", events=events)
            cursor.executemany("INSERT INTO events VALUES (%s, %s, %s)", EVENTS)
            connection.commit()
        yield Target.from_url(url)


@pytest.fixture(scope="module")
def mysql(mariadb: MariaDB) -> Iterator[Target]:
    with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE corpus CHARACTER SET utf8mb4")
        cursor.execute("USE corpus")
        events = "CREATE TABLE events (id INT, payload JSON)"
        seeded(cursor, timestamp="DATETIME", signal="`signal`", events=events)
        cursor.executemany("INSERT INTO events VALUES (%s, %s)", [each[:2] for each in EVENTS])
        yield mariadb.target("corpus")
        cursor.execute("DROP DATABASE corpus")


def check(target: Target, text: str) -> None:
    sql.judge(text, target.dialect)
    rendered = sql.render(text, dialect=target.dialect)
    assert sql.render(rendered, dialect=target.dialect) == rendered
    before, after = table(target, text), table(target, rendered)
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.equals(before)


@pytest.mark.parametrize("text", corpus("postgresql"))
def test_a_query_on_postgresql_is_the_same_query_after_it_was_judged(
    postgresql: Target, settings: Settings, text: str
) -> None:
    settings.ALLOWED_DB_NETWORKS = ["127.0.0.0/8", "::1/128"]
    check(postgresql, text)


@pytest.mark.parametrize("text", corpus("mysql"))
def test_a_query_on_mariadb_is_the_same_query_after_it_was_judged(
    mysql: Target, settings: Settings, text: str
) -> None:
    settings.ALLOWED_DB_NETWORKS = ["127.0.0.0/8", "::1/128"]
    check(mysql, text)


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_the_corpus_is_large(dialect: str) -> None:
    assert len(corpus(dialect)) >= 60
