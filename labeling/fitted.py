"""Fitted classifiers in storage: signed, loaded only with that signature, asked for labels.

They are pickles (joblib's), which run code when they are loaded. So what is loaded lies below our
own prefix and carries an HMAC, keyed by SECRET_KEY, of its content and its place: whoever can write
to the storage, or to the table, cannot make us load anything. A format with an allow-list of types
would not say more: scikit-learn's trees and the boosting libraries need types on it that take raw
bytes.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
from django.utils.crypto import constant_time_compare, salted_hmac

from labeling.bank import answers
from labeling.classifiers import Column, Floats, Ints, encode
from labeling.models import ClassifierJob, Model
from tippers import storage
from tippers.errors import CannotBeDone, NotPossibleNow

PREFIX = "classifier_results/"
SALT = "labeling.fitted"
LIBRARIES = ("scikit-learn", "numpy", "joblib", "lightgbm", "xgboost", "xgboost-cpu")


class NotOurs(CannotBeDone):
    """An object that this installation did not store; it is not loaded (HTTP 409)."""

    status = 409
    code = "not_ours"


@dataclass(frozen=True)
class Classifier:
    """A loaded pipeline with its columns and the cv_ids that its answers 0, 1, ... stand for."""

    pipeline: Any
    columns: list[Column]
    cv_ids: Ints


def row(
    job: ClassifierJob,
    key: str,
    data: bytes,
    *,
    rank: int,
    scores: dict[str, Any],
    columns: Sequence[Column],
    classes: list[dict[str, Any]],
) -> Model:
    """The row, not yet saved, of a pipeline that joblib wrote and that was stored under `key`."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Model(
        job=job,
        rank=rank,
        name=scores["Model"],
        storage_path=storage.uri(key),
        byte_size=len(data),
        sha256=sha256,
        signature=_signature(key, sha256),
        features=[asdict(column) for column in columns],
        classes=classes,
        versions=versions(),
        scores=scores,
    )


def load(model: Model) -> Classifier:
    """The fitted pipeline of a row.

    NotOurs, before anything of it is read as code, when it lies elsewhere or its content is not what
    we stored; NotPossibleNow when a library it was fitted with has another version here.
    """
    key = storage.key_of(model.storage_path)
    if not key.startswith(f"{PREFIX}job_{model.job_id}/models/"):
        raise NotOurs(f"{model.storage_path} is not where fitted models of this job are kept.")
    data = storage.read_bytes(key)
    signature = _signature(key, hashlib.sha256(data).hexdigest())
    if not constant_time_compare(signature, model.signature):
        raise NotOurs(
            f"The stored model {model.name} is not as this installation left it (or SECRET_KEY is "
            "another one now); train it anew."
        )
    here = versions()
    for library, then in model.versions.items():
        if here.get(library) != then:
            raise NotPossibleNow(
                f"{model.name} was fitted with {library} {then}, and here is "
                f"{here.get(library, 'none')}; train it anew."
            )
    import joblib

    return Classifier(
        joblib.load(io.BytesIO(data)),
        [Column(**column) for column in model.features],
        np.array([each["cv_id"] for each in model.classes], dtype=np.int64),
    )


def predict(classifier: Classifier, table: pa.Table) -> tuple[Ints, Floats]:
    """(labels, confidence) of a table with the model's columns by name.

    Labels are cv_ids; confidence is the label's probability, nan where the model has none.
    CannotBeDone names a column that is missing or of another kind.
    """
    classes, confidence = answers(classifier.pipeline, encode(table, classifier.columns))
    return classifier.cv_ids[classes], confidence


def versions() -> dict[str, str]:
    """The installed versions of what a pipeline may be made of."""
    there = {name: list(metadata.distributions(name=name)) for name in LIBRARIES}
    return {name: found[0].version for name, found in there.items() if found}


def _signature(key: str, sha256: str) -> str:
    return salted_hmac(SALT, f"{key} {sha256}", algorithm="sha256").hexdigest()
