"""Background jobs: one per kind of SQL asset, and one for all of a concept."""

from datetime import timedelta
from typing import TypeVar

from django.db.models import QuerySet

from concepts import refresh
from concepts.materialize import materialize
from concepts.models import Feature, Index, Rule, SqlAsset
from tippers.errors import NotFound
from tippers.runs.engine import RunHandle, job
from tippers.runs.models import Run
from tippers.runs.parents import parent_job

TIMEOUT = timedelta(hours=1)
Asset = TypeVar("Asset", bound=SqlAsset)


@job(queue="short", timeout=TIMEOUT)
def materialize_index(run: RunHandle, *, index_id: int) -> None:
    materialize(_loaded(Index.objects.select_related("conn"), index_id), run)


@job(queue="short", timeout=TIMEOUT)
def materialize_rule(run: RunHandle, *, r_id: int) -> None:
    materialize(_loaded(Rule.objects.select_related("index__conn"), r_id), run)


@job(queue="short", timeout=TIMEOUT)
def materialize_feature(run: RunHandle, *, feature_id: int) -> None:
    materialize(_loaded(Feature.objects.select_related("index__conn"), feature_id), run)


@parent_job
def materialize_concept(parent: Run) -> str | None:
    return refresh.advance(parent)


def _loaded(assets: "QuerySet[Asset]", pk: int) -> Asset:
    asset = assets.filter(pk=pk).first()
    if asset is None:
        raise NotFound(f"The {assets.model.kind} {pk} was deleted before it was materialized.")
    return asset
