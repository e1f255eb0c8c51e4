"""Materialization from definition to product, and what keeps a product true."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from django.db import connection

from concepts import materialize as subject
from concepts.models import Index, Rule
from tests.concepts.conftest import SESSIONS, Campus
from tests.conftest import body
from tippers import storage
from tippers.errors import NotPossibleNow
from tippers.runs import engine

pytestmark = pytest.mark.django_db(transaction=True)  # runs read over their own connection

MACS = ["aa", "bb", "cc", "it's"]
HOURS = (
    "SELECT mac, count(*) AS sessions, count(DISTINCT space) AS spaces, "
    "sum(extract(epoch FROM ended - began)) / 3600 AS hours "
    "FROM wifi WHERE mac IN (:index_values) GROUP BY mac ORDER BY mac"
)


def expected_hours() -> list[dict[str, Any]]:
    """What HOURS must give, counted here."""
    spaces = defaultdict(set)
    hours: dict[str, list[float]] = defaultdict(list)
    for mac, space, began, ended in SESSIONS:
        if mac is not None:
            spaces[mac].add(space)
            length = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
            hours[mac].append(length.total_seconds() / 3600)
    return [
        {
            "mac": mac,
            "sessions": len(hours[mac]),
            "spaces": len(spaces[mac]),
            "hours": pytest.approx(sum(hours[mac])),
        }
        for mac in sorted(hours)
    ]


def test_an_index_a_rule_and_a_feature_are_materialized_one_upon_the_other(campus: Campus) -> None:
    index_id = campus.index("SELECT mac, min(began) AS first FROM wifi GROUP BY mac ORDER BY mac")[
        "index_id"
    ]
    launched = campus.launch("indexes", index_id)
    assert launched.keys() == {"index_id", "dagster_run_id", "status"}
    assert (launched["index_id"], launched["status"]) == (index_id, "STARTED")
    campus.perform_all()
    run = campus.run(launched["dagster_run_id"])
    assert (run["status"], run["error_message"]) == ("SUCCESS", None)
    assert run["progress"]["done"] == 5

    index = campus.get("indexes", index_id)
    assert index["is_materialized"] is True
    assert index["row_count"] == 5  # the null is a row, too
    assert index["dagster_run_id"] == launched["dagster_run_id"]
    assert index["is_stale"] is False
    assert index["storage_path"].startswith("file:///")
    assert f"/indexes/index_{index_id}/" in index["storage_path"]
    assert [(c["name"], c["nulls"]) for c in index["column_stats"]] == [("mac", 1), ("first", 0)]
    assert index["byte_size"] > 0

    r_id = campus.create(
        "rules", name="hours", index_id=index_id, sql_query=HOURS, index_column="mac"
    )["r_id"]
    assert campus.materialize("rules", r_id)["status"] == "SUCCESS"
    assert campus.rows("rules", r_id) == expected_hours()

    feature_id = campus.create(
        "features", name="hours", index_id=index_id, sql_query=HOURS, columns=["hours"]
    )["feature_id"]
    assert campus.materialize("features", feature_id)["status"] == "SUCCESS"
    assert campus.rows("features", feature_id) == expected_hours()

    rule = Rule.objects.get(pk=r_id)
    assert rule.key_column == "mac"
    assert rule.table(["spaces", "mac"]).column_names == ["spaces", "mac"]
    assert Index.objects.get(pk=index_id).table().column("mac").to_pylist() == [*MACS, None]


def test_template_parameters_are_values_and_never_sql(campus: Campus) -> None:
    index_id = campus.index(
        "SELECT DISTINCT mac FROM wifi WHERE space = {{ space }} AND mac <> {{ not_this }}",
        query_template_params={"space": 2, "not_this": "bb' OR '1'='1"},
    )["index_id"]
    assert campus.materialize("indexes", index_id)["status"] == "SUCCESS"
    assert {row["mac"] for row in campus.rows("indexes", index_id)} == {"bb", "it's"}


def test_identifier_chooses_a_column_that_the_database_has(campus: Campus) -> None:
    def index(name: str, column: str) -> dict[str, Any]:
        text = "SELECT DISTINCT {{ c | identifier }} AS v FROM {{ t | identifier }} ORDER BY 1"
        params = {"c": column, "t": "public.wifi"}
        found: dict[str, Any] = campus.index(text, name=name, query_template_params=params)
        return found

    index_id = index("spaces", "space")["index_id"]
    assert campus.materialize("indexes", index_id)["status"] == "SUCCESS"
    spaces = sorted({space for _, space, _, _ in SESSIONS})
    assert [row["v"] for row in campus.rows("indexes", index_id)] == spaces
    run = campus.materialize("indexes", index("none", 'space", pg_sleep(9)')["index_id"])
    assert run["status"] == "FAILURE"
    assert "no schema, table, view or column" in run["error_message"]


TYPED = [
    "space",
    "space::bigint * 5000000000",
    "space / 4.0",
    "(space / 3.0)::float8",
    "began",
    "began::timestamptz",
    "began::date",
    "began::time",
    "mac",
    "(space = 1)",
    "md5(mac)::uuid",
    "('10.0.0.' || space)::inet",
    "('08:00:2b:01:02:0' || space)::macaddr",
]


def test_index_values_keep_their_type(campus: Campus) -> None:
    columns = ", ".join(f"{made_of} AS c{number}" for number, made_of in enumerate(TYPED))
    index_id = campus.index(f"SELECT {columns} FROM wifi")["index_id"]
    assert campus.materialize("indexes", index_id)["error_message"] is None
    runs = {}
    for number, made_of in enumerate(TYPED):
        feature = campus.create(
            "features",
            name=made_of,
            index_id=index_id,
            index_column=f"c{number}",
            sql_query=f"SELECT mac AS c{number} FROM wifi WHERE {made_of} IN (:index_values)",
        )
        runs[made_of] = campus.launch("features", feature["feature_id"])["dagster_run_id"]
    campus.perform_all()
    errors = {made_of: campus.run(run)["error_message"] for made_of, run in runs.items()}
    assert errors == dict.fromkeys(TYPED)
    rows = {
        feature["name"]: feature["row_count"]
        for feature in body(campus.api.get(f"{campus.root}/features"))
    }
    # Every row finds itself, save the one whose mac, and what is made of it, is null.
    assert rows == {made_of: 6 if "mac" in made_of.split("::")[0] else 7 for made_of in TYPED}


def test_an_empty_index_gives_an_empty_result_with_its_columns(campus: Campus) -> None:
    index_id = campus.materialized_index(sql="SELECT mac FROM wifi WHERE space = 99")["index_id"]
    r_id = campus.create("rules", name="r", index_id=index_id, sql_query=HOURS)["r_id"]
    assert campus.materialize("rules", r_id)["status"] == "SUCCESS"
    preview = body(campus.api.get(f"{campus.root}/rules/{r_id}/preview"))
    assert (preview["row_count"], preview["rows"]) == (0, [])
    assert preview["columns"] == ["mac", "sessions", "spaces", "hours"]


def test_a_preview_shows_columns_types_and_as_many_rows_as_asked_for(campus: Campus) -> None:
    index_id = campus.index(
        "SELECT mac, space, began, ended > began AS lasted, 'NaN'::float8 AS nothing "
        "FROM wifi WHERE mac IS NOT NULL ORDER BY began, mac"
    )["index_id"]
    path = f"{campus.root}/indexes/{index_id}/preview"
    unmaterialized = campus.api.get(path)
    assert (unmaterialized.status_code, body(unmaterialized)["code"]) == (409, "conflict")
    campus.materialize("indexes", index_id)

    preview = body(campus.api.get(f"{path}?limit=2"))
    assert preview["index_id"] == index_id
    assert preview["columns"] == ["mac", "space", "began", "lasted", "nothing"]
    assert preview["types"][1] == "int32"
    assert preview["row_count"] == 6
    assert [row["mac"] for row in preview["rows"]] == ["aa", "bb"]
    first = preview["rows"][0]
    assert first["began"].startswith("2024-01-01T00:00:00")
    assert (first["space"], first["lasted"], first["nothing"]) == (1, True, None)
    assert campus.api.get(f"{path}?limit=0").status_code == 400


# What cannot be done


def failure(run: Any) -> str:
    assert run["status"] == "FAILURE"
    return str(run["error_message"])


def test_a_failing_query_leaves_the_last_version_readable(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    before = campus.get("indexes", index_id)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE wifi RENAME COLUMN mac TO mac_address")
    message = failure(campus.materialize("indexes", index_id))
    assert "mac" in message
    after = campus.get("indexes", index_id)
    assert after["storage_path"] == before["storage_path"]
    assert after["row_count"] == 5
    assert len(campus.rows("indexes", index_id)) == 5
    assert [each.key for each in storage.listed("indexes/")] == [
        storage.key_of(before["storage_path"])
    ]


def test_a_column_that_a_feature_promises_and_the_result_lacks_fails_by_name(
    campus: Campus,
) -> None:
    index_id = campus.materialized_index()["index_id"]
    feature_id = campus.create(
        "features", name="f", index_id=index_id, sql_query=HOURS, columns=["hours", "days"]
    )["feature_id"]
    message = failure(campus.materialize("features", feature_id))
    assert "days" in message
    assert "sessions" in message  # the columns there are
    assert [each.key for each in storage.listed("features/")] == []


def test_two_columns_of_one_name_fail_by_name(campus: Campus) -> None:
    index_id = campus.index("SELECT mac, space AS mac FROM wifi")["index_id"]
    assert "more than one column mac" in failure(campus.materialize("indexes", index_id))


def test_an_index_column_that_is_not_there_is_an_error_that_lists_those_that_are(
    campus: Campus,
) -> None:
    index_id = campus.index("SELECT DISTINCT mac, space FROM wifi")["index_id"]
    definition = {"index_id": index_id, "sql_query": HOURS, "index_column": "device"}
    # Before the index is materialized nobody can know; it shows when the feature runs.
    feature_id = campus.create("features", name="early", **definition)["feature_id"]
    campus.materialize("indexes", index_id)
    message = failure(campus.materialize("features", feature_id))
    assert "no column device" in message
    assert "mac, space" in message
    late = campus.api.post(f"{campus.root}/rules", {"name": "late", **definition})
    assert late.status_code == 400
    assert "mac, space" in body(late)["errors"]["index_column"][0]


def test_a_result_without_the_key_says_so_in_the_log(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    r_id = campus.create(
        "rules",
        name="total",
        index_id=index_id,
        sql_query="SELECT count(*) AS n FROM wifi WHERE mac IN (:index_values)",
    )["r_id"]
    run = campus.materialize("rules", r_id)
    assert run["status"] == "SUCCESS"
    logs = body(campus.api.get(f"/dagster/runs/{run['run_id']}/logs"))["logs"]
    assert [line["level"] for line in logs if "cannot be joined" in line["message"]] == ["WARNING"]


# What keeps a product true


@pytest.mark.parametrize(
    "change",
    [
        {"sql_query": "SELECT 'aa' AS mac"},
        {"query_template_params": {"a": 1}},
        {"partition_type": "categorical", "partition_config": {"column": "mac"}},
    ],
)
def test_a_changed_definition_takes_the_product_away(
    campus: Campus, change: dict[str, Any]
) -> None:
    index_id = campus.materialized_index()["index_id"]
    index = campus.patch("indexes", index_id, **change)
    assert index["is_materialized"] is False
    for field in ("storage_path", "materialized_at", "row_count", "column_stats", "byte_size"):
        assert index[field] is None
    assert campus.api.get(f"{campus.root}/indexes/{index_id}/preview").status_code == 409
    with pytest.raises(NotPossibleNow):
        Index.objects.get(pk=index_id).table()


def test_a_new_connection_takes_the_product_of_an_index_away(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    server = connection.settings_dict
    other = campus.api.post(
        "/database-connections",
        {
            "name": "another",
            "connection_type": "postgresql",
            "host": server["HOST"],
            "port": int(server["PORT"]),
            "database": server["NAME"],
            "user": server["USER"],
            "password": server["PASSWORD"],
        },
    )
    conn_id = body(other)["conn_id"]
    assert campus.patch("indexes", index_id, conn_id=conn_id)["is_materialized"] is False


@pytest.mark.parametrize("change", [{"columns": ["n", "mac"]}, {"index_column": "mac"}])
def test_a_changed_feature_is_no_longer_materialized(
    campus: Campus, change: dict[str, Any]
) -> None:
    index_id = campus.materialized_index()["index_id"]
    sql = "SELECT mac, 1 AS n FROM wifi WHERE mac IN (:index_values)"
    feature_id = campus.create("features", name="f", index_id=index_id, sql_query=sql)["feature_id"]
    campus.materialize("features", feature_id)
    assert campus.get("features", feature_id)["is_materialized"] is True
    assert campus.patch("features", feature_id, **change)["is_materialized"] is False


def test_what_changes_no_result_leaves_the_product_alone(campus: Campus) -> None:
    index = campus.materialized_index()
    renamed = campus.patch("indexes", index["index_id"], name="x", sql_query=index["sql_query"])
    assert renamed["name"] == "x"
    assert renamed["is_materialized"] is True
    assert renamed["storage_path"] == index["storage_path"]


def test_other_content_of_the_index_makes_its_rules_stale_and_the_same_content_does_not(
    campus: Campus,
) -> None:
    index_id = campus.materialized_index()["index_id"]
    r_id = campus.create("rules", name="r", index_id=index_id, sql_query=HOURS)["r_id"]
    campus.materialize("rules", r_id)
    assert campus.get("rules", r_id)["is_stale"] is False

    campus.materialize("indexes", index_id)  # the same rows again
    assert campus.get("rules", r_id)["is_stale"] is False

    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO wifi VALUES ('dd', 1, '2024-01-05', '2024-01-06')")
    campus.materialize("indexes", index_id)
    rule = campus.get("rules", r_id)
    assert (rule["is_materialized"], rule["is_stale"], rule["row_count"]) == (True, True, 4)

    campus.materialize("rules", r_id)
    rule = campus.get("rules", r_id)
    assert (rule["is_stale"], rule["row_count"]) == (False, 5)


def test_a_second_launch_of_the_same_definition_joins_the_first(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    first = campus.launch("indexes", index_id)["dagster_run_id"]
    assert campus.launch("indexes", index_id)["dagster_run_id"] == first
    campus.patch("indexes", index_id, sql_query="SELECT 'aa' AS mac")
    second = campus.launch("indexes", index_id)["dagster_run_id"]
    assert second != first
    campus.perform_all()
    assert campus.get("indexes", index_id)["row_count"] == 1
    assert campus.launch("indexes", index_id)["dagster_run_id"] not in {first, second}


class Meanwhile:
    """Does something once, while the query of the next materialization runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
        self.act, self.real = act, subject.counted
        monkeypatch.setattr(subject, "counted", self)

    def __call__(self, reader: pa.RecordBatchReader, run: engine.RunHandle) -> Any:
        act, self.act = self.act, lambda: None
        act()
        return self.real(reader, run)


def test_a_definition_that_changes_while_it_runs_discards_the_result(
    campus: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_id = campus.index()["index_id"]
    Meanwhile(monkeypatch, lambda: campus.patch("indexes", index_id, sql_query="SELECT 1 AS one"))
    assert "changed while its query ran" in failure(campus.materialize("indexes", index_id))
    assert campus.get("indexes", index_id)["is_materialized"] is False
    assert [each.key for each in storage.listed("indexes/")] == []
    assert campus.materialize("indexes", index_id)["status"] == "SUCCESS"
    assert campus.rows("indexes", index_id) == [{"one": 1}]


def test_an_asset_deleted_while_it_runs_leaves_nothing_behind(
    campus: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_id = campus.index()["index_id"]
    Meanwhile(monkeypatch, lambda: campus.api.delete(campus.root))
    failure(campus.materialize("indexes", index_id))
    assert [each.key for each in storage.listed("indexes/")] == []


def test_a_cancelled_run_leaves_the_last_version_current(
    campus: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = campus.materialized_index()
    launched = campus.launch("indexes", index["index_id"])["dagster_run_id"]

    def cancel() -> None:
        assert campus.api.post(f"/dagster/runs/{launched}/cancel").status_code == 200

    Meanwhile(monkeypatch, cancel)
    campus.perform_all()
    assert campus.run(launched)["status"] == "CANCELLED"
    after = campus.get("indexes", index["index_id"])
    assert after["storage_path"] == index["storage_path"]
    assert [each.key for each in storage.listed("indexes/")] == [
        storage.key_of(index["storage_path"])
    ]


def test_a_later_index_wins_over_a_rule_that_still_ran_on_the_earlier(
    campus: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_id = campus.materialized_index()["index_id"]
    r_id = campus.create("rules", name="r", index_id=index_id, sql_query=HOURS)["r_id"]

    def another_index_and_rule() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO wifi VALUES ('dd', 1, '2024-01-05', '2024-01-06')")
        campus.materialize("indexes", index_id)
        assert campus.materialize("rules", r_id)["status"] == "SUCCESS"

    Meanwhile(monkeypatch, another_index_and_rule)
    assert "changed while its query ran" in failure(campus.materialize("rules", r_id))
    rule = campus.get("rules", r_id)
    assert (rule["row_count"], rule["is_stale"]) == (5, False)
