"""What data assets there are, of one concept or of all."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce

from concepts.models import Concept, Feature, Index, Rule, SqlAsset

KINDS: tuple[tuple[type[SqlAsset], str], ...] = (
    (Index, "conn"),
    (Rule, "index__conn"),
    (Feature, "index__conn"),
)


def catalog(concept: Concept, *, materialized_only: bool = False) -> dict[str, list[SqlAsset]]:
    """The concept's assets by kind (`indexes`, `rules`, `features`), each by id."""
    found = {}
    for model, related in KINDS:
        assets = _all(model).filter(c=concept).select_related(related).defer("column_stats")
        if materialized_only:
            assets = assets.filter(is_materialized=True)
        found[model.folder] = list(assets)
    return found


def stats(concept: Concept) -> dict[str, Any]:
    """Counts and rows per kind; `summary` counts indexes and rules, as the API reference does."""
    blocks = {
        model.folder: _all(model)
        .filter(c=concept)
        .aggregate(
            total=Count("pk"),
            materialized=Count("pk", filter=Q(is_materialized=True)),
            unmaterialized=Count("pk", filter=Q(is_materialized=False)),
            total_rows=Coalesce(Sum("row_count"), 0),
        )
        for model, _ in KINDS
    }
    summed = [blocks[Index.folder], blocks[Rule.folder]]
    summary = {
        "total_assets": sum(block["total"] for block in summed),
        "materialized_assets": sum(block["materialized"] for block in summed),
        "total_data_rows": sum(block["total_rows"] for block in summed),
    }
    return {"concept_id": concept.pk, **blocks, "summary": summary}


def every_asset() -> list[SqlAsset]:
    """The assets of all concepts: indexes, then rules, then features, each by id."""
    shown = ("name", "is_materialized", "materialized_at", "row_count", "run", "c__name")
    return [asset for model, _ in KINDS for asset in _all(model).select_related("c").only(*shown)]


def _all(model: type[SqlAsset]) -> Any:
    return model._default_manager.order_by("pk")  # noqa: SLF001 - Django's documented name
