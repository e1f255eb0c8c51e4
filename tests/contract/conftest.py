"""A world with one of everything, for tests that walk over all paths."""

from dataclasses import dataclass
from typing import Any

import pytest
from pytest_django.fixtures import Settings

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


@pytest.fixture
def world(devices: Devices, campus: SessionsDatabase, settings: Settings) -> World:
    """A concept with its assets, functions and finished jobs, and an occupancy dataset."""
    settings.ALLOWED_DB_NETWORKS = ["127.0.0.0/8", "::1/128"]
    lf_ids = devices.four_functions()
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
        "id": ROOM,
        "run_id": classifier["dagster_run_id"],
    }
    return World(devices, ids, labels, classifier["job_id"])
