"""The graph of a concept to its end: functions, labels and classifiers."""

from typing import Any

import pyarrow as pa
import pytest
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from labeling.models import ClassifierJob, LabelingFunction, SnorkelJob
from tests.labeling.conftest import Devices, publish
from tippers.runs import engine
from tippers.runs.models import Run, RunStatus

pytestmark = pytest.mark.django_db(transaction=True)


def graph(devices: Devices) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """Nodes by id, and edges."""
    answer = devices.get("lineage")
    edges = {(edge["from"], edge["to"]) for edge in answer["edges"]}
    return {node["id"]: node for node in answer["nodes"]}, edges


@pytest.fixture
def labels(devices: Devices) -> Any:
    """A finished Snorkel job on two functions."""
    lf_ids = [
        devices.approved("one_room", "STATIC", "row['rooms'] == 1"),
        devices.approved("short_stays", "PHONE", "row['hours'] < 1"),
    ]
    return devices.label(lf_ids) | {"lf_ids": lf_ids}


def finished_classifiers(devices: Devices, labels: Any) -> ClassifierJob:
    """A classifier job as its run leaves it, without the training."""
    said = {"snorkel_job_id": labels["job_id"], "feature_ids": [devices.feature.feature_id]}
    job = ClassifierJob.objects.get(pk=devices.post("classifiers/run", said)["job_id"])
    assert job.run is not None
    Run.objects.filter(pk=job.run.pk).update(status=RunStatus.SUCCESS)
    ClassifierJob.objects.filter(pk=job.pk).update(inputs=job.inputs_now())
    job.refresh_from_db()
    return job


def test_the_graph_leads_from_the_index_to_the_classifiers(devices: Devices, labels: Any) -> None:
    bank = finished_classifiers(devices, labels)
    nodes, edges = graph(devices)
    index, rule = f"index:{devices.index.pk}", f"rule:{devices.rule.pk}"
    feature = f"feature:{devices.feature.pk}"
    one, two = (f"labeling_function:{lf_id}" for lf_id in labels["lf_ids"])
    snorkel, classifiers = f"snorkel_job:{labels['job_id']}", f"classifier_job:{bank.pk}"
    assert edges == {
        (index, rule), (index, feature), (rule, one), (rule, two), (index, snorkel),
        (one, snorkel), (two, snorkel), (snorkel, classifiers), (feature, classifiers),
    }  # fmt: skip
    assert {node["state"] for node in nodes.values()} == {"current"}
    order = list(nodes)
    assert all(order.index(source) < order.index(target) for source, target in edges)
    job = devices.get(f"snorkel/jobs/{labels['job_id']}")
    assert nodes[snorkel] == {
        "id": snorkel,
        "kind": "snorkel_job",
        "name": f"Snorkel job {labels['job_id']}",
        "state": "current",
        "stale_reason": None,
        "run_id": job["dagster_run_id"],
        "row_count": labels["summary"]["total_samples"],
        "materialized_at": job["completed_at"],
    }


def test_labels_go_stale_with_a_reason_and_take_their_classifiers_along(
    devices: Devices, labels: Any
) -> None:
    bank = finished_classifiers(devices, labels)
    publish(devices.index, pa.table({"mac": ["mac001", "new"]}))
    lf_id = labels["lf_ids"][0]
    devices.patch(
        f"labeling-functions/{lf_id}", {"lf_config": {"code": devices.code("STATIC", "True")}}
    )
    nodes, _ = graph(devices)
    snorkel = nodes[f"snorkel_job:{labels['job_id']}"]
    assert snorkel["state"] == "stale"
    assert snorkel["stale_reason"] == (
        "Since it ran, the index macs and the function one_room changed."
    )
    assert nodes[f"classifier_job:{bank.pk}"]["stale_reason"] == (
        f"Its labels, of Snorkel job {labels['job_id']}, are stale."
    )
    assert nodes[f"labeling_function:{lf_id}"]["state"] == "missing"  # unapproved again
    assert nodes[f"rule:{devices.rule.pk}"]["state"] == "stale"
    results = devices.get(f"snorkel/jobs/{labels['job_id']}/results")
    assert results["is_stale"] is True


def test_a_job_is_running_then_failed_or_missing(devices: Devices, labels: Any) -> None:
    said = {
        "selectedIndex": devices.index.pk, "selectedLFs": labels["lf_ids"],
        "snorkel": {"epochs": 1},
    }  # fmt: skip
    fails, cancelled = (devices.post("snorkel/run", said)["job_id"] for _ in range(2))
    assert graph(devices)[0][f"snorkel_job:{fails}"]["state"] == "running"
    engine.cancel(SnorkelJob.objects.get(pk=cancelled).run_id)  # type: ignore[arg-type]  # launched
    LabelingFunction.objects.update(is_active=False)
    devices.perform_all()
    nodes, _ = graph(devices)
    assert nodes[f"snorkel_job:{fails}"]["state"] == "failed"
    assert nodes[f"snorkel_job:{cancelled}"]["state"] == "missing"
    assert nodes[f"labeling_function:{labels['lf_ids'][0]}"]["state"] == "missing"


def test_a_function_that_was_replaced_is_shown_where_a_job_used_it(
    devices: Devices, labels: Any
) -> None:
    used, unused = labels["lf_ids"][0], devices.approved("extra", "PHONE", "row['n'] > 3")
    for lf_id in (used, unused):
        config = {"code": devices.code("STATIC", "row['rooms'] == 2")}
        devices.post(f"labeling-functions/{lf_id}/versions", {"lf_config": config})
    nodes, _ = graph(devices)
    assert f"labeling_function:{used}" in nodes
    assert f"labeling_function:{unused}" not in nodes
    assert sum(node["kind"] == "labeling_function" for node in nodes.values()) == 4


def test_many_jobs_cost_no_more_queries_than_one(
    devices: Devices, labels: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    finished_classifiers(devices, labels)
    for model in (SnorkelJob, ClassifierJob):
        job: Any = model.objects.get()
        for _ in range(20):
            job.pk = None
            job.save()
    with django_assert_num_queries(7):
        devices.get("lineage")


def test_the_graph_is_for_who_may_look(viewer: APIClient, devices: Devices) -> None:
    path = f"{devices.root}/lineage"
    assert viewer.get(path).status_code == 200
    assert viewer.post(path).status_code in {403, 405}
