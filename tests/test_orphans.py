"""What no row points to goes after a day, and nothing else does, on local files and on S3."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from concepts.models import Concept, Feature, Index, PartitionExecution, Rule
from connections.models import DatabaseConnection
from labeling.models import ClassifierJob, Model, SnorkelJob
from occupancy.chunks import storage_key
from occupancy.models import OccupancySpaceChunk
from tests.s3 import client, use_s3
from tippers import storage, tasks
from tippers.runs.engine import PERIODICS

DAY = timedelta(days=1)
A_DAY_LATER = timedelta(seconds=-5)  # as a limit: even what was written just now is older


@pytest.fixture(params=["files", "s3"])
def vendor(request: pytest.FixtureRequest, settings: Settings) -> str:
    if request.param == "s3":
        use_s3(settings, request.getfixturevalue("s3_server"))
    return str(request.param)


def stored(key: str) -> str:
    storage.put_bytes(key, b"x")
    return storage.uri(key)


@pytest.fixture
def needed(db: None, vendor: str) -> set[str]:
    """One object that each kind of row points to; their keys."""
    conn = DatabaseConnection.register(name="c", url="postgresql://u:p@127.0.0.1:1/d")
    concept = Concept.objects.create(name="c")
    index = Index.objects.create(
        c=concept, name="i", conn=conn, sql_query="", storage_path=stored("indexes/index_1/a")
    )
    derived = {"c": concept, "index": index, "sql_query": ""}
    Rule.objects.create(**derived, name="r", storage_path=stored("rules/rule_1/a"))
    Feature.objects.create(**derived, name="f", storage_path=stored("features/feature_1/a"))
    PartitionExecution.objects.create(
        index=index, partition_key="p", storage_path=stored("indexes/index_1/partitions/a")
    )
    labels = SnorkelJob.objects.create(
        c=concept, index=index, lf_ids=[1], result_path=stored("snorkel_results/job_1/a")
    )
    job = ClassifierJob.objects.create(
        c=concept,
        snorkel_job=labels,
        feature_ids=[1],
        result_path=stored("classifier_results/job_1/a"),
        predictions_path=stored("classifier_results/job_1/b"),
    )
    parts = {"byte_size": 1, "features": [], "classes": [], "versions": {}, "scores": {}}
    Model.objects.create(
        **parts, job=job, rank=1, storage_path=stored("classifier_results/job_1/models/a")
    )
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    chunk = OccupancySpaceChunk.objects.create(  # computed anew just now
        space_id=7, interval_seconds=3600, chunk_start=begin, chunk_end=begin + DAY
    )
    stored(storage_key(chunk))
    return {each.key for each in storage.listed("")}


ORPHANS = [
    "indexes/index_1/b",
    "rules/rule_9/partitions/b",
    "features/feature_1/b",
    "snorkel_results/job_1/b",
    "classifier_results/job_2/b",
    "classifier_results/job_1/models/b",
    "health/b",
    "occupancy/spaces/7/3600/chunk_20240102T000000_20240103T000000.parquet",
]


def test_orphans_go_after_a_day_and_nothing_else(needed: set[str]) -> None:
    assert len(needed) == 9
    for key in ORPHANS:
        stored(key)
    assert storage.sweep(DAY) == 0
    assert storage.sweep(A_DAY_LATER) == len(ORPHANS)
    assert {each.key for each in storage.listed("")} == needed
    assert storage.sweep(A_DAY_LATER) == 0


def test_a_storage_that_was_moved_is_not_full_of_orphans(needed: set[str]) -> None:
    Index.objects.update(storage_path="file:///elsewhere/storage/indexes/index_1/a")
    Rule.objects.update(storage_path="s3://former/deep/down/rules/rule_1/a")
    assert storage.sweep(A_DAY_LATER) == 0
    assert {each.key for each in storage.listed("")} == needed


def test_what_a_killed_writer_began_goes_too(
    db: None, settings: Settings, s3_server: str, tmp_path: Path
) -> None:
    """Local files that were never renamed, and uploads that were never completed."""
    begun = tmp_path / "storage" / ".incoming" / "begun"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"half of")
    storage.sweep(DAY)
    assert begun.exists()
    yesterday = time.time() - 25 * 3600
    os.utime(begun, (yesterday, yesterday))
    storage.sweep(DAY)
    assert not begun.exists()

    use_s3(settings, s3_server)
    s3 = client(s3_server)
    s3.create_multipart_upload(Bucket="bucket", Key="indexes/index_1/begun")
    assert len(s3.list_multipart_uploads(Bucket="bucket")["Uploads"]) == 1
    storage.sweep(DAY)  # this server says of every upload that it began in 2010
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="bucket")


def test_every_folder_that_is_written_to_has_an_owner() -> None:
    """Else what dies there stays for ever."""
    assert set(storage._OWNERS) == {f"{key.partition('/')[0]}/" for key in ORPHANS[:-1]} | {
        "occupancy/spaces/"
    }
    assert PERIODICS["storage.sweep"].function is tasks.sweep_storage
