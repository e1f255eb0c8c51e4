"""Background jobs: one per kind of SQL asset, those of its partitions, and one for a concept."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from django.db.models import QuerySet

from concepts import partition_runs, refresh
from concepts.materialize import materialize
from concepts.models import Feature, Index, PartitionExecution, Rule, SqlAsset
from tippers import storage
from tippers.errors import NotFound
from tippers.runs.engine import RunHandle, job
from tippers.runs.models import Run
from tippers.runs.parents import parent_job

TIMEOUT = timedelta(hours=1)
# By the name of their id, with what their queries need.
ASSETS: dict[str, Any] = {
    "index_id": Index.objects.select_related("conn"),
    "r_id": Rule.objects.select_related("index__conn"),
    "feature_id": Feature.objects.select_related("index__conn"),
}


@job(queue="short", timeout=TIMEOUT)
def materialize_index(run: RunHandle, *, index_id: int) -> None:
    materialize(_asset(index_id=index_id), run)


@job(queue="short", timeout=TIMEOUT)
def materialize_rule(run: RunHandle, *, r_id: int) -> None:
    materialize(_asset(r_id=r_id), run)


@job(queue="short", timeout=TIMEOUT)
def materialize_feature(run: RunHandle, *, feature_id: int) -> None:
    materialize(_asset(feature_id=feature_id), run)


@parent_job
def materialize_partitions(parent: Run) -> str | None:
    return partition_runs.advance(_asset(**parent.args), parent)


@job(queue="short", timeout=TIMEOUT)
def plan_partitions(run: RunHandle, /, *, fingerprint: str, **asset_id: int) -> None:
    partition_runs.plan(_asset(**asset_id), run, fingerprint)


@job(queue="short", timeout=TIMEOUT)
def materialize_partition(run: RunHandle, *, execution_id: int) -> None:
    part = PartitionExecution.objects.filter(pk=execution_id).first()
    if part is None:
        raise NotFound(partition_runs.RUN_ANEW)
    partition_runs.make(part, run)


@job(queue="short", timeout=TIMEOUT)
def unite_partitions(run: RunHandle, /, *, fingerprint: str, **asset_id: int) -> None:
    partition_runs.unite(_asset(**asset_id), run, fingerprint)


@parent_job
def materialize_concept(parent: Run) -> str | None:
    return refresh.advance(parent)


def _asset(**args: Any) -> SqlAsset:
    """The asset whose id is among a run's arguments."""
    (name,) = ASSETS.keys() & args.keys()
    asset: SqlAsset | None = ASSETS[name].filter(pk=args[name]).first()
    if asset is None:
        kind = ASSETS[name].model.kind
        raise NotFound(f"The {kind} {args[name]} was deleted before it was materialized.")
    return asset


def _products(name_of_id: str) -> Iterator[str]:
    """Where the current products of a kind are, and the parts that they are being made of."""
    yield from _paths(ASSETS[name_of_id])
    yield from _paths(PartitionExecution.objects.exclude(**{name_of_id: None}))


def _paths(rows: "QuerySet[Any]") -> Iterator[str]:
    stored = rows.exclude(storage_path=None).values_list("storage_path", flat=True)
    yield from stored.iterator()


for _name_of_id, _assets in ASSETS.items():
    storage.owner(f"{_assets.model.folder}/")(partial(_products, _name_of_id))
