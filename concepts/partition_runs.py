"""Materialize an asset part by part: plan the parts, make each in a run of its own, unite them.

The parent run `materialize_partitions` comes in two kinds. For the whole asset it launches the
plan, then every part, a few dozen at a time so that a long list starves nobody, then the union.
For one part, run again, it launches that, and the union if no other part is missing. Either way
the product changes only with the union, in one UPDATE: until then the last version is current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.db.models import QuerySet

from concepts import partitioning
from concepts.column_stats import ColumnStats
from concepts.materialize import (
    changed_meanwhile,
    check_columns,
    counted,
    discarded_unless_current,
    publish,
    query_of,
    rendered,
    stored,
)
from concepts.models import PartitionExecution, SqlAsset
from tippers import storage
from tippers.errors import CannotBeDone, NotFound, NotPossibleNow
from tippers.runs import engine, parents
from tippers.runs.engine import RunHandle
from tippers.runs.models import ACTIVE, Run, RunStatus

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 32  # parts waiting or running; more than any machine has slots
NAMED_FAILURES = 5
RUN_ANEW = "It was run anew meanwhile; that later run makes the whole current."


def launch_one(
    asset: SqlAsset, partition_key: str, user: AbstractBaseUser | AnonymousUser | None
) -> Run:
    """Start the part's run again, and what follows from it; the run under way if there is one.

    NotFound without such a part; NotPossibleNow while the whole is being made, or if the part
    belongs to an earlier definition or earlier inputs.
    """
    with transaction.atomic():
        now = asset.locked()
        part = asset.partitions.filter(partition_key=partition_key).select_related("run").first()
        if now is None or part is None:
            raise NotFound(
                f"The {asset.kind} {asset.name} has no partition {partition_key}; "
                "materialize it to have its partitions found."
            )
        if part.fingerprint != now.fingerprint():
            raise NotPossibleNow(
                f"What the {asset.kind} {asset.name} is made from changed since its partitions "
                "were planned; materialize the whole."
            )
        if Run.objects.filter(key=now.run_key, status__in=ACTIVE).exists():
            raise NotPossibleNow(
                f"The whole {asset.kind} {asset.name} is being materialized; wait for that run to "
                "end, or cancel it."
            )
        if part.run is None or part.run.status not in ACTIVE:
            _parts(part.pk).update(run=None, row_count=None, storage_path=None)
        run = parents.launch_parent(
            "materialize_partitions",
            key=f"{now.run_key}:{part.pk}",
            args={
                asset.pk_name: asset.pk,
                "fingerprint": part.fingerprint,
                "execution_id": part.pk,
            },
            created_by=user,
            unit="steps",
        )
        asset.follow(run)
    return run


def advance(asset: SqlAsset, parent: Run) -> str | None:
    """What the parent does next; why it fails, once it is clear that it does."""
    fingerprint, only = parent.args["fingerprint"], parent.args.get("execution_id")
    all_parts = asset.partitions.filter(fingerprint=fingerprint)
    wanted = all_parts
    if only is not None:
        wanted = all_parts.filter(pk=only)
    elif not _is_planned(asset, parent):
        return None
    active = parent.children.filter(status__in=ACTIVE).count()
    for part in wanted.filter(run=None, storage_path=None)[: max(AT_ONCE - active, 0)]:
        run = engine.launch(
            "materialize_partition",
            key=f"partition:{part.pk}",
            args={"execution_id": part.pk},
            created_by=parent.created_by,
            parent=parent,
        )
        _parts(part.pk).update(run=run)
        active += 1
    steps_around = 1 if only is not None else 2  # the union; the plan
    parent.progress_total = wanted.count() + steps_around
    if active:
        return None
    if not wanted.exists():
        return RUN_ANEW if asset.fingerprint() == fingerprint else changed_meanwhile(asset).detail
    missing = all_parts.filter(storage_path=None)
    if not missing.exists():
        _unite(asset, parent, all_parts)
        return None
    if said := _failures(wanted):
        return said
    parent.progress_total -= 1
    names = ", ".join(part.partition_key for part in missing[:NAMED_FAILURES])
    parent.progress_message = f"before the whole is current, {names} must be run, too"[:300]
    return None


def _is_planned(asset: SqlAsset, parent: Run) -> bool:
    plan = parent.children.filter(job="plan_partitions").first()
    if plan is None:
        engine.launch(
            "plan_partitions",
            key=f"plan:{parent.key}",
            args={asset.pk_name: asset.pk, "fingerprint": parent.args["fingerprint"]},
            created_by=parent.created_by,
            parent=parent,
        )
    return plan is not None and plan.status == RunStatus.SUCCESS


def _unite(asset: SqlAsset, parent: Run, parts: QuerySet[PartitionExecution]) -> None:
    """Launch the union, once for each set of parts: two parts that end together launch one."""
    if parent.children.filter(job="unite_partitions").exists():
        return
    engine.launch(
        "unite_partitions",
        key=f"unite:{asset.kind}:{asset.pk}:{_state(parts)}",
        args={asset.pk_name: asset.pk, "fingerprint": parent.args["fingerprint"]},
        created_by=parent.created_by,
        parent=parent,
    )


def _failures(parts: QuerySet[PartitionExecution]) -> str | None:
    failed = parts.filter(run__status=RunStatus.FAILURE, storage_path=None).select_related("run")
    count = failed.count()
    if not count:
        return None
    sentences = [
        f"{part.partition_key}: {part.run.error_message}"
        for part in failed[:NAMED_FAILURES]
        if part.run is not None
    ]
    others = f" And {count - NAMED_FAILURES} more." if count > NAMED_FAILURES else ""
    return (
        f"{count} of {parts.count()} partitions failed; each can be run again alone. "
        f"{' '.join(sentences)}{others}"
    )


# The work of the children


def plan(asset: SqlAsset, run: RunHandle, fingerprint: str) -> None:
    """Find the parts that there are and write a row for each in place of the earlier ones."""
    kind, config = asset.partition_type, asset.partition_config
    if kind is None or config is None or asset.fingerprint() != fingerprint:
        raise changed_meanwhile(asset)
    source = rendered(asset)
    with query_of(run, replace(source, text=partitioning.columns_query(source.text))) as reader:
        schema = reader.schema
    check_columns(asset, schema.names, run)
    keys_query = partitioning.keys_query(
        source.text, kind, config, schema=schema, dialect=source.target.dialect
    )
    with query_of(run, replace(source, text=keys_query)) as reader:
        keys = reader.read_all().column(0)
    parts = partitioning.parts(kind, config, keys, schema)
    run.log(f"{len(parts)} partitions by {config['column']}")
    with run.finishing():
        now = asset.locked()
        if now is None or now.fingerprint() != fingerprint:
            raise changed_meanwhile(asset)
        asset.partitions.delete()
        PartitionExecution.objects.bulk_create(
            PartitionExecution(
                partition_key=part.key,
                bounds=part.bounds,
                fingerprint=fingerprint,
                **{asset.pk_name: asset.pk},
            )
            for part in parts
        )


def make(part: PartitionExecution, run: RunHandle) -> None:
    """Make the rows of one part."""
    asset = part.asset
    kind, config = asset.partition_type, asset.partition_config
    if kind is None or config is None or asset.fingerprint() != part.fingerprint:
        raise changed_meanwhile(asset)
    run.log(f"partition {part.partition_key}")
    source = rendered(asset)
    text = partitioning.part_query(
        source.text, kind, config, bounds=part.bounds, dialect=source.target.dialect
    )
    key = f"{asset.folder}/{asset.kind}_{asset.pk}/partitions/{run.token}.parquet"
    written = stored(asset, run, key, replace(source, text=text))
    with discarded_unless_current(key), run.finishing():
        # Planned anew, or run again, it belongs to another run now.
        if (
            not _parts(part.pk)
            .filter(run_id=run.run_id)
            .update(storage_path=storage.uri(key), row_count=written.rows)
        ):
            raise CannotBeDone(RUN_ANEW)


def unite(asset: SqlAsset, run: RunHandle, fingerprint: str) -> None:
    """Make the union of all parts the asset's product."""
    inputs = asset.inputs_now()
    parts = asset.partitions.filter(fingerprint=fingerprint)
    state = _state(parts)
    keys = [storage.key_of(path) for path in parts.values_list("storage_path", flat=True) if path]
    if asset.fingerprint() != fingerprint or not keys:
        raise changed_meanwhile(asset)
    with storage.open_parquet(keys[0]) as file:
        schema = file.schema_arrow
    key = f"{asset.folder}/{asset.kind}_{asset.pk}/{run.token}.parquet"
    stats = ColumnStats()
    written = storage.write_parquet(key, schema, counted(_batches(keys, schema), run), stats.add)
    run.log(f"{len(keys)} partitions, {written.rows} rows, {written.bytes} bytes")

    def confirm() -> None:
        if _state(parts.all()) != state:
            raise CannotBeDone(RUN_ANEW)

    publish(asset, run, key, written, stats, inputs=inputs, confirm=confirm)


def _batches(keys: list[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for key in keys:
        with storage.open_parquet(key) as file:
            if not file.schema_arrow.equals(schema):
                raise CannotBeDone(
                    "The columns of the partitions differ, since the tables that they come from "
                    "changed meanwhile; materialize the whole."
                )
            for batch in file.iter_batches():
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _state(parts: QuerySet[PartitionExecution]) -> str:
    """A hash of what the parts are now: each run of a part stores under a name of its own."""
    paths = parts.order_by("execution_id").values_list("execution_id", "storage_path")
    return hashlib.sha256(repr(list(paths)).encode()).hexdigest()


def _parts(pk: int) -> QuerySet[PartitionExecution]:
    return PartitionExecution.objects.filter(pk=pk)
