"""Classifier jobs: launch one, do its work, show its result."""

import json
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from concepts.models import Concept, Feature
from labeling import result_pages
from labeling.label_jobs import not_yet
from labeling.models import ABSTAIN, ClassifierJob, Model, SnorkelJob
from labeling.result_pages import Choice, as_parquet, page
from labeling.result_pages import predictions as shown
from tippers import storage
from tippers.errors import CannotBeDone, NotPossibleNow
from tippers.runs import engine
from tippers.runs.claims import LostLease
from tippers.runs.engine import RunHandle, Stopped

if TYPE_CHECKING:
    import pyarrow as pa

    from labeling.bank import BankResult, Predictions
    from labeling.classifiers import FeatureMatrix, Filtered, Ints


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
    """The work of a run: labels and features to a table, the bank over it, results into storage."""
    from labeling.bank import train_bank

    inputs = job.inputs_now()
    given = _given(job, run)
    with tempfile.TemporaryFile() as packed:
        bank = train_bank(
            given.matrix.x,
            given.filtered.rows,
            given.y,
            test_size=job.config["test_size"],
            random_state=job.config["random_state"],
            watch=run,
            packed=packed,
        )
        for skipped in bank.skipped:
            run.log(f"{skipped.model} has no score: {skipped.reason}", "WARNING")
        if not bank.scores:
            raise CannotBeDone("No classifier could be trained; the run's log says why.")
        if bank.no_predictions:
            run.log(f"There are no predictions: {bank.no_predictions}", "WARNING")
        answer = json.dumps(_answer(given, bank, job.config)).encode()
        folder = _Folder(f"classifier_results/job_{job.job_id}", str(run.token))
        try:
            found = {"result_path": folder.put(".json", answer)}
            if bank.predictions is not None:
                table = as_parquet(_predictions(given, bank.predictions))
                found["predictions_path"] = folder.put(".parquet", table)
            models = _models(job, given, bank, packed, folder)
            with run.finishing():
                paths = {field: storage.uri(key) for field, key in found.items()}
                ClassifierJob.objects.filter(pk=job.pk).update(inputs=inputs, **paths)
                Model.objects.bulk_create(models)
        except (CannotBeDone, LostLease, Stopped):
            folder.clear()
            raise


class _Folder:
    """Where a run puts its objects, each under a name with its token; they can be taken back."""

    def __init__(self, path: str, token: str) -> None:
        self.path, self.token = path, token
        self.keys: list[str] = []

    def put(self, name: str, data: bytes, *, below: str = "") -> str:
        """The key of the object."""
        key = f"{self.path}/{below}{self.token}{name}"
        storage.put_bytes(key, data)
        self.keys.append(key)
        return key

    def clear(self) -> None:
        for key in self.keys:
            storage.delete(key)


@dataclass(frozen=True)
class _Given:
    """What a bank learns from: `matrix` has a row for each of `keys`, `y` for each filtered row.

    `classes[c]` is the concept value that class c stands for.
    """

    keys: "pa.Array"
    matrix: "FeatureMatrix"
    filtered: "Filtered"
    y: "Ints"
    classes: list[dict[str, Any]]


def _given(job: ClassifierJob, run: RunHandle) -> _Given:
    import numpy as np

    from labeling.classifiers import (
        FilterOptions,
        check_split,
        feature_matrix,
        filter_labels,
        sureness,
    )

    options = FilterOptions(**{n: job.config[n] for n in FilterOptions.__dataclass_fields__})
    keys, labels, confidence, probabilities, names = _labels(job.snorkel_job)
    filtered = filter_labels(
        labels, sureness(confidence, probabilities, options.threshold_method), names, options
    )
    check_split(filtered.stats["class_distribution_after_filter"], job.config["test_size"])
    for note in filtered.notes:
        run.log(note, "WARNING")
    matrix = feature_matrix(
        keys, job.snorkel_job.index.key_column, _feature_tables(job), learn_from=filtered.rows
    )
    for column, reason in matrix.left_out.items():
        run.log(f"{column} is not used: {reason}", "WARNING")
    run.log(f"{len(filtered.rows)} rows, {len(matrix.names)} features")
    cv_ids, y = np.unique(labels[filtered.rows], return_inverse=True)
    classes = [{"cv_id": cv_id, "name": names[cv_id]} for cv_id in cv_ids.tolist()]
    return _Given(keys, matrix, filtered, y, classes)


def _answer(given: _Given, bank: "BankResult", config: dict[str, Any]) -> dict[str, Any]:
    notes = list(given.filtered.notes)
    if bank.no_predictions:
        notes.append(f"There are no predictions: {bank.no_predictions}")
    return {
        "filtering_stats": given.filtered.stats,
        "model_scores": bank.scores,
        "num_models_trained": len(bank.scores),
        "skipped_models": [{"Model": s.model, "reason": s.reason} for s in bank.skipped],
        "classes": given.classes,
        "model_reports": [
            report(score["Model"], bank.confusion[score["Model"]], given.classes)
            for score in bank.scores
        ],
        "features_used": given.matrix.names,
        "features_left_out": given.matrix.left_out,
        "threshold_used": given.filtered.threshold,
        "notes": notes,
        "config_used": config,
    }


def report(
    model: str, confusion: list[list[int]], classes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A model on the test rows, class by class, from its confusion matrix (true x predicted).

    A share of nothing is 0: the precision of a class that is never predicted.
    """
    per_class = []
    for number, value in enumerate(classes):
        right = confusion[number][number]
        there = sum(confusion[number])
        said = sum(line[number] for line in confusion)
        per_class.append(
            {
                **value,
                "precision": right / said if said else 0.0,
                "recall": right / there if there else 0.0,
                "f1": 2 * right / (there + said) if there + said else 0.0,
                "support": there,
            }
        )
    return {"Model": model, "confusion_matrix": confusion, "per_class": per_class}


def _predictions(given: _Given, found: "Predictions") -> "pa.Table":
    """sample_id, predicted_label (cv_id; -1 without any feature), confidence, split."""
    import numpy as np
    import pyarrow as pa

    cv_ids = np.array([value["cv_id"] for value in given.classes])
    known = given.matrix.known
    split = np.array([None, "train", "test"], dtype=object)  # by UNUSED, TRAIN, TEST
    labels = np.where(known, cv_ids[found.classes], ABSTAIN)
    return pa.table(
        {
            "sample_id": given.keys,
            "predicted_label": pa.array(labels, pa.int64()),
            "confidence": pa.array(
                np.where(known, found.confidence, np.nan), pa.float64(), from_pandas=True
            ),
            "split": pa.array(split[found.used], pa.string()),
        }
    )


def _models(
    job: ClassifierJob, given: _Given, bank: "BankResult", packed: IO[bytes], folder: _Folder
) -> list[Model]:
    """The pipelines that the bank kept, into storage; their rows, not yet saved."""
    from labeling.fitted import row

    rows = []
    for rank, (fitted, scores) in enumerate(zip(bank.fitted, bank.scores, strict=False), start=1):
        packed.seek(fitted.offset)
        data = packed.read(fitted.size)
        key = folder.put(f"_{rank}.joblib", data, below="models/")
        rows.append(
            row(job, key, data, rank=rank, scores=scores, columns=given.matrix.columns,
                classes=given.classes)
        )  # fmt: skip
    return rows


def results(job: ClassifierJob) -> dict[str, Any]:
    """What the results endpoint answers."""
    if not job.is_completed or job.result_path is None:
        return not_yet(job.job_id, job.status, job.error_message)
    answer = json.loads(storage.read_bytes(storage.key_of(job.result_path)))
    return {"job_id": job.job_id, "status": job.status, "is_stale": job.is_stale, **answer}


def predictions(
    job: ClassifierJob, choice: Choice, *, skip: int, limit: int
) -> tuple[dict[str, Any], int]:
    """What the best classifier says of the entities, and how many were chosen in all.

    At most `limit` of them are shown, from `skip`. CannotBeDone for a class that the job has not.
    """
    best = job.models.first()
    if job.predictions_path is None or best is None:
        return {"job_id": job.job_id, "status": job.status, "message": _no_predictions(job)}, 0
    names = {value["cv_id"]: value["name"] for value in best.classes}
    choice.check(names)
    found = page(storage.key_of(job.predictions_path), choice, skip=skip, limit=limit)
    answer = {
        "job_id": job.job_id,
        "status": job.status,
        "is_stale": job.is_stale,
        "model": best.name,
        "classes": best.classes,
        "predictions": shown(found.rows, names),
    }
    return answer, found.total


def download(job: ClassifierJob, file_format: str) -> "IO[bytes] | Generator[bytes]":
    """All predictions: the stored Parquet file, or its rows as CSV. NotPossibleNow without them."""
    if job.predictions_path is None:
        raise NotPossibleNow(_no_predictions(job))
    key = storage.key_of(job.predictions_path)
    return result_pages.download(key, file_format)


def _no_predictions(job: ClassifierJob) -> str:
    if job.is_completed:
        return "The best classifier made no predictions; the notes of the job's results say why."
    return str(not_yet(job.job_id, job.status, job.error_message)["message"])


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
