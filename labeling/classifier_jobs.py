"""Classifier jobs: launch one, do its work, show its result."""

import json
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from concepts.models import Concept, Feature
from labeling.label_jobs import not_yet
from labeling.models import ClassifierJob, SnorkelJob
from tippers import storage
from tippers.errors import CannotBeDone
from tippers.runs import engine
from tippers.runs.claims import LostLease
from tippers.runs.engine import RunHandle, Stopped


def launch(
    concept: Concept,
    *,
    snorkel_job: SnorkelJob,
    features: Sequence[Feature],
    config: dict[str, Any],
    user: AbstractBaseUser | AnonymousUser | None,
) -> ClassifierJob:
    """Start a job. CannotBeDone if the labels or a feature are not there."""
    if not snorkel_job.is_completed:
        raise CannotBeDone(
            f"The Snorkel job {snorkel_job.job_id} is {snorkel_job.status}; it must be COMPLETED.",
            field="snorkel_job_id",
        )
    for feature in features:
        if not feature.is_materialized:
            raise CannotBeDone(
                f"The feature {feature.name} is not materialized; materialize it first.",
                field="feature_ids",
            )
    with transaction.atomic():
        job = ClassifierJob.objects.create(
            c=concept,
            snorkel_job=snorkel_job,
            feature_ids=[feature.feature_id for feature in features],
            config=config,
        )
        job.run = engine.launch(
            "classifier_training",
            key=f"classifier_training:{job.job_id}",
            args={"job_id": job.job_id},
            created_by=user,
        )
        job.save(update_fields=["run"])
    return job


def train(job: ClassifierJob, run: RunHandle) -> None:
    """The work of a run: labels and features to a table, the bank over it, scores into storage."""
    import numpy as np
    import pyarrow.compute as pc

    from labeling.bank import train_bank
    from labeling.classifiers import (
        FilterOptions,
        check_split,
        feature_matrix,
        filter_labels,
        sureness,
    )

    inputs = job.inputs_now()
    config = job.config
    options = FilterOptions(**{name: config[name] for name in FilterOptions.__dataclass_fields__})
    keys, labels, confidence, probabilities, names = _labels(job.snorkel_job)
    filtered = filter_labels(
        labels,
        sureness(confidence, probabilities, options.threshold_method),
        names,
        options,
    )
    check_split(filtered.stats["class_distribution_after_filter"], config["test_size"])
    for note in filtered.notes:
        run.log(note, "WARNING")
    matrix = feature_matrix(
        pc.take(keys, filtered.rows), job.snorkel_job.index.key_column, _feature_tables(job)
    )
    for column, reason in matrix.left_out.items():
        run.log(f"{column} is not used: {reason}", "WARNING")
    run.log(f"{len(filtered.rows)} rows, {len(matrix.names)} features")
    _, y = np.unique(labels[filtered.rows], return_inverse=True)
    bank = train_bank(
        matrix.x,
        y,
        test_size=config["test_size"],
        random_state=config["random_state"],
        watch=run,
    )
    for skipped in bank.skipped:
        run.log(f"{skipped.model} has no score: {skipped.reason}", "WARNING")
    if not bank.scores:
        raise CannotBeDone("No classifier could be trained; the run's log says why.")
    answer = {
        "filtering_stats": filtered.stats,
        "model_scores": bank.scores,
        "num_models_trained": len(bank.scores),
        "skipped_models": [{"Model": s.model, "reason": s.reason} for s in bank.skipped],
        "features_used": matrix.names,
        "features_left_out": matrix.left_out,
        "threshold_used": filtered.threshold,
        "notes": filtered.notes,
        "config_used": config,
    }
    key = f"classifier_results/job_{job.job_id}/{run.token}.json"
    storage.put_bytes(key, json.dumps(answer).encode())
    try:
        with run.finishing():
            ClassifierJob.objects.filter(pk=job.pk).update(
                result_path=storage.uri(key), inputs=inputs
            )
    except (CannotBeDone, LostLease, Stopped):
        storage.delete(key)
        raise


def results(job: ClassifierJob) -> dict[str, Any]:
    """What the results endpoint answers."""
    if not job.is_completed or job.result_path is None:
        return not_yet(job.job_id, job.status, job.error_message)
    answer = json.loads(storage.read_bytes(storage.key_of(job.result_path)))
    return {"job_id": job.job_id, "status": job.status, "is_stale": job.is_stale, **answer}


def _labels(job: SnorkelJob) -> tuple[Any, Any, Any, Any, dict[int, str]]:
    """(keys, labels, confidence, probabilities or None, names by cv_id) of a finished job."""
    import numpy as np

    if job.result_path is None or job.report is None:
        raise CannotBeDone(f"The Snorkel job {job.job_id} has no result.")
    table = storage.read_table(storage.key_of(job.result_path))
    columns = [name for name in table.column_names if name.startswith("prob_class_")]
    probabilities = (
        np.column_stack([table.column(name).to_numpy() for name in columns]) if columns else None
    )
    names = dict(zip(job.report["class_cv_ids"], job.report["class_names"], strict=True))
    return (
        table.column("sample_id").combine_chunks(),
        table.column("predicted_label").to_numpy(),
        table.column("confidence").to_numpy(),
        probabilities,
        names,
    )


def _feature_tables(job: ClassifierJob) -> list[Any]:
    from labeling.classifiers import FeatureTable

    there = Feature.objects.select_related("index").in_bulk(job.feature_ids)
    tables = []
    for feature_id in job.feature_ids:
        feature = there.get(feature_id)
        if feature is None:
            raise CannotBeDone(f"The feature {feature_id} was deleted.")
        tables.append(
            FeatureTable(feature.name, feature.table(), feature.key_column, feature.columns)
        )
    return tables
