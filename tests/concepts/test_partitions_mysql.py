"""The parts of a query on a real MariaDB, and that they add up to its result."""

from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from concepts.models import Index
from tests.concepts.conftest import Campus
from tests.conftest import body
from tests.mariadb import MariaDB

pytestmark = pytest.mark.django_db(transaction=True)

VISITS: list[tuple[Any, ...]] = [
    # id, big, at, day, place, score
    (-1000, 0, "2023-12-31 23:59:59.999999", "2023-12-31", "Library", "1.50"),
    (-1, 999, "2024-01-01 00:00:00", "2024-01-01", "library", "0.10"),
    (0, 1000, "2024-02-29 00:00:00", "2024-02-29", "it's", "0.10"),
    (999, 2**64 - 1, "2024-02-29 23:59:59.5", "2024-02-29", "back\\slash", "7.25"),
    (1000, 2**63, "2024-03-01 00:00:00", "2024-03-01", 'say "hi" {{ 1 }} 100%', "7.25"),
    (-(2**63), 5, "2024-10-27 01:30:00", "2024-10-27", "", "7.25"),
    (2**63 - 1, 6, "2024-12-30 00:00:00", "2024-12-30", "Bibliothèque ☃", "7.25"),
    (None, None, None, None, None, None),
]
ALL = "SELECT id, big, at, day, place, score, score * 1e0 AS real_score FROM visits"


@pytest.fixture
def visits(campus: Campus, mariadb: MariaDB, mariadb_database: str) -> Campus:
    with closing(mariadb.connect(mariadb_database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE visits (id bigint, big bigint unsigned, at datetime(6), day date, "
            "place varchar(100), score decimal(10, 2))"
        )
        cursor.executemany("INSERT INTO visits VALUES (%s, %s, %s, %s, %s, %s)", VISITS)
    answer = campus.api.post(
        "/database-connections",
        {
            "name": "mariadb",
            "connection_type": "mysql",
            "host": "127.0.0.1",
            "port": mariadb.port,
            "database": mariadb_database,
            "user": mariadb.user,
            "password": mariadb.password,
        },
    )
    assert answer.status_code == 201, answer.content
    campus.conn_id = body(answer)["conn_id"]
    return campus


def rows_of(pk: int) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row.values()) for row in Index.objects.get(pk=pk).table().to_pylist())


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (
            "time",
            {"column": "at", "granularity": "hourly"},
            ["2023-12-31T23", "2024-01-01T00", "2024-02-29T00", "2024-02-29T23", "2024-03-01T00",
             "2024-10-27T01", "2024-12-30T00"],
        ),
        (
            "time",
            {"column": "day", "granularity": "weekly"},
            ["2023-W52", "2024-W01", "2024-W09", "2024-W43", "2025-W01"],
        ),
        (
            "id_range",
            {"column": "id", "size": 1000},
            ["-9223372036854776000..-9223372036854775001", "-1000..-1", "0..999", "1000..1999",
             "9223372036854775000..9223372036854775999"],
        ),
        (
            "id_range",
            {"column": "big", "size": 1000},
            ["0..999", "1000..1999", "9223372036854775000..9223372036854775999",
             "18446744073709551000..18446744073709551999"],
        ),
        ("categorical", {"column": "score"}, ["0.10", "1.50", "7.25"]),
        ("categorical", {"column": "place"}, None),  # Library and library are one there
        ("categorical", {"column": "at"}, None),
    ],
)  # fmt: skip
def test_the_union_of_the_partitions_is_the_unpartitioned_result(
    visits: Campus, kind: str, config: dict[str, Any], expected: list[str] | None
) -> None:
    whole = visits.materialized_index(name="whole", sql=ALL)["index_id"]
    pk = visits.index(ALL, name="parts", partition_type=kind, partition_config=config)["index_id"]
    assert visits.materialize("indexes", pk)["error_message"] is None
    assert rows_of(pk) == rows_of(whole)
    listed = body(visits.api.get(f"{visits.root}/indexes/{pk}/partitions"))
    assert sum(part["row_count"] for part in listed) == len(VISITS)
    assert (listed[-1]["partition_key"], listed[-1]["row_count"]) == ("__null__", 1)
    if expected is not None:
        assert [part["partition_key"] for part in listed[:-1]] == expected
