"""One POST brings everything of a concept that is stale or missing up to date."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from concepts.column_stats import ColumnStats
from tests.concepts.conftest import Campus
from tests.conftest import body
from tippers.runs.engine import perform_next
from tippers.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)  # runs read over their own connection

OF_MACS = "SELECT mac, count(*) AS n FROM wifi WHERE mac IN (:index_values) GROUP BY mac"


def refresh(campus: Campus) -> Any:
    response = campus.api.post(f"{campus.root}/materialize")
    assert response.status_code == 200, response.content
    return body(response)


def derived(campus: Campus, index_id: int, *names: str, sql: str = OF_MACS) -> list[int]:
    """Rules of these names; and the last one as a feature, too."""
    made = {"index_id": index_id, "sql_query": sql}
    campus.create("features", name=f"f_{names[-1]}", **made)
    return [campus.create("rules", name=name, **made)["r_id"] for name in names]


def states(campus: Campus) -> dict[str, str]:
    nodes = body(campus.api.get(f"{campus.root}/lineage"))["nodes"]
    return {node["name"]: node["state"] for node in nodes}


def rules_on_a_lost_index(campus: Campus, index_id: int, *names: str) -> None:
    """As `derived`, and the index loses its product: the API wants one when a rule is made."""
    campus.materialize("indexes", index_id)
    derived(campus, index_id, *names)
    index = campus.get("indexes", index_id)
    campus.patch("indexes", index_id, sql_query=index["sql_query"] + " LIMIT 100")


def test_everything_missing_is_made_in_the_order_of_dependence(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    rules_on_a_lost_index(campus, index_id, "one")
    campus.index(name="alone", sql="SELECT 1 AS one")

    started = refresh(campus)
    assert started["c_id"] == campus.c_id
    assert started["status"] == "STARTED"
    assert [asset["name"] for asset in started["launched"]] == ["macs", "alone"]  # side by side
    assert started["launched"][0]["id"] == f"index:{index_id}"
    parent = campus.run(started["dagster_run_id"])
    assert (parent["status"], parent["job"]) == ("STARTED", "materialize_concept")
    assert parent["progress"] == {"done": 0, "total": 4, "unit": "assets", "message": ""}
    assert parent["children"] == [asset["dagster_run_id"] for asset in started["launched"]]

    assert perform_next("short")
    parent = campus.run(started["dagster_run_id"])
    assert parent["progress"]["done"] == 1
    assert len(parent["children"]) == 4  # the index is there, so its rule and feature go, too
    campus.perform_all()
    parent = campus.run(started["dagster_run_id"])
    assert (parent["status"], parent["error_message"]) == ("SUCCESS", None)
    assert (parent["progress"]["done"], parent["progress"]["total"]) == (4, 4)
    assert set(states(campus).values()) == {"current"}
    for child in parent["children"]:
        run = campus.run(child)
        assert (run["parent"], run["children"]) == (started["dagster_run_id"], [])


def test_nothing_to_do_has_ended_at_once(campus: Campus) -> None:
    campus.materialized_index()
    started = refresh(campus)
    assert (started["status"], started["launched"]) == ("SUCCESS", [])
    parent = campus.run(started["dagster_run_id"])
    assert (parent["status"], parent["children"], parent["progress"]["total"]) == ("SUCCESS", [], 0)
    assert campus.perform_all() == 0


def test_only_what_is_stale_or_missing_is_made_again(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    old, _ = derived(campus, index_id, "old", "new")
    campus.materialize("rules", old)
    before = campus.get("rules", old)
    started = refresh(campus)
    assert [asset["id"].partition(":")[0] for asset in started["launched"]] == ["rule", "feature"]
    campus.perform_all()
    assert campus.get("rules", old) == before
    assert set(states(campus).values()) == {"current"}


def test_other_content_of_an_index_is_carried_on_to_what_is_made_from_it(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    (r_id,) = derived(campus, index_id, "one")
    refresh(campus)
    campus.perform_all()
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO wifi VALUES ('dd', 1, '2024-01-05', '2024-01-06')")
    campus.launch("indexes", index_id)
    # The rule is current still: what is under way for its index decides whether it remains so.
    campus.perform_all()
    assert states(campus)["one"] == "stale"
    refresh(campus)
    campus.perform_all()
    assert campus.get("rules", r_id)["row_count"] == 5
    assert set(states(campus).values()) == {"current"}


def test_the_same_post_twice_is_the_same_parent(campus: Campus) -> None:
    campus.index()
    first = refresh(campus)
    assert refresh(campus) == first
    campus.perform_all()
    assert refresh(campus)["dagster_run_id"] != first["dagster_run_id"]
    assert Run.objects.filter(job="materialize_index").count() == 1


def test_a_long_list_is_launched_bit_by_bit(
    campus: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concepts.refresh.AT_ONCE", 2)
    index_id = campus.index()["index_id"]
    rules_on_a_lost_index(campus, index_id, "one")
    for number in range(3):
        campus.index(name=f"n{number}")
    started = refresh(campus)
    assert len(started["launched"]) == 2
    progress = campus.run(started["dagster_run_id"])["progress"]
    assert (progress["done"], progress["total"]) == (0, 6)
    assert campus.perform_all() == 6
    parent = campus.run(started["dagster_run_id"])
    assert (parent["status"], parent["progress"]["total"]) == ("SUCCESS", 6)
    assert set(states(campus).values()) == {"current"}


def test_several_workers_at_once_make_everything_once(campus: Campus) -> None:
    for number in range(3):
        index_id = campus.index(name=f"i{number}")["index_id"]
        rules_on_a_lost_index(campus, index_id, *(f"r{number}{each}" for each in "abc"))
    before = Run.objects.count()
    started = refresh(campus)

    def work() -> None:
        try:
            while campus.run(started["dagster_run_id"])["end_time"] is None:
                perform_next("short")
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as workers:
        for each in [workers.submit(work) for _ in range(3)]:
            each.result(60)
    parent = campus.run(started["dagster_run_id"])
    assert (parent["status"], parent["error_message"]) == ("SUCCESS", None)
    assert len(parent["children"]) == 15 == Run.objects.count() - before - 1
    assert set(states(campus).values()) == {"current"}


def test_a_run_that_was_under_way_already_is_joined(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    run_id = campus.launch("indexes", index_id)["dagster_run_id"]
    started = refresh(campus)
    assert [asset["dagster_run_id"] for asset in started["launched"]] == [run_id]
    campus.perform_all()
    assert campus.run(started["dagster_run_id"])["status"] == "SUCCESS"


def test_a_run_that_is_joined_while_it_works_ends_its_new_parent(
    campus: Campus, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_id = campus.index()["index_id"]
    campus.launch("indexes", index_id)
    parents: list[str] = []

    def meanwhile(stats: ColumnStats) -> Any:
        parents.append(refresh(campus)["dagster_run_id"])
        return found(stats)

    found = ColumnStats.found
    monkeypatch.setattr(ColumnStats, "found", meanwhile)
    assert perform_next("short")
    assert campus.run(parents[0])["status"] == "SUCCESS"


def test_a_failed_index_stops_no_other_and_what_needs_it_is_named(campus: Campus) -> None:
    broken = campus.index(name="broken")["index_id"]
    rules_on_a_lost_index(campus, broken, "orphan")
    campus.patch("indexes", broken, sql_query="SELECT mac FROM nowhere")
    sound = campus.index(name="sound")["index_id"]
    rules_on_a_lost_index(campus, sound, "fine")

    started = refresh(campus)
    campus.perform_all()
    parent = campus.run(started["dagster_run_id"])
    assert parent["status"] == "FAILURE"
    assert "The index broken failed: " in parent["error_message"]
    assert "nowhere" in parent["error_message"]
    assert (
        "Left out for want of the index broken: rule orphan, feature f_orphan."
        in parent["error_message"]
    )
    assert (parent["progress"]["done"], parent["progress"]["total"]) == (4, 6)
    assert states(campus) == {
        "broken": "failed", "sound": "current", "orphan": "missing", "fine": "current",
        "f_orphan": "missing", "f_fine": "current",
    }  # fmt: skip
    # Another POST tries again what failed.
    campus.patch("indexes", broken, sql_query="SELECT DISTINCT mac FROM wifi")
    refresh(campus)
    campus.perform_all()
    assert set(states(campus).values()) == {"current"}


def test_a_failed_rule_is_tried_once(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    derived(campus, index_id, "bad", sql="SELECT nothing FROM wifi")
    derived(campus, index_id, "good")
    started = refresh(campus)
    assert campus.perform_all() == 4
    parent = campus.run(started["dagster_run_id"])
    assert parent["status"] == "FAILURE"
    for name in ("The rule bad failed", "The feature f_bad failed"):
        assert name in parent["error_message"]
    assert states(campus)["good"] == "current"


def test_a_definition_that_changes_meanwhile_is_made_as_it_is_in_the_end(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    started = refresh(campus)
    campus.patch("indexes", index_id, sql_query="SELECT 'aa' AS mac")
    campus.perform_all()
    assert states(campus) == {"macs": "current"}
    assert campus.rows("indexes", index_id) == [{"mac": "aa"}]
    assert campus.run(started["dagster_run_id"])["end_time"] is not None


def test_a_partitioned_asset_is_one_child_and_what_is_made_from_it_waits_for_its_union(
    campus: Campus,
) -> None:
    index_id = campus.index(
        sql="SELECT DISTINCT mac, space FROM wifi WHERE mac IS NOT NULL",
        partition_type="categorical",
        partition_config={"column": "space"},
    )["index_id"]
    rules_on_a_lost_index(campus, index_id, "one")
    started = refresh(campus)
    campus.perform_all()
    parent = campus.run(started["dagster_run_id"])
    assert (parent["status"], parent["error_message"]) == ("SUCCESS", None)
    jobs = [campus.run(child)["job"] for child in parent["children"]]
    assert jobs == ["materialize_partitions", "materialize_rule", "materialize_feature"]
    assert set(states(campus).values()) == {"current"}
    assert campus.get("indexes", index_id)["row_count"] == 5


def test_cancelling_the_parent_cancels_what_waits(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    rules_on_a_lost_index(campus, index_id, "one")
    started = refresh(campus)
    path = f"/runs/{started['dagster_run_id']}"
    assert campus.api.post(f"{path}/cancel").status_code == 200
    assert campus.perform_all() == 0
    assert campus.run(started["dagster_run_id"])["status"] == "CANCELLED"
    assert states(campus)["macs"] == "missing"


def test_cancelling_an_indexs_run_leaves_out_what_needs_it(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    rules_on_a_lost_index(campus, index_id, "one")
    started = refresh(campus)
    child = started["launched"][0]["dagster_run_id"]
    assert campus.api.post(f"/runs/{child}/cancel").status_code == 200
    parent = campus.run(started["dagster_run_id"])
    assert parent["status"] == "CANCELLED"
    assert "The index macs was cancelled." in parent["error_message"]
    assert "rule one" in parent["error_message"]


def test_a_concept_deleted_meanwhile_ends_its_run(campus: Campus) -> None:
    campus.index()
    started = refresh(campus)
    assert campus.api.delete(campus.root).status_code == 204
    campus.perform_all()
    assert campus.run(started["dagster_run_id"])["end_time"] is not None


def test_who_may_look_only_may_not_refresh(campus: Campus, viewer: Any, analyst: Any) -> None:
    assert viewer.post(f"{campus.root}/materialize").status_code == 403
    assert analyst.post(f"{campus.root}/materialize").status_code == 200
    assert campus.api.post("/concepts/999999/materialize").status_code == 404


def test_runs_say_who_their_children_are_in_a_list_too(campus: Campus) -> None:
    campus.index()
    started = refresh(campus)
    runs = {run["run_id"]: run for run in body(campus.api.get("/runs"))["runs"]}
    (child,) = runs[started["dagster_run_id"]]["children"]
    assert runs[child]["parent"] == started["dagster_run_id"]
    assert uuid.UUID(child)
