"""The first rows of a product, in values that JSON can hold."""

from __future__ import annotations

import math
from typing import Any

from concepts.models import SqlAsset
from tippers import storage


def preview(asset: SqlAsset, limit: int) -> dict[str, Any]:
    """`columns` and their `types` (Arrow's names), `row_count` in all, and the first `rows`.

    Rows are objects by column name. NotPossibleNow if the asset is not materialized.
    """
    asset.require_materialized()
    with storage.open_parquet(asset.storage_key) as file:
        schema = file.schema_arrow
        batch = next(file.iter_batches(batch_size=limit), None)
        rows = [] if batch is None else batch.slice(0, limit).to_pylist()
    return {
        "columns": schema.names,
        "types": [str(kind) for kind in schema.types],
        "row_count": asset.row_count,
        "rows": [{name: as_json(value) for name, value in row.items()} for row in rows],
    }


def as_json(value: Any) -> Any:
    """The renderer knows times and decimals; it has no word for NaN and for bytes."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return value.hex()
        case list() | tuple():
            return [as_json(item) for item in value]
        case dict():
            return {name: as_json(item) for name, item in value.items()}
    return value
