"""The catalog's entries and numbers."""

import pytest
from pytest_django import DjangoAssertNumQueries

from tests.concepts.conftest import Campus
from tests.conftest import body

pytestmark = pytest.mark.django_db(transaction=True)  # runs read over their own connection

OF_MACS = "SELECT mac, count(*) AS n FROM wifi WHERE mac IN (:index_values) GROUP BY mac"


def furnish(campus: Campus) -> dict[str, int]:
    """Two indexes, three rules and a feature, of which one, two and one are materialized."""
    index_id = campus.materialized_index(sql="SELECT DISTINCT mac FROM wifi WHERE mac < 'i'")[
        "index_id"
    ]
    campus.index(name="later")
    rules = [
        campus.create("rules", name=name, index_id=index_id, sql_query=OF_MACS)["r_id"]
        for name in ("one", "two", "three")
    ]
    feature_id = campus.create("features", name="f", index_id=index_id, sql_query=OF_MACS)[
        "feature_id"
    ]
    for r_id in rules[:2]:
        campus.materialize("rules", r_id)
    campus.materialize("features", feature_id)
    return {"index_id": index_id, "r_id": rules[0], "feature_id": feature_id}


def test_the_catalog_lists_assets_by_kind_and_can_leave_out_what_has_no_data(
    campus: Campus,
) -> None:
    made = furnish(campus)
    catalog = body(campus.api.get(f"{campus.root}/catalog"))
    assert {kind: [entry["name"] for entry in entries] for kind, entries in catalog.items()} == {
        "indexes": ["macs", "later"],
        "rules": ["one", "two", "three"],
        "features": ["f"],
    }
    rule = campus.get("rules", made["r_id"])
    assert catalog["rules"][0] == {
        "id": made["r_id"],
        "name": "one",
        "is_materialized": True,
        "is_stale": False,
        "stale_reason": None,
        "row_count": 3,
        "storage_path": rule["storage_path"],
    }
    materialized = body(campus.api.get(f"{campus.root}/catalog/materialized"))
    assert [entry["name"] for entry in materialized["indexes"]] == ["macs"]
    assert [entry["name"] for entry in materialized["rules"]] == ["one", "two"]


def test_the_catalog_counts_assets_and_rows(campus: Campus) -> None:
    furnish(campus)
    kinds = {
        "indexes": {"total": 2, "materialized": 1, "unmaterialized": 1, "total_rows": 3},
        "rules": {"total": 3, "materialized": 2, "unmaterialized": 1, "total_rows": 6},
        "features": {"total": 1, "materialized": 1, "unmaterialized": 0, "total_rows": 3},
    }
    assert body(campus.api.get(f"{campus.root}/catalog/stats")) == {
        "concept_id": campus.c_id,
        **{kind: counts | {"stale": 0} for kind, counts in kinds.items()},
        "summary": {"total_assets": 5, "materialized_assets": 3, "total_data_rows": 9},
    }


def test_an_empty_concept_counts_nothing(campus: Campus) -> None:
    stats = body(campus.api.get(f"{campus.root}/catalog/stats"))
    nothing = {"total": 0, "materialized": 0, "unmaterialized": 0, "stale": 0, "total_rows": 0}
    assert stats["features"] == nothing
    assert stats["summary"] == {
        "total_assets": 0, "materialized_assets": 0, "total_data_rows": 0,
    }  # fmt: skip


def test_the_catalog_marks_what_is_stale(campus: Campus) -> None:
    made = furnish(campus)
    campus.patch("indexes", made["index_id"], sql_query="SELECT 'aa' AS mac")
    catalog = body(campus.api.get(f"{campus.root}/catalog"))
    assert [entry["is_stale"] for entry in catalog["rules"]] == [True, True, False]
    assert [entry["is_stale"] for entry in catalog["indexes"]] == [False, False]
    stats = body(campus.api.get(f"{campus.root}/catalog/stats"))
    assert [stats[kind]["stale"] for kind in ("indexes", "rules", "features")] == [0, 2, 1]


def test_the_assets_of_all_concepts_are_listed_with_their_runs(campus: Campus) -> None:
    made = furnish(campus)
    response = campus.api.get("/dagster/assets")
    assets = body(response)["assets"]
    assert [asset["key"] for asset in assets] == [
        ["device_classification", "index", "macs"],
        ["device_classification", "index", "later"],
        ["device_classification", "rule", "one"],
        ["device_classification", "rule", "two"],
        ["device_classification", "rule", "three"],
        ["device_classification", "feature", "f"],
    ]
    feature = campus.get("features", made["feature_id"])
    assert assets[-1] == {
        "key": ["device_classification", "feature", "f"],
        "kind": "feature",
        "id": made["feature_id"],
        "is_materialized": True,
        "materialized_at": feature["materialized_at"],
        "row_count": 3,
        "run_id": feature["dagster_run_id"],
    }
    assert response["X-Total-Count"] == "6"
    page = campus.api.get("/dagster/assets?skip=1&limit=2")
    assert [asset["id"] for asset in body(page)["assets"]] == [a["id"] for a in assets[1:3]]


def test_the_catalog_needs_the_same_few_queries_for_many_assets(
    campus: Campus, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    index_id = campus.materialized_index()["index_id"]
    for number in range(5):
        campus.create("rules", name=f"r{number}", index_id=index_id, sql_query=OF_MACS)
    with django_assert_max_num_queries(6):
        campus.api.get(f"{campus.root}/catalog")
