"""What depends on what in a concept, and how each part stands. Pure: rows in, a graph out."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from concepts.models import DerivedAsset, SqlAsset
from tippers.runs.models import ACTIVE, Run, RunStatus


class State(StrEnum):
    """How a node stands. Of two that hold, the one further up is shown."""

    RUNNING = "running"  # a run makes it, or waits to
    CURRENT = "current"
    FAILED = "failed"  # not current, and the run for what it is defined as now failed
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True)
class Node:
    """Something that is made from other things. `row_count` and the time are its product's."""

    id: str
    kind: str
    name: str
    state: State
    stale_reason: str | None = None
    run_id: uuid.UUID | None = None
    row_count: int | None = None
    materialized_at: datetime | None = None


@dataclass(frozen=True)
class Edge:
    """`target` is made from `source`; both are ids of nodes."""

    source: str
    target: str


@dataclass
class Lineage:
    """Nodes, each after those it is made from, and edges."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)

    def add(self, node: Node, made_from: Iterable[str] = ()) -> None:
        self.nodes.append(node)
        self.edges += [Edge(source, node.id) for source in made_from]


def node_id(kind: str, pk: int) -> str:
    """`index:1`."""
    return f"{kind}:{pk}"


def of_assets(assets: Iterable[SqlAsset]) -> Lineage:
    """The lineage of loaded assets, indexes first.

    Load `run`, `conn` and `index__conn` with them, or each asset costs queries.
    """
    found = Lineage()
    for asset in assets:
        node = Node(
            id=node_id(asset.kind, asset.pk),
            kind=asset.kind,
            name=asset.name,
            state=_state(asset),
            stale_reason=asset.stale_reason,
            run_id=asset.run_id,
            row_count=asset.row_count,
            materialized_at=asset.materialized_at,
        )
        index = asset.index_id if isinstance(asset, DerivedAsset) else None
        found.add(node, [] if index is None else [node_id("index", index)])
    return found


def state(run: Run | None, *, has_product: bool, is_stale: bool, is_of_now: bool) -> State:
    """`is_of_now`: the run was for what the thing is defined as now, not for an earlier version."""
    if run is not None and run.status in ACTIVE:
        return State.RUNNING
    if has_product and not is_stale:
        return State.CURRENT
    if run is not None and run.status == RunStatus.FAILURE and is_of_now:
        return State.FAILED
    return State.STALE if has_product else State.MISSING


def _state(asset: SqlAsset) -> State:
    return state(
        asset.run,
        has_product=asset.is_materialized,
        is_stale=asset.is_stale,
        # The run of one partition has a key that goes on after this.
        is_of_now=asset.run is not None and asset.run.key.startswith(asset.run_key),
    )
