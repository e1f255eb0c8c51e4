"""Partitioned assets: the parts there are, their union, and what becomes of a part that fails."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection

from concepts import materialize, partition_runs, partitioning
from concepts.models import Index, PartitionExecution
from tests.concepts.conftest import Campus
from tests.conftest import body
from tippers import sql, storage
from tippers.runs import claims, engine
from tippers.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)  # runs read over their own connection

# Edges of hours, days, weeks, months and ranges; a leap day; strings that break SQL and URLs.
VISITS: list[tuple[Any, ...]] = [
    # id, at, place, score
    (-1000, "2023-12-31 23:59:59.999999", "Library", 1.5),
    (-1, "2024-01-01 00:00:00", "library", "1.50"),
    (0, "2024-01-31 23:00:00", "it's", 0.1),
    (999, "2024-02-01 00:00:00", 'say "hi"', 0.1),
    (1000, "2024-02-29 00:00:00", "back\\slash", 7.25),
    (1000, "2024-02-29 23:59:59", "50% {{ off }}", 2.0),
    (1999, "2024-03-01 00:00:00", "", 2.0),
    (2000, "2024-03-03 23:59:59", " ", 3.0),
    (2500, "2024-03-04 00:00:00", "a/b", 3.0),
    (2**40, "2024-03-31 01:30:00", "__null__", 3.0),
    (2**63 - 1, "2024-10-27 01:30:00", "Bibliothèque ☃", 3.0),
    (-(2**63), "2024-12-31 23:59:59", "NULL", 3.0),
    (None, None, None, None),
    (None, None, None, None),
]
ALL = (
    "SELECT id, at, at::date AS day, at AT TIME ZONE 'Asia/Seoul' AS utc, place, score FROM visits"
)


@pytest.fixture
def visits(campus: Campus) -> Iterator[Campus]:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS visits")
        cursor.execute("CREATE TABLE visits (id bigint, at timestamp, place text, score numeric)")
        cursor.executemany("INSERT INTO visits VALUES (%s, %s, %s, %s)", VISITS)
    yield campus
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE visits")


def partitioned(campus: Campus, kind: str, query: str = ALL, **config: Any) -> int:
    index = campus.index(
        query, name=f"{kind} {config}", partition_type=kind, partition_config=config
    )
    pk: int = index["index_id"]
    return pk


def parts(campus: Campus, pk: int, family: str = "indexes") -> list[dict[str, Any]]:
    response = campus.api.get(f"{campus.root}/{family}/{pk}/partitions")
    assert response.status_code == 200, response.content
    listed: list[dict[str, Any]] = body(response)
    return listed


def keys(campus: Campus, pk: int) -> list[str]:
    return [part["partition_key"] for part in parts(campus, pk)]


def run_again(campus: Campus, pk: int, key: str) -> Any:
    path = f"{campus.root}/indexes/{pk}/partitions/{quote(key, safe='')}/run"
    return campus.api.post(path)


def rows_of(pk: int) -> Counter[tuple[Any, ...]]:
    table = Index.objects.get(pk=pk).table()
    return Counter(tuple(row.values()) for row in table.to_pylist())


def execute(sql: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


# The union


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (
            "time",
            {"column": "at", "granularity": "monthly"},
            ["2023-12", "2024-01", "2024-02", "2024-03", "2024-10", "2024-12", "__null__"],
        ),
        (
            "time",
            {"column": "at", "granularity": "weekly"},
            ["2023-W52", "2024-W01", "2024-W05", "2024-W09", "2024-W10", "2024-W13", "2024-W43",
             "2025-W01", "__null__"],
        ),
        ("time", {"column": "day", "granularity": "daily"}, None),
        ("time", {"column": "day", "granularity": "hourly"}, None),
        ("time", {"column": "utc", "granularity": "hourly"}, None),
        (
            "id_range",
            {"column": "id", "size": 1000},
            ["-9223372036854776000..-9223372036854775001", "-1000..-1", "0..999", "1000..1999",
             "2000..2999", "1099511627000..1099511627999",
             "9223372036854775000..9223372036854775999", "__null__"],
        ),
        ("categorical", {"column": "place"}, None),
        ("categorical", {"column": "score"}, ["0.1", "1.5", "1.50", "2.0", "3.0", "7.25", "__null__"]),
        ("categorical", {"column": "id"}, None),
        ("categorical", {"column": "at"}, None),
    ],
)  # fmt: skip
def test_the_union_of_the_partitions_is_the_unpartitioned_result(
    visits: Campus, kind: str, config: dict[str, Any], expected: list[str] | None
) -> None:
    whole = visits.materialized_index(name="whole", sql=ALL)
    pk = partitioned(visits, kind, **config)
    run = visits.materialize("indexes", pk)
    assert (run["status"], run["error_message"]) == ("SUCCESS", None)

    assert rows_of(pk) == rows_of(whole["index_id"])
    index = visits.get("indexes", pk)
    assert (index["row_count"], index["is_stale"]) == (len(VISITS), False)
    assert index["dagster_run_id"] == run["run_id"]
    assert [(c["name"], c["dtype"], c["nulls"]) for c in index["column_stats"]] == [
        (c["name"], c["dtype"], c["nulls"]) for c in whole["column_stats"]
    ]
    listed = parts(visits, pk)
    assert {part["status"] for part in listed} == {"COMPLETED"}
    assert sum(part["row_count"] for part in listed) == len(VISITS)
    assert min(part["row_count"] for part in listed) > 0
    assert (listed[-1]["partition_key"], listed[-1]["row_count"]) == ("__null__", 2)
    assert run["progress"]["done"] == run["progress"]["total"] == len(listed) + 2
    if expected is not None:
        assert [part["partition_key"] for part in listed] == expected


def test_categories_are_named_by_their_values_and_each_can_be_run_by_its_name(
    visits: Campus,
) -> None:
    pk = partitioned(visits, "categorical", column="place")
    visits.materialize("indexes", pk)
    named = {*(place for *_, place, _ in VISITS if place and place != "__null__")}
    assert set(keys(visits, pk)) == named | {"__empty__", "____null__", "__null__"}
    for key in ("a/b", "it's", "__empty__", "____null__", "50% {{ off }}"):
        answer = run_again(visits, pk, key)
        assert (answer.status_code, body(answer)["partition_key"]) == (200, key)
        visits.perform_all()
    assert visits.get("indexes", pk)["row_count"] == len(VISITS)


def test_an_empty_result_is_a_product_with_its_columns(visits: Campus) -> None:
    pk = partitioned(visits, "categorical", query=f"{ALL} WHERE id = 7", column="place")
    assert visits.materialize("indexes", pk)["status"] == "SUCCESS"
    assert [(p["partition_key"], p["row_count"]) for p in parts(visits, pk)] == [("__null__", 0)]
    assert Index.objects.get(pk=pk).table().column_names[:2] == ["id", "at"]
    # And when rows come, they are found.
    Index.objects.get(pk=pk)
    execute("INSERT INTO visits VALUES (7, NULL, 'new', NULL)")
    assert visits.materialize("indexes", pk)["status"] == "SUCCESS"
    assert keys(visits, pk) == ["new"]


@pytest.mark.parametrize("inline", [10_000, 2])  # in the query, or in a temporary table
def test_rules_and_features_are_partitioned_alike(
    visits: Campus, monkeypatch: pytest.MonkeyPatch, inline: int
) -> None:
    monkeypatch.setattr(sql, "MAX_INLINE_VALUES", inline)
    index_id = visits.materialized_index()["index_id"]
    query = "SELECT mac, space, began FROM wifi WHERE mac IN (:index_values) ORDER BY began -- all"
    for family, pk_name in (("rules", "r_id"), ("features", "feature_id")):
        asset = visits.create(
            family,
            name="visits",
            index_id=index_id,
            sql_query=query,
            partition_type="id_range",
            partition_config={"column": "space", "size": 2},
        )
        assert visits.materialize(family, asset[pk_name])["error_message"] is None
        listed = parts(visits, asset[pk_name], family)
        assert [(p["partition_key"], p["row_count"]) for p in listed] == [("0..1", 3), ("2..3", 3)]
        assert visits.get(family, asset[pk_name])["row_count"] == 6


# How it is run


def test_partitions_are_runs_of_their_own_that_workers_take_at_the_same_time(
    visits: Campus,
) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    parent = Run.objects.get(pk=visits.launch("indexes", pk)["dagster_run_id"])
    assert (parent.job, parent.status) == ("materialize_partitions", "STARTED")
    assert engine.perform_next("short")  # the plan
    assert {part["status"] for part in parts(visits, pk)} == {"PENDING"}
    held = [claims.claim("short", f"worker {number}") for number in range(7)]
    assert {run.parent_id for run in held if run} == {parent.pk}
    assert [part["status"] for part in parts(visits, pk)] == ["RUNNING"] * 7
    assert not engine.perform_next("short")  # the union waits for all of them
    for run in held:
        assert run is not None
        engine.perform(run)
    assert visits.perform_all() == 1
    parent.refresh_from_db()
    assert parent.status == "SUCCESS"


def test_workers_side_by_side_make_each_partition_once_and_one_union(visits: Campus) -> None:
    pk = partitioned(visits, "categorical", column="id")
    parent = Run.objects.get(pk=visits.launch("indexes", pk)["dagster_run_id"])
    deadline = time.monotonic() + 60

    def work() -> None:
        while Run.objects.filter(pk=parent.pk, status="STARTED").exists():
            assert time.monotonic() < deadline
            if not engine.perform_next("short"):
                time.sleep(0.01)  # as a worker that waits for the next hint
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    parent.refresh_from_db()
    assert (parent.status, parent.error_message) == ("SUCCESS", None)
    assert Counter(parent.children.values_list("job", "attempt")) == {
        ("plan_partitions", 1): 1,
        ("materialize_partition", 1): len({number for number, *_ in VISITS}),
        ("unite_partitions", 1): 1,
    }
    assert visits.get("indexes", pk)["row_count"] == len(VISITS)


def test_a_long_list_is_launched_a_few_at_a_time(
    visits: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concepts.partition_runs.AT_ONCE", 3)
    pk = partitioned(visits, "categorical", column="id")
    visits.launch("indexes", pk)
    assert engine.perform_next("short")
    waiting = Run.objects.filter(job="materialize_partition", status="PENDING")
    assert waiting.count() == 3
    assert engine.perform_next("short")
    assert waiting.count() == 3
    visits.perform_all()
    assert visits.get("indexes", pk)["row_count"] == len(VISITS)


def test_the_list_of_partitions_is_paged(visits: Campus) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    assert parts(visits, pk) == []
    visits.materialize("indexes", pk)
    page = visits.api.get(f"{visits.root}/indexes/{pk}/partitions?skip=1&limit=2")
    assert [part["partition_key"] for part in body(page)] == ["2024-01", "2024-02"]
    assert page["X-Total-Count"] == "7"
    part = body(page)[0]
    assert part.keys() == {
        "partition_key", "status", "row_count", "storage_path", "started_at", "completed_at",
        "error_message", "dagster_run_id",
    }  # fmt: skip
    assert part["started_at"] <= part["completed_at"]
    assert (part["row_count"], part["error_message"]) == (2, None)


def test_a_partitioned_asset_is_a_child_of_its_concepts_materialization(visits: Campus) -> None:
    pk = visits.materialized_index(name="places", sql=ALL)["index_id"]
    rule = visits.create(
        "rules",
        name="ids",
        index_id=pk,
        sql_query="SELECT id, place FROM visits WHERE id IN (:index_values)",
    )
    config = {"column": "place"}
    visits.patch("indexes", pk, partition_type="categorical", partition_config=config)
    outer = body(visits.api.post(f"{visits.root}/materialize"))["dagster_run_id"]
    inner = visits.get("indexes", pk)["dagster_run_id"]
    assert visits.run(inner)["parent"] == outer
    visits.perform_all()
    assert visits.run(inner)["status"] == visits.run(outer)["status"] == "SUCCESS"
    assert visits.get("indexes", pk)["is_materialized"] is True
    after = visits.get("rules", rule["r_id"])
    assert (after["is_materialized"], after["is_stale"]) == (True, False)


# What cannot be cut


@pytest.mark.parametrize(
    ("kind", "config", "sentence"),
    [
        ("time", {"column": "when", "granularity": "daily"}, "no column when; it has: id, at, day"),
        ("time", {"column": "place", "granularity": "daily"}, "string; time needs a date"),
        ("id_range", {"column": "score", "size": 10}, "double; id_range needs whole numbers"),
        ("id_range", {"column": "at", "size": 10}, "id_range needs whole numbers"),
    ],
)
def test_a_column_that_cannot_be_cut_is_refused_in_words(
    visits: Campus, kind: str, config: dict[str, Any], sentence: str
) -> None:
    run = visits.materialize("indexes", partitioned(visits, kind, **config))
    assert run["status"] == "FAILURE"
    assert sentence in run["error_message"]


@pytest.mark.parametrize(
    ("kind", "config", "advice"),
    [
        ("time", {"column": "at", "granularity": "daily"}, "a coarser granularity"),
        ("id_range", {"column": "id", "size": 1}, "a larger size"),
        ("categorical", {"column": "place"}, "a column with fewer values"),
    ],
)
def test_too_many_partitions_are_refused_with_what_to_choose(
    visits: Campus,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    config: dict[str, Any],
    advice: str,
) -> None:
    monkeypatch.setattr(partitioning, "MAX_PARTITIONS", 5)
    pk = partitioned(visits, kind, **config)
    run = visits.materialize("indexes", pk)
    assert run["status"] == "FAILURE"
    assert f"more than 5 partitions; choose {advice}" in run["error_message"]
    assert parts(visits, pk) == []


# What fails, and is run again

# Fails in the partition of one place while it holds a zero, and nowhere else.
SHARES = "SELECT id, place, 1 / CASE WHEN place = 'it''s' THEN id ELSE 1 END AS share FROM visits"


def test_a_failed_partition_leaves_the_last_version_and_is_run_again_alone(
    visits: Campus,
) -> None:
    pk = partitioned(visits, "categorical", query=SHARES, column="place")
    execute("UPDATE visits SET id = 5 WHERE place = 'it''s'")
    assert visits.materialize("indexes", pk)["status"] == "SUCCESS"
    before = visits.get("indexes", pk)

    execute("UPDATE visits SET id = 0 WHERE place = 'it''s'")
    execute("INSERT INTO visits VALUES (4, NULL, 'Library', NULL)")
    run = visits.materialize("indexes", pk)
    assert run["status"] == "FAILURE"
    assert "1 of 13 partitions failed" in run["error_message"]
    assert "it's: The database says: division by zero" in run["error_message"]
    after = visits.get("indexes", pk)
    assert after["storage_path"] == before["storage_path"]
    assert after["row_count"] == len(VISITS)
    listed = {part["partition_key"]: part for part in parts(visits, pk)}
    failed = listed["it's"]
    assert (failed["status"], failed["row_count"]) == ("FAILED", None)
    assert "division by zero" in failed["error_message"]
    others = {part["status"] for key, part in listed.items() if key != "it's"}
    assert others == {"COMPLETED"}

    # As long as nothing is mended it fails again, with nothing else run.
    runs = Run.objects.count()
    again = body(run_again(visits, pk, "it's"))
    visits.perform_all()
    assert Run.objects.count() == runs + 2
    assert visits.run(again["dagster_run_id"])["status"] == "FAILURE"

    execute("UPDATE visits SET id = 5 WHERE place = 'it''s'")
    again = body(run_again(visits, pk, "it's"))
    assert again["status"] == "STARTED"
    visits.perform_all()
    assert visits.run(again["dagster_run_id"])["status"] == "SUCCESS"
    whole = visits.get("indexes", pk)
    assert (whole["row_count"], whole["is_stale"]) == (len(VISITS) + 1, False)
    assert whole["storage_path"] != before["storage_path"]
    now = {part["partition_key"]: part["dagster_run_id"] for part in parts(visits, pk)}
    then = {key: part["dagster_run_id"] for key, part in listed.items()}
    assert {key for key in now if now[key] != then[key]} == {"it's"}


def test_the_whole_becomes_current_with_the_last_of_several_that_are_run_again(
    visits: Campus,
) -> None:
    pk = partitioned(
        visits, "categorical", query=SHARES.replace("= 'it''s'", "< 'c'"), column="place"
    )
    execute("UPDATE visits SET place = 'c' || place WHERE place >= 'c' OR place < 'a'")
    run = visits.materialize("indexes", pk)
    assert run["status"] == "SUCCESS"
    execute("UPDATE visits SET id = 0 WHERE place < 'c'")
    visits.materialize("indexes", pk)
    failed = [part["partition_key"] for part in parts(visits, pk) if part["status"] == "FAILED"]
    assert len(failed) == 2
    execute("UPDATE visits SET id = 9 WHERE place < 'c'")
    first = body(run_again(visits, pk, failed[0]))["dagster_run_id"]
    assert body(run_again(visits, pk, failed[0]))["dagster_run_id"] == first  # it is under way
    last = body(run_again(visits, pk, failed[1]))["dagster_run_id"]
    held = [claims.claim("short", "one"), claims.claim("short", "two")]
    for run in held:
        assert run is not None
        engine.perform(run)
    assert visits.run(first)["status"] == "SUCCESS"
    assert failed[1] in visits.run(first)["progress"]["message"]
    visits.perform_all()
    assert visits.run(last)["status"] == "SUCCESS"
    assert visits.get("indexes", pk)["dagster_run_id"] == last
    assert Index.objects.get(pk=pk).table(["share"]).column("share").null_count == 0
    assert Run.objects.filter(job="unite_partitions", status="SUCCESS").count() == 2


def test_a_partition_that_is_run_again_takes_its_new_rows_into_the_whole(visits: Campus) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    visits.materialize("indexes", pk)
    execute("INSERT INTO visits VALUES (5, '2024-02-29 12:00', 'late', NULL)")
    execute("INSERT INTO visits VALUES (5, '2024-03-01 12:00', 'not asked for', NULL)")
    run_again(visits, pk, "2024-02")
    assert visits.get("indexes", pk)["row_count"] == len(VISITS)  # the last version, meanwhile
    visits.perform_all()
    places = Index.objects.get(pk=pk).table(["place"]).column("place").to_pylist()
    assert "late" in places
    assert "not asked for" not in places


def test_what_cannot_be_run_again_is_told_why(visits: Campus) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    answer = run_again(visits, pk, "2024-02")
    assert answer.status_code == 404
    assert "no partition 2024-02" in body(answer)["detail"]
    visits.launch("indexes", pk)
    assert engine.perform_next("short")
    answer = run_again(visits, pk, "2024-02")
    assert (answer.status_code, body(answer)["code"]) == (409, "conflict")
    visits.perform_all()
    connection_path = f"/database-connections/{visits.conn_id}"
    assert visits.api.patch(connection_path, {"host": "localhost"}).status_code == 200
    answer = run_again(visits, pk, "2024-02")
    assert answer.status_code == 409
    assert "changed" in body(answer)["detail"]


def test_a_cancelled_materialization_leaves_the_last_version_current(visits: Campus) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    visits.materialize("indexes", pk)
    before = visits.get("indexes", pk)
    parent = visits.launch("indexes", pk)["dagster_run_id"]
    engine.perform_next("short")
    engine.perform_next("short")
    assert visits.api.post(f"/dagster/runs/{parent}/cancel").status_code == 200
    assert visits.perform_all() == 0
    assert visits.get("indexes", pk)["storage_path"] == before["storage_path"]
    statuses = [part["status"] for part in parts(visits, pk)]
    assert statuses.count("COMPLETED") == 1
    assert set(statuses) == {"COMPLETED", "CANCELLED"}
    assert visits.materialize("indexes", pk)["status"] == "SUCCESS"


def test_a_changed_definition_takes_the_partitions_away_and_their_runs_end(
    visits: Campus,
) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    parent = visits.launch("indexes", pk)["dagster_run_id"]
    engine.perform_next("short")
    visits.patch("indexes", pk, partition_config={"column": "at", "granularity": "weekly"})
    assert parts(visits, pk) == []
    newer = visits.launch("indexes", pk)["dagster_run_id"]
    visits.perform_all()
    assert visits.run(parent)["status"] == "FAILURE"
    assert "changed" in visits.run(parent)["error_message"]
    assert visits.run(newer)["status"] == "SUCCESS"
    assert visits.get("indexes", pk)["row_count"] == len(VISITS)
    assert len(parts(visits, pk)) == 9


def test_a_union_of_parts_that_are_run_again_meanwhile_is_discarded(
    visits: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    visits.materialize("indexes", pk)
    first = body(run_again(visits, pk, "2024-01"))["dagster_run_id"]
    assert engine.perform_next("short")
    later: list[str] = []

    def counted(batches: Any, run: engine.RunHandle) -> Any:
        if not later:
            later.append(body(run_again(visits, pk, "2024-02"))["dagster_run_id"])
            visits.perform_all()
        return materialize.counted(batches, run)

    monkeypatch.setattr(partition_runs, "counted", counted)
    execute("INSERT INTO visits VALUES (5, '2024-02-29 12:00', 'late', NULL)")
    visits.perform_all()
    assert visits.run(later[0])["status"] == "SUCCESS"
    assert "run anew meanwhile" in visits.run(first)["error_message"]
    assert visits.get("indexes", pk)["row_count"] == len(VISITS) + 1


def test_deleting_an_asset_deletes_its_partitions(visits: Campus) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    visits.materialize("indexes", pk)
    assert visits.api.delete(f"{visits.root}/indexes/{pk}").status_code == 204
    assert not PartitionExecution.objects.exists()


def test_each_part_is_an_object_of_its_own_beside_the_whole(visits: Campus) -> None:
    pk = partitioned(visits, "time", column="at", granularity="monthly")
    visits.materialize("indexes", pk)
    stored = {each.key for each in storage.listed(f"indexes/index_{pk}/")}
    paths = [part["storage_path"] for part in parts(visits, pk)]
    paths.append(visits.get("indexes", pk)["storage_path"])
    assert stored == {storage.key_of(path) for path in paths}
