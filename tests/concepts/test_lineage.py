"""Why a product is stale, and the graph of what is made from what."""

from typing import Any

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries

from concepts.models import Concept, Feature, Index, Rule
from tests.concepts.conftest import Campus
from tests.conftest import body

pytestmark = pytest.mark.django_db(transaction=True)  # runs read over their own connection

OF_MACS = "SELECT mac, count(*) AS n FROM wifi WHERE mac IN (:index_values) GROUP BY mac"


@pytest.fixture
def family(campus: Campus) -> dict[str, int]:
    """An index with a rule and a feature, all materialized; their ids."""
    index_id = campus.materialized_index()["index_id"]
    made = {"index": index_id}
    for family, kind, pk in (("rules", "rule", "r_id"), ("features", "feature", "feature_id")):
        made[kind] = campus.create(family, name=f"n_{kind}", index_id=index_id, sql_query=OF_MACS)[
            pk
        ]
        campus.materialize(family, made[kind])
    return made


def lineage(campus: Campus) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Nodes by id, and edges as pairs."""
    answer = body(campus.api.get(f"{campus.root}/lineage"))
    edges = [(edge["from"], edge["to"]) for edge in answer["edges"]]
    return {node["id"]: node for node in answer["nodes"]}, edges


def states(campus: Campus) -> dict[str, str]:
    return {name: node["state"] for name, node in lineage(campus)[0].items()}


def someone_new_connects() -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO wifi VALUES ('dd', 1, '2024-01-05', '2024-01-06')")


# Why a product is stale


def test_what_is_current_or_missing_has_no_reason_to_be_stale(
    campus: Campus, family: dict[str, int]
) -> None:
    r_id = campus.create("rules", name="new", index_id=family["index"], sql_query=OF_MACS)["r_id"]
    for asset in (campus.get("rules", family["rule"]), campus.get("rules", r_id)):
        assert (asset["is_stale"], asset["stale_reason"]) == (False, None)
    campus.patch("indexes", family["index"], sql_query="SELECT 'aa' AS mac")
    index = campus.get("indexes", family["index"])
    assert (index["is_materialized"], index["stale_reason"]) == (False, None)


def test_the_reason_names_the_index_that_got_other_content_or_lost_its_product(
    campus: Campus, family: dict[str, int]
) -> None:
    someone_new_connects()
    campus.materialize("indexes", family["index"])
    rule = campus.get("rules", family["rule"])
    assert rule["is_stale"] is True
    assert rule["stale_reason"] == "Since it was materialized, the index macs got other content."
    campus.patch("indexes", family["index"], sql_query="SELECT 'aa' AS mac")
    feature = campus.get("features", family["feature"])
    assert feature["stale_reason"] == "Since it was materialized, the index macs lost its product."


def test_another_order_and_other_columns_of_the_index_do_not_make_a_rule_stale(
    campus: Campus,
) -> None:
    index_id = campus.materialized_index(sql="SELECT mac, count(*) AS n FROM wifi GROUP BY mac")[
        "index_id"
    ]
    definition = {"index_id": index_id, "sql_query": OF_MACS}
    by_mac = campus.create("rules", name="by mac", **definition)["r_id"]
    by_number = campus.create(
        "rules", name="by n", index_id=index_id, index_column="n",
        sql_query="SELECT mac FROM wifi WHERE space IN (:index_values)",
    )["r_id"]  # fmt: skip
    for r_id in (by_mac, by_number):
        campus.materialize("rules", r_id)
    with connection.cursor() as cursor:
        for _ in range(3):
            cursor.execute("INSERT INTO wifi VALUES ('cc', 1, '2024-01-05', '2024-01-06')")
    campus.materialize("indexes", index_id)
    assert campus.get("rules", by_mac)["stale_reason"] is None
    assert campus.get("rules", by_number)["is_stale"] is True  # 4 is a number that was not there
    # Not even another query, if it finds the same entities.
    reverse = "SELECT DISTINCT mac FROM wifi ORDER BY mac DESC"
    campus.patch("indexes", index_id, sql_query=reverse)
    assert campus.get("rules", by_mac)["is_stale"] is True
    campus.materialize("indexes", index_id)
    assert campus.get("rules", by_mac)["is_stale"] is False


def test_a_connection_that_points_elsewhere_is_the_reason_for_all_that_ran_on_it(
    campus: Campus, family: dict[str, int]
) -> None:
    moved = campus.api.patch(f"/database-connections/{campus.conn_id}", {"database": "elsewhere"})
    assert moved.status_code == 200, moved.content
    why = "Since it was materialized, the connection sessions was pointed to another database."
    assert campus.get("indexes", family["index"])["stale_reason"] == why
    assert campus.get("rules", family["rule"])["stale_reason"] == why
    catalog = body(campus.api.get(f"{campus.root}/catalog"))
    assert [asset["stale_reason"] for asset in catalog["features"]] == [why]


def test_a_product_of_an_earlier_version_of_ours_blames_the_definition(
    campus: Campus, family: dict[str, int]
) -> None:
    rule = Rule.objects.get(pk=family["rule"])
    assert rule.inputs is not None
    Rule.objects.filter(pk=rule.pk).update(inputs=rule.inputs | {"definition": "another hash"})
    assert campus.get("rules", rule.pk)["stale_reason"] == (
        "Since it was materialized, its definition changed."
    )


@pytest.mark.parametrize("family_name", ["rules", "features", "catalog", "lineage"])
def test_a_thousand_assets_cost_no_more_queries_than_one(
    campus: Campus, django_assert_num_queries: DjangoAssertNumQueries, family_name: str
) -> None:
    index = Index.objects.get(pk=campus.materialized_index()["index_id"])
    concept = Concept.objects.get(pk=campus.c_id)
    fixed = {
        "is_materialized": True, "inputs": {"index": "another"}, "storage_path": "file:///none",
        "c": concept, "index": index, "sql_query": OF_MACS,
    }  # fmt: skip
    for model in (Rule, Feature):
        assets: list[Any] = [model(name=f"n{number}", **fixed) for number in range(1000)]
        model.objects.bulk_create(assets)
    # The concept, then a count and a page of a list; three kinds in the catalog; three more kinds
    # in the lineage.
    queries = {"rules": 3, "features": 3, "catalog": 4, "lineage": 7}[family_name]
    with django_assert_num_queries(queries):
        answer = body(campus.api.get(f"{campus.root}/{family_name}?limit=1000"))
    if family_name in {"rules", "features"}:
        assert len(answer) == 1000
        assert all(asset["is_stale"] for asset in answer)
    elif family_name == "lineage":
        assert len(answer["nodes"]) == 2001


# The graph


def test_the_graph_leads_from_an_index_to_what_is_made_from_it(
    campus: Campus, family: dict[str, int]
) -> None:
    nodes, edges = lineage(campus)
    index, rule, feature = (f"{kind}:{pk}" for kind, pk in family.items())
    assert list(nodes) == [index, rule, feature]
    assert edges == [(index, rule), (index, feature)]
    shown = campus.get("rules", family["rule"])
    assert nodes[rule] == {
        "id": rule,
        "kind": "rule",
        "name": "n_rule",
        "state": "current",
        "stale_reason": None,
        "run_id": shown["dagster_run_id"],
        "row_count": 4,
        "materialized_at": shown["materialized_at"],
    }
    assert campus.api.get("/concepts/999999/lineage").status_code == 404


def test_a_node_is_missing_then_running_then_current_and_stale_after_another_index(
    campus: Campus, family: dict[str, int]
) -> None:
    r_id = campus.create("rules", name="new", index_id=family["index"], sql_query=OF_MACS)["r_id"]
    rule = f"rule:{r_id}"
    assert states(campus)[rule] == "missing"
    campus.launch("rules", r_id)
    assert states(campus)[rule] == "running"
    campus.perform_all()
    assert states(campus)[rule] == "current"
    someone_new_connects()
    campus.materialize("indexes", family["index"])
    nodes, _ = lineage(campus)
    assert nodes[rule]["state"] == "stale"
    assert nodes[rule]["stale_reason"] == campus.get("rules", r_id)["stale_reason"]
    assert set(states(campus).values()) == {"current", "stale"}


def test_a_failure_shows_until_the_definition_is_another_one(
    campus: Campus, family: dict[str, int]
) -> None:
    index_id = campus.index(name="broken", sql="SELECT mac FROM nowhere")["index_id"]
    campus.materialize("indexes", index_id)
    assert states(campus)[f"index:{index_id}"] == "failed"
    campus.patch("indexes", index_id, sql_query="SELECT 'aa' AS mac")
    assert states(campus)[f"index:{index_id}"] == "missing"


def test_a_product_that_holds_is_current_though_the_last_attempt_to_renew_it_failed(
    campus: Campus, family: dict[str, int]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE wifi RENAME TO wifi_away")
    try:
        assert campus.materialize("rules", family["rule"])["status"] == "FAILURE"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE wifi_away RENAME TO wifi")
    assert states(campus)[f"rule:{family['rule']}"] == "current"
