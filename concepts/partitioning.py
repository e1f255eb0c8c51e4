"""How an asset says that its key space is to be cut into parts."""

from __future__ import annotations

from typing import Any

from concepts.models import PartitionType
from tippers.errors import CannotBeDone

GRANULARITIES = ("hourly", "daily", "weekly", "monthly")


def check(kind: str | None, config: dict[str, Any] | None) -> None:
    """CannotBeDone unless both are null or `config` has the shape that `kind` asks for.

    time: {column, granularity}; id_range: {column, size}; categorical: {column}.
    """
    if kind is None and config is None:
        return
    if kind is None:
        raise CannotBeDone(
            f"partition_config needs a partition_type: {', '.join(PartitionType.values)}.",
            field="partition_type",
        )
    needed = {"column"}
    if kind == PartitionType.TIME:
        needed |= {"granularity"}
    elif kind == PartitionType.ID_RANGE:
        needed |= {"size"}
    config = config or {}
    if config.keys() != needed:
        raise _refused(f"For {kind} it must have exactly: {', '.join(sorted(needed))}.")
    if not isinstance(config["column"], str) or not config["column"].strip():
        raise _refused("column must be the name of a column.")
    if "granularity" in needed and config["granularity"] not in GRANULARITIES:
        raise _refused(f"granularity must be one of {', '.join(GRANULARITIES)}.")
    if "size" in needed and not (type(config["size"]) is int and config["size"] > 0):
        raise _refused("size must be a whole number above 0.")


def _refused(sentence: str) -> CannotBeDone:
    return CannotBeDone(sentence, field="partition_config")
