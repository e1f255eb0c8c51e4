"""Background jobs: label with Snorkel, train classifiers."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet

from labeling import classifier_jobs, label_jobs
from labeling.models import ClassifierJob, SnorkelJob
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
    yield from _results(SnorkelJob.objects.all())


@storage.owner("classifier_results/")
def classifier_results() -> Iterator[str]:
    yield from _results(ClassifierJob.objects.all())


def _results(jobs: "QuerySet[Any]") -> Iterator[str]:
    yield from jobs.exclude(result_path=None).values_list("result_path", flat=True).iterator()
