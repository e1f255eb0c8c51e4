"""Paths, methods, fields, defaults, order and status codes of concepts and SQL assets."""

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from tests.concepts.conftest import Campus
from tests.conftest import body

pytestmark = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)  # a run reads over a connection of its own

ASSET = {
    "name", "sql_query", "query_template_params", "partition_type", "partition_config",
    "storage_path", "is_materialized", "materialized_at", "row_count", "created_at", "updated_at",
    "is_stale", "stale_reason", "byte_size", "column_stats", "dagster_run_id",
}  # fmt: skip
OF_MACS = "SELECT mac, count(*) AS n FROM wifi WHERE mac IN (:index_values) GROUP BY mac"


def refused(response: Any, field: str) -> str:
    """The sentence of a 400 in the one error shape that names the field."""
    assert response.status_code == 400, response.content
    answer = body(response)
    assert answer.keys() == {"detail", "code", "errors"}
    assert list(answer["errors"]) == [field]
    return str(answer["errors"][field][0])


# Concepts and their values


def test_a_concept_lives_through_post_get_patch_put_and_delete(api: APIClient) -> None:
    created = api.post("/concepts", {"name": "devices"})
    assert created.status_code == 201
    concept = body(created)
    assert concept.keys() == {"c_id", "name", "description", "created_at", "updated_at"}
    assert concept["description"] is None
    path = f"/concepts/{concept['c_id']}"
    assert body(api.get(path)) == concept

    patched = body(api.patch(path, {"description": "What it is"}))
    assert (patched["name"], patched["description"]) == ("devices", "What it is")
    assert patched["updated_at"] > concept["updated_at"]
    put = api.put(path, {"name": "machines", "description": None})
    assert (put.status_code, body(put)["name"], body(put)["description"]) == (200, "machines", None)

    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_concepts_are_listed_by_id_with_skip_and_limit_and_a_total(api: APIClient) -> None:
    for name in ("c", "a", "b"):
        api.post("/concepts", {"name": name})
    response = api.get("/concepts?skip=1&limit=1")
    assert [concept["name"] for concept in body(response)] == ["a"]
    assert response["X-Total-Count"] == "3"
    assert [concept["name"] for concept in body(api.get("/concepts/"))] == ["c", "a", "b"]
    assert api.get("/concepts?limit=1001").status_code == 400


def test_a_concept_is_refused_by_the_field_at_fault(api: APIClient) -> None:
    api.post("/concepts", {"name": "devices"})
    assert "exists" in refused(api.post("/concepts", {"name": "devices"}), "name")
    refused(api.post("/concepts", {}), "name")
    refused(api.post("/concepts", {"name": "  "}), "name")
    refused(api.post("/concepts", {"name": None}), "name")
    refused(api.post("/concepts", {"name": "x", "descripton": "misspelt"}), "descripton")


def test_values_come_by_display_order_and_those_without_one_last(api: APIClient) -> None:
    root = f"/concepts/{body(api.post('/concepts', {'name': 'devices'}))['c_id']}/values"
    for name, order in (("none", None), ("two", 2), ("one", 1), ("also one", 1), ("later", None)):
        created = api.post(root, {"name": name, "display_order": order})
        assert created.status_code == 201
    assert body(created).keys() == {
        "cv_id", "c_id", "name", "description", "display_order", "created_at",
    }  # fmt: skip
    names = [value["name"] for value in body(api.get(root))]
    assert names == ["one", "also one", "two", "none", "later"]

    path = f"{root}/{body(created)['cv_id']}"
    assert body(api.patch(path, {"display_order": 0}))["name"] == "later"
    assert body(api.get(root))[0]["name"] == "later"
    assert "already" in refused(api.patch(path, {"name": "one"}), "name")
    assert api.patch(path, {"name": "later"}).status_code == 200
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_the_same_value_name_may_occur_in_another_concept(api: APIClient) -> None:
    for concept in ("one", "two"):
        c_id = body(api.post("/concepts", {"name": concept}))["c_id"]
        assert api.post(f"/concepts/{c_id}/values", {"name": "STATIC"}).status_code == 201
    assert "already" in refused(api.post(f"/concepts/{c_id}/values", {"name": "STATIC"}), "name")


@pytest.mark.parametrize(
    "path",
    ["values", "indexes", "rules", "features", "catalog", "catalog/materialized", "catalog/stats"],
)
def test_nothing_is_below_a_concept_that_does_not_exist(api: APIClient, path: str) -> None:
    answer = api.get(f"/concepts/7/{path}")
    assert answer.status_code == 404
    assert body(answer) == {"detail": "Concept 7 does not exist.", "code": "not_found"}


@committed
def test_what_belongs_to_another_concept_is_not_found_here(campus: Campus) -> None:
    index = campus.materialized_index()
    made = {
        "values": campus.create("values", name="STATIC")["cv_id"],
        "indexes": index["index_id"],
        "rules": campus.create("rules", name="r", index_id=index["index_id"], sql_query=OF_MACS)[
            "r_id"
        ],
        "features": campus.create(
            "features", name="f", index_id=index["index_id"], sql_query=OF_MACS
        )["feature_id"],
    }
    other = body(campus.api.post("/concepts", {"name": "other"}))["c_id"]
    for family, pk in made.items():
        path = f"/concepts/{other}/{family}/{pk}"
        assert campus.api.get(path).status_code == 404
        assert campus.api.patch(path, {"name": "stolen"}).status_code == 404
        assert campus.api.delete(path).status_code == 404
        if family != "values":
            assert campus.api.post(f"{path}/materialize").status_code == 404
            assert campus.api.get(f"{path}/preview").status_code == 404
        assert body(campus.api.get(f"/concepts/{other}/{family}")) == []
    body_ = {"name": "r", "index_id": index["index_id"], "sql_query": OF_MACS}
    for family in ("rules", "features"):
        answer = campus.api.post(f"/concepts/{other}/{family}", body_)
        assert "no index" in refused(answer, "index_id")


def test_a_viewer_may_look_and_an_analyst_may_work(
    campus: Campus, viewer: APIClient, analyst: APIClient, stranger: APIClient
) -> None:
    index = campus.index()
    path = f"{campus.root}/indexes/{index['index_id']}"
    assert viewer.get(path).status_code == 200
    assert viewer.get(f"{campus.root}/catalog").status_code == 200
    assert viewer.patch(path, {"name": "x"}).status_code == 403
    assert viewer.post(f"{path}/materialize").status_code == 403
    assert analyst.post(f"{path}/materialize").status_code == 200
    assert stranger.get(path).status_code == 401


# Indexes, rules and features


def test_an_index_has_the_fields_and_defaults_of_the_reference(campus: Campus) -> None:
    index = campus.index()
    assert index.keys() == {"index_id", "c_id", "conn_id"} | ASSET
    assert (index["c_id"], index["conn_id"]) == (campus.c_id, campus.conn_id)
    assert index["is_materialized"] is False
    for field in ("query_template_params", "partition_type", "partition_config", "storage_path",
                  "materialized_at", "row_count", "column_stats", "dagster_run_id"):  # fmt: skip
        assert index[field] is None
    assert campus.get("indexes", index["index_id"]) == index
    assert body(campus.api.get(f"{campus.root}/indexes?skip=0&limit=100")) == [index]


@committed
def test_a_rule_and_a_feature_have_the_fields_of_the_reference(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    rule = campus.create("rules", name="r", index_id=index_id, sql_query=OF_MACS)
    assert rule.keys() == {"r_id", "c_id", "index_id", "index_column"} | ASSET
    assert rule["index_column"] is None
    feature = campus.create(
        "features",
        name="f",
        index_id=index_id,
        sql_query=OF_MACS,
        index_column="mac",
        columns=["n"],
        description="how many sessions",
        level=1,
    )
    assert feature.keys() == {
        "feature_id", "c_id", "index_id", "index_column", "columns", "description", "level",
    } | ASSET  # fmt: skip
    assert feature["columns"] == ["n"]
    assert (feature["description"], feature["level"]) == ("how many sessions", 1)
    path = f"{campus.root}/features/{feature['feature_id']}"
    put = campus.api.put(path, {"name": "g", "index_id": index_id, "sql_query": OF_MACS})
    assert (put.status_code, body(put)["name"]) == (200, "g")
    assert campus.api.put(path, {"name": "g"}).status_code == 400


def test_a_rule_needs_a_materialized_index_and_a_feature_only_to_run(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    definition = {"name": "x", "index_id": index_id, "sql_query": OF_MACS}
    answer = campus.api.post(f"{campus.root}/rules", definition)
    assert "not materialized" in refused(answer, "index_id")
    feature_id = campus.create("features", **definition)["feature_id"]
    started = campus.api.post(f"{campus.root}/features/{feature_id}/materialize")
    assert started.status_code == 400
    assert "not materialized" in body(started)["detail"]


@committed
def test_a_name_is_unique_within_a_concept_and_kind(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    for family, fields in (
        ("indexes", {"conn_id": campus.conn_id, "sql_query": "SELECT 1 AS one"}),
        ("rules", {"index_id": index_id, "sql_query": OF_MACS}),
        ("features", {"index_id": index_id, "sql_query": OF_MACS}),
    ):
        campus.create(family, name="same", **fields)
        again = campus.api.post(f"{campus.root}/{family}", {"name": "same", **fields})
        assert "already" in refused(again, "name")
        other = campus.create(family, name="other", **fields)
        pk = next(iter(other.values()))
        assert "already" in refused(
            campus.api.patch(f"{campus.root}/{family}/{pk}", {"name": "same"}), "name"
        )


def test_sql_that_is_not_one_query_is_refused_when_it_is_saved(campus: Campus) -> None:
    definition = {"name": "x", "conn_id": campus.conn_id}
    path = f"{campus.root}/indexes"
    for sql in ("DELETE FROM wifi", "SELECT 1; DROP TABLE wifi", "SELECT FROM WHERE", "", None):
        refused(campus.api.post(path, {**definition, "sql_query": sql}), "sql_query")
    index_id = campus.index()["index_id"]
    refused(campus.api.patch(f"{path}/{index_id}", {"sql_query": "DROP TABLE wifi"}), "sql_query")
    assert "DISTINCT" in campus.get("indexes", index_id)["sql_query"]


def test_an_asset_is_refused_by_the_field_at_fault(campus: Campus) -> None:
    good = {"name": "x", "conn_id": campus.conn_id, "sql_query": "SELECT 1 AS one"}

    def post(**fields: Any) -> Any:
        return campus.api.post(f"{campus.root}/indexes", {**good, **fields})

    assert "no connection 99" in refused(post(conn_id=99), "conn_id")
    refused(post(conn_id=None), "conn_id")
    refused(post(query_template_params=[1]), "query_template_params")
    refused(post(query_template_params={"a": "nul \0"}), "query_template_params")
    half = json.dumps({**good, "query_template_params": {"a": ["\ud800"]}})
    answer = campus.api.generic(
        "POST", f"{campus.root}/indexes", half, content_type="application/json"
    )
    refused(answer, "query_template_params")
    refused(post(is_materialised=True), "is_materialised")
    # What the service says of a product cannot be claimed by a client.
    assert body(post(is_materialized=True, row_count=9))["is_materialized"] is False


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("time", {"column": "day", "granularity": "monthly"}),
        ("id_range", {"column": "id", "size": 1000}),
        ("categorical", {"column": "building"}),
        (None, None),
    ],
)
def test_a_partition_of_known_shape_is_kept(campus: Campus, kind: str, config: Any) -> None:
    index = campus.index(partition_type=kind, partition_config=config)
    assert (index["partition_type"], index["partition_config"]) == (kind, config)


@pytest.mark.parametrize(
    ("kind", "config", "field"),
    [
        ("", None, "partition_type"),
        ("weekly", {"column": "day"}, "partition_type"),
        (None, {"column": "day"}, "partition_type"),
        ("time", None, "partition_config"),
        ("time", {"column": "day"}, "partition_config"),
        ("time", {"column": "day", "granularity": "yearly"}, "partition_config"),
        ("time", {"column": 5, "granularity": "daily"}, "partition_config"),
        ("id_range", {"column": "id", "size": 0}, "partition_config"),
        ("id_range", {"column": "id", "size": True}, "partition_config"),
        ("categorical", {"column": "b", "size": 1}, "partition_config"),
        ("categorical", {"column": " "}, "partition_config"),
        ("categorical", "building", "partition_config"),
    ],
)
def test_a_partition_of_another_shape_is_refused(
    campus: Campus, kind: str, config: Any, field: str
) -> None:
    answer = campus.api.post(
        f"{campus.root}/indexes",
        {
            "name": "x",
            "conn_id": campus.conn_id,
            "sql_query": "SELECT 1 AS one",
            "partition_type": kind,
            "partition_config": config,
        },
    )
    refused(answer, field)


# Deleting


@committed
def test_what_others_need_is_not_deleted_and_the_answer_names_them(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    r_id = campus.create("rules", name="visits", index_id=index_id, sql_query=OF_MACS)["r_id"]

    answer = campus.api.delete(f"/database-connections/{campus.conn_id}")
    assert (answer.status_code, body(answer)["code"]) == (409, "in_use")
    assert "index macs" in body(answer)["detail"]
    answer = campus.api.delete(f"{campus.root}/indexes/{index_id}")
    assert answer.status_code == 409
    assert "rule visits" in body(answer)["detail"]

    assert campus.api.delete(f"{campus.root}/rules/{r_id}").status_code == 204
    assert campus.api.delete(f"{campus.root}/indexes/{index_id}").status_code == 204
    assert campus.api.delete(f"/database-connections/{campus.conn_id}").status_code == 204


@committed
def test_a_concept_takes_everything_below_it_along(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    campus.create("values", name="STATIC")
    campus.create("rules", name="r", index_id=index_id, sql_query=OF_MACS)
    campus.create("features", name="f", index_id=index_id, sql_query=OF_MACS)
    assert campus.api.delete(campus.root).status_code == 204
    assert campus.api.get(campus.root).status_code == 404
    assert body(campus.api.get("/dagster/assets")) == {"assets": []}
    assert campus.api.delete(f"/database-connections/{campus.conn_id}").status_code == 204
