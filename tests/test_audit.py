"""The audit trail: a row for each act through the API that was done, and none for one that was not."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from rest_framework.test import APIClient

from concepts.models import Concept, ConceptValue, Feature, Index, Rule
from connections.models import DatabaseConnection
from labeling.models import LabelingFunction, SnorkelJob
from occupancy.models import OccupancyDataset
from tippers.runs.models import Queue, Run, RunStatus

pytestmark = pytest.mark.django_db

SECRET = "hunter2 and %41"
CONNECTION = {
    "name": "campus",
    "connection_type": "postgresql",
    "host": "db.example.com",
    "port": 5432,
    "database": "wifi",
    "user": "reader",
    "password": SECRET,
}


def entries() -> list[tuple[str, int, str, str]]:
    """Who, which act (1 added, 2 changed, 3 deleted), what and how, oldest first."""
    rows = LogEntry.objects.order_by("pk").select_related("user")
    return [
        (row.user.username, row.action_flag, row.object_repr, row.change_message) for row in rows
    ]


def test_what_is_done_to_a_connection_is_recorded_without_its_password(api: APIClient) -> None:
    path = (
        f"/database-connections/{api.post('/database-connections', CONNECTION).json()['conn_id']}"
    )
    changes: list[dict[str, Any]] = [
        {"host": "other.example.com", "port": 5432},
        {"password": SECRET + "!"},
        {"name": "campus"},  # as it was
    ]
    for change in changes:
        assert api.patch(path, change).status_code == 200
    assert api.delete(path).status_code == 204
    assert entries() == [
        ("ada", 1, "campus", ""),
        ("ada", 2, "campus", "changed host"),
        ("ada", 2, "campus", "changed password"),
        ("ada", 3, "campus", ""),
    ]
    assert "hunter" not in repr(list(LogEntry.objects.values()))


def test_what_is_refused_is_not_recorded(
    api: APIClient, analyst: APIClient, viewer: APIClient
) -> None:
    conn_id = api.post("/database-connections", CONNECTION).json()["conn_id"]
    path = f"/database-connections/{conn_id}"
    concept = Concept.objects.create(name="visits")
    Index.objects.create(c=concept, name="macs", conn_id=conn_id, sql_query="SELECT 1 AS id")
    LogEntry.objects.all().delete()
    assert api.post("/database-connections", CONNECTION).status_code == 400  # the name is taken
    assert api.patch(path, {"port": 0}).status_code == 400
    assert api.delete(path).status_code == 409  # the index needs it
    assert api.delete("/database-connections/999999").status_code == 404
    assert viewer.delete(path).status_code == 403
    assert viewer.delete(f"/concepts/{concept.pk}").status_code == 403
    assert entries() == []


def test_every_kind_of_deletion_is_recorded(api: APIClient) -> None:
    conn_id = api.post("/database-connections", CONNECTION).json()["conn_id"]
    concept = Concept.objects.create(name="visits")
    below = {"c": concept, "name": "one", "sql_query": "SELECT 1 AS id"}
    index = Index.objects.create(conn_id=conn_id, **below)
    rule = Rule.objects.create(index=index, **below)
    feature = Feature.objects.create(index=index, **below)
    value = ConceptValue.objects.create(c=concept, name="long")
    lf = LabelingFunction.objects.create(
        c=concept, rule=rule, name="votes", lf_type="template", lf_config={}
    )
    run = Run.objects.create(job="snorkel_training", queue=Queue.LONG, status=RunStatus.SUCCESS)
    job = SnorkelJob.objects.create(c=concept, index=index, lf_ids=[lf.pk], run=run)
    dataset = OccupancyDataset.objects.create(
        name="week",
        root_space_id=1,
        start_time="2024-01-01T00:00:00Z",
        end_time="2024-01-08T00:00:00Z",
        interval_seconds=3600,
        chunk_days=30,
    )
    LogEntry.objects.all().delete()
    base = f"/concepts/{concept.pk}"
    expected = []
    for path, subject in (
        (f"{base}/snorkel/jobs/{job.pk}", job),
        (f"{base}/labeling-functions/{lf.pk}", lf),
        (f"{base}/values/{value.pk}", value),
        (f"{base}/features/{feature.pk}", feature),
        (f"{base}/rules/{rule.pk}", rule),
        (f"{base}/indexes/{index.pk}", index),
        (base, concept),
        (f"/occupancy/datasets/{dataset.pk}", dataset),
        (f"/database-connections/{conn_id}", DatabaseConnection.objects.get(pk=conn_id)),
    ):
        expected.append(("ada", 3, str(subject)))
        answer = api.delete(path)
        assert answer.status_code == 204, (path, answer.content)
    assert [entry[:3] for entry in entries()] == expected
