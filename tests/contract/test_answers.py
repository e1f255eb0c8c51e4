"""The answers that no body makes, with the reference's names and in its order."""

from typing import Any

import pytest

from tests.contract.conftest import World
from tests.occupancy.conftest import BUILDING, CAMPUS, FLOOR

pytestmark = pytest.mark.django_db(transaction=True)

ENTRY = {"id", "name", "is_materialized", "row_count", "storage_path"}
COUNTS = {"total", "materialized", "unmaterialized", "total_rows"}
RUN = {"run_id", "status", "start_time", "end_time", "error_message"}
SPACE = {"space_id", "space_name", "parent_space_id", "building_room"}


@pytest.fixture
def get(world: World) -> Any:
    def answer(path: str, status: int = 200) -> Any:
        jobs = {"snorkel": world.snorkel_job, "classifier": world.classifier_job}
        response = world.devices.reviewer.get(path.format(**world.ids, **jobs))
        assert response.status_code == status, response.content
        return response.json()

    return answer


def test_every_answer_has_the_references_names(world: World, get: Any) -> None:
    """One world for all of them: it takes a training to make."""
    catalog = get("/concepts/{c_id}/catalog")
    assert set(catalog) >= {"indexes", "rules"}
    assert all(set(entry) >= ENTRY for kind in ("indexes", "rules") for entry in catalog[kind])
    assert get("/concepts/{c_id}/catalog/materialized") == catalog
    stats = get("/concepts/{c_id}/catalog/stats")
    assert stats["concept_id"] == world.ids["c_id"]
    assert set(stats["indexes"]) >= COUNTS
    assert set(stats["rules"]) >= COUNTS
    assert stats["summary"] == {
        "total_assets": 2,
        "materialized_assets": 2,
        "total_data_rows": stats["indexes"]["total_rows"] + stats["rules"]["total_rows"],
    }

    functions = "/concepts/{c_id}/labeling-functions"
    metrics = get(functions + "/{lf_id}/metrics")
    assert set(metrics) == {
        "lf_id", "name", "version", "estimated_accuracy", "coverage", "conflicts",
        "metrics_available",
    }  # fmt: skip
    assert metrics["metrics_available"] is True
    template = get(functions + "/template?applicable_cv_ids={cv_id}")
    assert set(template) == {"code", "applicable_cv_ids"}
    assert [lf["lf_id"] for lf in get(functions + "/{lf_id}/versions")] == [world.ids["lf_id"]]

    results = get("/concepts/{c_id}/snorkel/jobs/{snorkel}/results")
    assert set(results) >= {"job_id", "status", "output_type", "result_path"}
    assert set(results["summary"]) >= {"total_samples", "avg_confidence"}
    assert all(
        set(prediction) >= {"sample_id", "probs", "predicted_class", "confidence"}
        for prediction in results["predictions"]
    )
    waiting = get("/concepts/{c_id}/classifiers/jobs/{classifier}/results")
    assert waiting == {
        "job_id": world.classifier_job,
        "status": "PENDING",
        "message": "Job is PENDING. Results not available yet.",
    }

    occupancy = get("/occupancy/datasets/{dataset_id}/results")
    assert occupancy["space_id"] == CAMPUS  # the root, unless another is asked for
    assert set(occupancy) == {
        "dataset_id", "space_id", "status", "completed_chunks", "total_chunks",
    }  # fmt: skip
    progress = get("/occupancy/datasets/{dataset_id}/progress")
    assert set(progress) == {
        "dataset_id", "status", "done", "total", "failed", "provisional", "data_faults",
        "total_spaces", "spaces",
    }  # fmt: skip
    assert len(progress["spaces"]) == progress["total_spaces"] == 7
    for path in ("/spaces", f"/spaces/{BUILDING}/children", f"/spaces/{FLOOR}/subtree"):
        spaces = get(path)
        assert spaces
        assert all(set(space) == SPACE for space in spaces)
        if path != "/spaces":
            names = [space["space_name"] for space in spaces]
            assert names == sorted(names)

    for prefix in ("/dagster/runs", "/runs"):
        runs = get(prefix)
        assert set(runs) == {"runs"}
        assert all(set(run) >= RUN for run in runs["runs"])
        assert set(get(prefix + "/{run_id}")) >= RUN
        assert set(get(prefix + "/{run_id}/logs?limit=1000")) == {"run_id", "logs"}
        for query in ("limit=0", "limit=1001", "limit=x", "status_filter=RUNNING"):
            assert query.partition("=")[0] in get(f"{prefix}?{query}", 400)["errors"]
        assert len(get(f"{prefix}?limit=1&status_filter=SUCCESS")["runs"]) == 1
    assert set(get("/dagster/assets")) == {"assets"}
    assert set(get("/dagster/health")) == {"status", "dagster_host", "dagster_port"}
    assert get("/health")["status"] == "healthy"


def test_every_action_answers_as_the_reference_says(world: World) -> None:
    api, root = world.devices.reviewer, f"/concepts/{world.ids['c_id']}"
    for family, pk in (("indexes", "index_id"), ("rules", "r_id"), ("features", "feature_id")):
        started = api.post(f"{root}/{family}/{world.ids[pk]}/materialize")
        assert started.status_code == 200
        assert set(started.json()) == {pk, "dagster_run_id", "status"}
        assert (started.json()[pk], started.json()["status"]) == (world.ids[pk], "STARTED")
        again = api.post(f"{root}/{family}/{world.ids[pk]}/materialize")
        assert again.json() == started.json()  # the run there is, not a second one
    cancelled = api.post(f"/dagster/runs/{started.json()['dagster_run_id']}/cancel")
    assert set(cancelled.json()) == {"run_id", "status", "message"}
    assert cancelled.json()["status"] == "CANCELLED"

    job = api.post(f"{root}/classifiers/jobs/{world.classifier_job}/cancel")
    assert (job.status_code, job.json()["status"]) == (200, "CANCELLED")
    again = api.post(f"{root}/classifiers/jobs/{world.classifier_job}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")

    lf = f"{root}/labeling-functions/{world.ids['lf_id']}"
    assert api.post(f"{lf}/toggle").json()["is_active"] is False
    assert api.post(f"{lf}/toggle").json()["is_active"] is True
    config = {**api.get(lf).json()["lf_config"], "value": 4, "operator": "=="}
    version = api.post(f"{lf}/versions", {"lf_config": config})
    assert version.status_code == 201
    newer = version.json()
    assert (newer["version"], newer["parent_lf_id"]) == (2, world.ids["lf_id"])
    older = api.get(lf).json()
    assert newer["name"] == f"{older['name']}_v2"
    assert (newer["rule_id"], newer["applicable_cv_ids"]) == (
        older["rule_id"],
        older["applicable_cv_ids"],
    )
    assert older["deprecated_by_lf_id"] == newer["lf_id"]

    tested = api.post(f"/database-connections/{world.ids['conn_id']}/test")
    assert tested.status_code == 200
    assert set(tested.json()) >= {"status", "message"}
    assert tested.json()["status"] in {"success", "failed"}
