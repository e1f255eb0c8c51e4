"""A world with one of everything, for tests that walk over all paths."""

from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection

from concepts.models import Concept, ConceptValue, Feature, Index, Rule
from connections.models import DatabaseConnection
from labeling.models import ClassifierJob, LabelingFunction, SnorkelJob
from occupancy.models import OccupancyDataset
from tests.labeling.conftest import Devices, devices
from tests.occupancy.conftest import (
    CAMPUS,
    ROOM,
    SessionsDatabase,
    _sessions_server,
    campus,
    sessions_db,
)

__all__ = ["_sessions_server", "campus", "devices", "sessions_db"]  # fixtures, for pytest to find


@dataclass(frozen=True)
class World:
    """Ids of what there is, by the name of the path's parameter."""

    devices: Devices
    ids: dict[str, Any]
    snorkel_job: int
    classifier_job: int


def template(devices: Devices, value: str) -> dict[str, Any]:
    """A template function, which no reviewer has to read first, that votes the value."""
    rooms = {"STATIC": ("==", 1), "LAPTOP": ("in", [2, 3]), "PHONE": (">", 3)}
    operator, number = rooms[value]
    label = devices.values[value]
    said = {"field": "rooms", "operator": operator, "value": number, "label": label}
    return {"rule_id": devices.rule.r_id, **said}


@pytest.fixture
def _far_from_guesses(transactional_db: None) -> None:
    """Ids begin at 5,000: a generator that tries 0, 1 and -1 deletes nothing of the world."""
    models = (Concept, ConceptValue, DatabaseConnection, Index, Rule, Feature, LabelingFunction)
    with connection.cursor() as cursor:
        for model in (*models, SnorkelJob, ClassifierJob, OccupancyDataset):
            meta = model._meta
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%s, %s), 5000)",
                [meta.db_table, meta.pk.column],
            )


@pytest.fixture
def world(_far_from_guesses: None, devices: Devices, campus: SessionsDatabase) -> World:
    """A concept with its assets, functions and finished jobs, and an occupancy dataset."""
    lf_ids = [
        devices.post("labeling-functions/template", {"name": name, **template(devices, name)})[
            "lf_id"
        ]
        for name in devices.values
    ]
    labels = devices.label(lf_ids)["job_id"]
    said = {"snorkel_job_id": labels, "feature_ids": [devices.feature.feature_id]}
    classifier = devices.post("classifiers/run", said)
    dataset = devices.api.post("/occupancy/datasets", {"name": "all", "root_space_id": CAMPUS})
    ids = {
        "c_id": devices.concept.c_id,
        "cv_id": devices.values["PHONE"],
        "conn_id": devices.index.conn_id,
        "index_id": devices.index.index_id,
        "r_id": devices.rule.r_id,
        "feature_id": devices.feature.feature_id,
        "lf_id": lf_ids[0],
        "dataset_id": dataset.json()["dataset_id"],
        "space_id": ROOM,
        "run_id": classifier["dagster_run_id"],
    }
    return World(devices, ids, labels, classifier["job_id"])
