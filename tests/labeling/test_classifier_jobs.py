"""Classifier jobs over REST, from labels to what is stored; the runs are performed in this process."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn
from pyarrow import csv

from labeling import fitted
from labeling.models import ClassifierJob, Model
from tests.conftest import body
from tests.labeling.conftest import DEVICES, Devices
from tippers import storage


def test_labels_and_features_become_ranked_classifiers(
    devices: Devices, django_capture_on_commit_callbacks: Any
) -> None:
    """One bank, which takes seconds; what it answers and stores is looked at in parts."""
    labels = devices.label(devices.four_functions(), epochs=500, lr=0.05)
    said = {"snorkel_job_id": labels["job_id"], "feature_ids": [devices.feature.feature_id]}
    job = devices.post("classifiers/run", said)
    assert job["status"] == "RUNNING"
    config = {
        "threshold_method": "max_confidence", "threshold_value": 0.7, "min_labels_per_class": 10,
        "imbalance_factor": 3.0, "test_size": 0.2, "random_state": 42, "relax_threshold": False,
    }  # fmt: skip
    assert job["config"] == config
    path = f"classifiers/jobs/{job['job_id']}"
    assert devices.get(f"{path}/results")["status"] == "PENDING"
    devices.perform_all()
    results = devices.get(f"{path}/results")
    assert results["status"] == "COMPLETED", results
    scores = results["model_scores"]
    assert len(scores) == results["num_models_trained"] >= 30
    assert list(scores[0]) == ["Model", "Accuracy", "Balanced Accuracy", "F1 Score", "Time Taken"]
    assert scores[0]["Balanced Accuracy"] > 0.9
    assert results["config_used"] == config
    assert results["features_used"] == ["mean_hours", "distinct_rooms", "noise"]
    stats = results["filtering_stats"]
    sure = [p for p in labels["predictions"] if p["confidence"] and p["confidence"] >= 0.7]
    assert stats["samples_before_filter"] == labels["summary"]["labelled"]
    assert stats["samples_after_filter"] == len(sure)
    assert sum(stats["class_distribution_after_filter"].values()) == len(sure)
    check_reports(results, devices)
    check_models(devices, path, scores)
    check_predictions(devices, job["job_id"], len(sure))
    assert f"/classifier_results/job_{job['job_id']}/" in devices.get(path)["result_path"]
    assert [j["job_id"] for j in devices.get("classifiers/jobs")] == [job["job_id"]]
    snorkel = f"{devices.root}/snorkel/jobs/{labels['job_id']}"
    assert devices.reviewer.delete(snorkel).status_code == 409
    assert len(list(storage.listed("classifier_results/"))) == 7
    with django_capture_on_commit_callbacks(execute=True):
        assert devices.reviewer.delete(f"{devices.root}/{path}").status_code == 204
    assert not list(storage.listed("classifier_results/"))


def classes_of(devices: Devices) -> list[dict[str, Any]]:
    return [{"cv_id": cv_id, "name": name} for name, cv_id in devices.values.items()]


def check_reports(results: dict[str, Any], devices: Devices) -> None:
    scores, values = results["model_scores"], classes_of(devices)
    assert results["classes"] == values
    assert [each["Model"] for each in results["model_reports"]] == [s["Model"] for s in scores]
    best = results["model_reports"][0]
    matrix = np.array(best["confusion_matrix"])
    test_rows = math.ceil(results["filtering_stats"]["samples_after_filter"] * 0.2)
    assert matrix.sum() == test_rows
    assert np.trace(matrix) / test_rows == pytest.approx(scores[0]["Accuracy"])
    assert [{"cv_id": c["cv_id"], "name": c["name"]} for c in best["per_class"]] == values
    recalls = [each["recall"] for each in best["per_class"]]
    assert sum(recalls) / 3 == pytest.approx(scores[0]["Balanced Accuracy"])
    f1 = sum(each["f1"] * each["support"] for each in best["per_class"]) / test_rows
    assert f1 == pytest.approx(scores[0]["F1 Score"])


def check_models(devices: Devices, path: str, scores: list[dict[str, Any]]) -> None:
    models = devices.get(f"{path}/models")
    assert [model["scores"] for model in models] == scores[:5]
    assert [model["rank"] for model in models] == [1, 2, 3, 4, 5]
    assert models[0]["classes"] == classes_of(devices)
    assert models[0]["features"][0] == {
        "feature": "use", "column": "mean_hours", "name": "mean_hours", "type": "double",
        "encoding": "number", "categories": [],
    }  # fmt: skip
    assert models[0]["versions"]["scikit-learn"] == sklearn.__version__
    page = devices.api.get(f"{devices.root}/{path}/models?skip=1&limit=2")
    assert ([model["rank"] for model in body(page)], page.headers["X-Total-Count"]) == ([2, 3], "5")


def check_predictions(devices: Devices, job_id: int, used: int) -> None:
    table = devices.feature.table()
    best = fitted.load(Model.objects.get(job_id=job_id, rank=1))
    labels, confidence = fitted.predict(best, table)
    right = np.array([devices.truth[mac] for mac in table.column("mac").to_pylist()])
    assert (labels == right).mean() > 0.9
    found = ClassifierJob.objects.get(job_id=job_id)
    assert found.predictions_path is not None
    predictions = storage.read_table(storage.key_of(found.predictions_path))
    assert predictions.column_names == ["sample_id", "predicted_label", "confidence", "split"]
    assert predictions.column("sample_id").to_pylist() == table.column("mac").to_pylist()
    assert predictions.column("predicted_label").to_pylist() == labels.tolist()
    shown = predictions.column("confidence").to_numpy(zero_copy_only=False)
    np.testing.assert_allclose(np.asarray(shown, dtype=float), confidence)
    check_pages(devices, f"classifiers/jobs/{job_id}/predictions", predictions)
    split = predictions.column("split").to_pylist()
    assert (split.count("train") + split.count("test"), len(split)) == (used, DEVICES)
    assert split.count("test") == math.ceil(used * 0.2)


def check_pages(devices: Devices, path: str, stored: pa.Table) -> None:
    names = {cv_id: name for name, cv_id in devices.values.items()}
    rows = stored.to_pylist()
    answer = devices.get(f"{path}?limit=1000")
    assert answer["classes"] == classes_of(devices)
    assert answer["model"] == devices.get(path.replace("predictions", "models"))[0]["name"]
    assert answer["predictions"] == [
        {"sample_id": row["sample_id"], "predicted_class": row["predicted_label"],
         "predicted_name": names[row["predicted_label"]], "confidence": row["confidence"],
         "split": row["split"]}
        for row in rows
    ]  # fmt: skip
    static = [row for row in rows if row["predicted_label"] == devices.values["STATIC"]]
    wanted = f"{path}?predicted_class={devices.values['STATIC']}"
    page = devices.api.get(f"{devices.root}/{wanted}&skip=3&limit=2")
    assert page.headers["X-Total-Count"] == str(len(static))
    shown = [each["sample_id"] for each in body(page)["predictions"]]
    assert shown == [row["sample_id"] for row in static[3:5]]
    assert "predicted_class" in devices.get(f"{path}?predicted_class=9999", status=400)["errors"]
    for asked, read in (("parquet", pq.read_table), ("csv", csv.read_csv)):
        file = devices.api.get(f"{devices.root}/{path}/download?format={asked}")
        table = read(pa.BufferReader(file.getvalue()))
        assert table.column_names == stored.column_names
        assert table.column("predicted_label").to_pylist() == [r["predicted_label"] for r in rows]


def test_too_few_labels_fail_the_job_with_the_counts(devices: Devices) -> None:
    labels = devices.label(devices.four_functions())
    said = {
        "snorkel_job_id": labels["job_id"], "feature_ids": [devices.feature.feature_id],
        "config": {"min_labels_per_class": 100},
    }  # fmt: skip
    job = devices.post("classifiers/run", said)
    devices.perform_all()
    failed = devices.get(f"classifiers/jobs/{job['job_id']}")
    assert failed["status"] == "FAILED"
    assert "fewer than 100 labels (STATIC: " in failed["error_message"]
    predictions = f"classifiers/jobs/{job['job_id']}/predictions"
    assert failed["error_message"] in devices.get(predictions)["message"]
    assert failed["error_message"] in devices.get(f"{predictions}/download", status=409)["detail"]
    assert devices.get(f"classifiers/jobs/{job['job_id']}/models") == []
    assert not ClassifierJob.objects.exclude(result_path=None).exists()


def test_a_classifier_job_needs_finished_labels_and_materialized_features(devices: Devices) -> None:
    lf_ids = devices.four_functions()
    labels = {"selectedIndex": devices.index.index_id, "selectedLFs": lf_ids}
    waiting = devices.post("snorkel/run", labels)
    features = [devices.feature.feature_id]
    said = {"snorkel_job_id": waiting["job_id"], "feature_ids": features}
    refused = devices.post("classifiers/run", said, status=400)
    assert "must be COMPLETED" in refused["errors"]["snorkel_job_id"][0]
    devices.perform_all()
    changes: list[tuple[dict[str, Any], str]] = [
        ({"snorkel_job_id": 99_999}, "snorkel_job_id"),
        ({"feature_ids": []}, "feature_ids"),
        ({"feature_ids": [99_999]}, "feature_ids"),
        ({"config": {"threshold_method": "best"}}, "config"),
        ({"config": {"threshold_value": 2}}, "config"),
        ({"config": {"test_size": 1}}, "config"),
        ({"config": {"imbalance_factor": 0.5}}, "config"),
    ]
    for change, field in changes:
        assert field in devices.post("classifiers/run", said | change, status=400)["errors"]
    devices.feature.change(sql_query="SELECT 2")
    refused = devices.post("classifiers/run", said, status=400)
    assert "not materialized" in refused["errors"]["feature_ids"][0]
    assert not ClassifierJob.objects.exists()
