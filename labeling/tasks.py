"""Background jobs: label with Snorkel, train classifiers."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet

from labeling import classifier_jobs, label_jobs
from labeling.models import ClassifierJob, Model, SnorkelJob
from tippers import storage
from tippers.errors import NotFound
from tippers.runs.engine import RunHandle, job


@job(queue="long", timeout=timedelta(hours=4))
def snorkel_training(run: RunHandle, *, job_id: int) -> None:
    found = SnorkelJob.objects.select_related("index").filter(pk=job_id).first()
    if found is None:
        raise NotFound(f"The Snorkel job {job_id} was deleted before it ran.")
    label_jobs.train(found, run)


@job(queue="long", timeout=timedelta(hours=4))
def classifier_training(run: RunHandle, *, job_id: int) -> None:
    found = ClassifierJob.objects.select_related("snorkel_job__index").filter(pk=job_id).first()
    if found is None:
        raise NotFound(f"The classifier job {job_id} was deleted before it ran.")
    classifier_jobs.train(found, run)


@storage.owner("snorkel_results/")
def label_results() -> Iterator[str]:
    yield from _paths(SnorkelJob.objects.all(), "result_path")


@storage.owner("classifier_results/")
def classifier_results() -> Iterator[str]:
    yield from _paths(ClassifierJob.objects.all(), "result_path")
    yield from _paths(ClassifierJob.objects.all(), "predictions_path")
    yield from _paths(Model.objects.all(), "storage_path")


def _paths(rows: "QuerySet[Any]", field: str) -> Iterator[str]:
    yield from rows.exclude(**{field: None}).values_list(field, flat=True).iterator()
