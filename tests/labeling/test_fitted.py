"""What is loaded is what we stored, where we stored it; loaded, it says what it said when fitted."""

import io
import os
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pytest
from django.test import override_settings
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from labeling import bank, fitted
from labeling.classifiers import FeatureTable, feature_matrix
from labeling.models import ClassifierJob, Model
from tippers import storage
from tippers.errors import CannotBeDone, NotPossibleNow

CV_IDS = [17, 23]
KEY = "classifier_results/job_5/models/t_1.joblib"


def devices(rows: int = 80) -> tuple[pa.Table, Any]:
    rng = np.random.default_rng(5)
    kind = rng.integers(0, 2, rows)
    hours = [None if n % 9 == 0 else float(h) for n, h in enumerate(rng.normal(kind * 2.0, 1))]
    floors = np.array(["x", "y"])[(kind + (rng.random(rows) < 0.2)) % 2]
    return pa.table({"id": range(rows), "hours": hours, "floor": floors}), kind


def stored(data: bytes, key: str = KEY) -> Model:
    table, _ = devices()
    matrix = feature_matrix(pa.array(range(80)), "id", [FeatureTable("f", table, "id")])
    storage.put_bytes(key, data)
    return fitted.row(
        ClassifierJob(job_id=5), key, data, rank=1, scores={"Model": "LogisticRegression"},
        columns=matrix.columns, classes=[{"cv_id": cv_id, "name": str(cv_id)} for cv_id in CV_IDS],
    )  # fmt: skip


def trained() -> tuple[Any, bytes]:
    table, kind = devices()
    matrix = feature_matrix(pa.array(range(80)), "id", [FeatureTable("f", table, "id")])
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    pipeline.fit(matrix.x, kind)
    file = io.BytesIO()
    joblib.dump(pipeline, file)
    return pipeline, file.getvalue()


def test_a_loaded_model_says_of_raw_columns_what_the_fitted_one_says() -> None:
    pipeline, data = trained()
    classifier = fitted.load(stored(data))
    # Other rows, other column order, another type of text, a value that training never saw.
    asked = pa.table(
        {
            "floor": pa.array(["y", "x", None, "z"]).dictionary_encode(),
            "hours": [2.5, None, 0.0, 1.0],
        }
    )
    labels, confidence = fitted.predict(classifier, asked)
    nan = np.nan
    x = np.array([[2.5, 0, 1], [nan, 1, 0], [0.0, 0, 0], [1.0, 0, 0]])
    assert labels.tolist() == np.array(CV_IDS)[pipeline.predict(x)].tolist()
    assert set(labels.tolist()) == set(CV_IDS)
    np.testing.assert_allclose(confidence, pipeline.predict_proba(x).max(axis=1))


def test_a_table_without_a_column_or_with_another_kind_of_it_is_told() -> None:
    classifier = fitted.load(stored(trained()[1]))
    with pytest.raises(CannotBeDone, match="There is no column floor; there are: hours"):
        fitted.predict(classifier, pa.table({"hours": [1.0]}))
    with pytest.raises(CannotBeDone, match=r"The column hours is string; .* learned from double"):
        fitted.predict(classifier, pa.table({"hours": ["1"], "floor": ["x"]}))


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled_that_we_did_not_store(tmp_path: Any) -> None:
    model = stored(trained()[1])
    file = io.BytesIO()
    joblib.dump(Trap(str(tmp_path / "sprung")), file)
    storage.put_bytes(KEY, file.getvalue())
    with pytest.raises(fitted.NotOurs, match="not as this installation left it"):
        fitted.load(model)
    # Nor with the right hash in the row: the signature needs the key that only we have.
    model.sha256 = stored(file.getvalue()).sha256
    with pytest.raises(fitted.NotOurs):
        fitted.load(model)
    assert not (tmp_path / "sprung").exists()


def test_a_signature_holds_for_its_place_and_its_key_alone() -> None:
    _, data = trained()
    model = stored(data)
    with override_settings(SECRET_KEY="another"), pytest.raises(fitted.NotOurs, match="SECRET_KEY"):
        fitted.load(model)
    other = "classifier_results/job_5/models/t_2.joblib"
    storage.put_bytes(other, data)
    model.storage_path = storage.uri(other)
    with pytest.raises(fitted.NotOurs, match="not as this installation left it"):
        fitted.load(model)


@pytest.mark.parametrize(
    "key", ["snorkel_results/job_5/models/a", "classifier_results/job_6/models/a",
            "classifier_results/job_5/a"],
)  # fmt: skip
def test_an_object_elsewhere_is_refused_whatever_its_signature(key: str) -> None:
    model = stored(trained()[1], key)
    with pytest.raises(fitted.NotOurs, match="is not where fitted models of this job are kept"):
        fitted.load(model)


def test_a_model_of_another_version_of_a_library_is_refused_by_its_name() -> None:
    model = stored(trained()[1])
    assert {"scikit-learn", "numpy"} <= set(model.versions)
    model.versions = model.versions | {"scikit-learn": "0.1"}
    with pytest.raises(NotPossibleNow, match=r"fitted with scikit-learn 0\.1, and here is 1"):
        fitted.load(model)


def test_answers_are_given_a_part_of_the_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = fitted.load(stored(trained()[1]))
    table, _ = devices()
    whole = fitted.predict(classifier, table)
    monkeypatch.setattr(bank, "ROWS_AT_ONCE", 7)
    parts = fitted.predict(classifier, table)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_allclose(whole[1], parts[1])
