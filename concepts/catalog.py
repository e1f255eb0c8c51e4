"""What data assets there are, of one concept or of all."""

from __future__ import annotations

from typing import Any

from concepts.models import Concept, Feature, Index, Rule, SqlAsset

# With what staleness is judged by, so that no asset costs a query of its own.
KINDS: tuple[tuple[type[SqlAsset], str], ...] = (
    (Index, "conn"),
    (Rule, "index__conn"),
    (Feature, "index__conn"),
)


def catalog(concept: Concept, *, materialized_only: bool = False) -> dict[str, list[SqlAsset]]:
    """The concept's assets by kind (`indexes`, `rules`, `features`), each by id, with its run."""
    found = {}
    for model, related in KINDS:
        assets = _all(model).filter(c=concept).select_related("run", related)
        assets = assets.defer("column_stats")  # long, and shown with one asset only
        if materialized_only:
            assets = assets.filter(is_materialized=True)
        found[model.folder] = list(assets)
    return found


def stats(concept: Concept) -> dict[str, Any]:
    """Counts and rows per kind; `summary` counts indexes and rules, as the API reference does."""
    blocks = {kind: _counts(assets) for kind, assets in catalog(concept).items()}
    summed = [blocks[Index.folder], blocks[Rule.folder]]
    summary = {
        "total_assets": sum(block["total"] for block in summed),
        "materialized_assets": sum(block["materialized"] for block in summed),
        "total_data_rows": sum(block["total_rows"] for block in summed),
    }
    return {"concept_id": concept.pk, **blocks, "summary": summary}


def _counts(assets: list[SqlAsset]) -> dict[str, int]:
    materialized = sum(asset.is_materialized for asset in assets)
    return {
        "total": len(assets),
        "materialized": materialized,
        "unmaterialized": len(assets) - materialized,
        "stale": sum(asset.is_stale for asset in assets),
        "total_rows": sum(asset.row_count or 0 for asset in assets),
    }


def every_asset() -> list[SqlAsset]:
    """The assets of all concepts: indexes, then rules, then features, each by id."""
    shown = ("name", "is_materialized", "materialized_at", "row_count", "run", "c__name")
    return [asset for model, _ in KINDS for asset in _all(model).select_related("c").only(*shown)]


def _all(model: type[SqlAsset]) -> Any:
    return model._default_manager.order_by("pk")  # noqa: SLF001 - Django's documented name
