"""Bring everything of a concept that is stale or missing up to date, in the order of dependence."""

from __future__ import annotations

from collections import defaultdict

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from concepts import materialize
from concepts.catalog import catalog
from concepts.models import Concept, DerivedAsset, SqlAsset
from tippers.errors import CannotBeDone
from tippers.runs import parents
from tippers.runs.models import ACTIVE, Run, RunStatus

AT_ONCE = 32  # waiting or running; more than any machine has slots, and others want theirs


def launch(concept: Concept, user: AbstractBaseUser | AnonymousUser | None) -> Run:
    """One parent run for all of it; the concept's active one if there is one.

    With nothing to do it has ended when this returns.
    """
    return parents.launch_parent(
        "materialize_concept",
        key=f"concept:{concept.pk}",
        args={"c_id": concept.pk},
        created_by=user,
    )


def launched(parent: Run) -> list[SqlAsset]:
    """The assets whose latest run is a child of this parent."""
    return [asset for asset in _assets(parent) if _is_ours(asset, parent)]


def advance(parent: Run) -> str | None:
    """Launch what is ready now; say what cannot be brought about, None if there is no such thing.

    An asset is ready when its index is current. It is tried once for each definition, so that
    what failed waits for somebody to mend it.
    """
    broken: dict[tuple[str, int], str] = {}
    left_out: dict[str, list[str]] = defaultdict(list)  # by what they need
    waiting: set[tuple[str, int]] = set()
    active = parent.children.filter(status__in=ACTIVE).count()
    to_come = 0
    for asset in _assets(parent):
        me = (asset.kind, asset.pk)
        above = ("index", asset.index_id) if isinstance(asset, DerivedAsset) else None
        if _is_under_way(asset, parent):
            waiting.add(me)
        elif not _needs_run(asset):
            continue
        elif above in waiting:
            to_come += 1
        elif isinstance(asset, DerivedAsset) and above in broken:
            left_out[f"index {asset.index.name}"].append(f"{asset.kind} {asset.name}")
        elif (why := _failure(asset, parent)) is not None:
            broken[me] = f"The {asset.kind} {asset.name} {why}"
        elif active >= AT_ONCE:
            waiting.add(me)
            to_come += 1
        elif (why := _launch(asset, parent)) is not None:
            broken[me] = f"The {asset.kind} {asset.name} {why}"
        else:
            waiting.add(me)
            active += 1
    to_come += sum(map(len, left_out.values()))
    parent.progress_total = parent.children.count() + to_come
    without = [
        f"Left out for want of the {what}: {', '.join(names)}." for what, names in left_out.items()
    ]
    return " ".join([*broken.values(), *without]) or None


def _assets(parent: Run) -> list[SqlAsset]:
    """Indexes first."""
    concept = Concept(c_id=parent.args["c_id"])
    return [asset for assets in catalog(concept).values() for asset in assets]


def _is_ours(asset: SqlAsset, parent: Run) -> bool:
    return asset.run is not None and asset.run.parent_id == parent.run_id


def _is_under_way(asset: SqlAsset, parent: Run) -> bool:
    """A run of ours works on the asset as it is defined now."""
    run = asset.run
    if run is None or not _is_ours(asset, parent):
        return False
    return run.status in ACTIVE and run.key == asset.run_key


def _needs_run(asset: SqlAsset) -> bool:
    return not asset.is_materialized or asset.is_stale


def _failure(asset: SqlAsset, parent: Run) -> str | None:
    """How our run for the asset as it is defined now ended, if it made no product."""
    run = asset.run
    if run is None or not _is_ours(asset, parent) or run.key != asset.run_key:
        return None
    if run.status == RunStatus.FAILURE:
        return f"failed: {run.error_message}"
    return "was cancelled." if run.status == RunStatus.CANCELLED else None


def _launch(asset: SqlAsset, parent: Run) -> str | None:
    """Start the asset's run; why not, if it cannot be started."""
    try:
        with transaction.atomic():
            materialize.launch(asset, parent.created_by, parent)
    except CannotBeDone as refused:
        return f"cannot be started: {refused.detail}"
    return None
