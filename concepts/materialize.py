"""Run an asset's query on its connection and make the result the asset's current product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from concepts.column_stats import ColumnStats
from concepts.models import DerivedAsset, Feature, SqlAsset
from connections import query
from tippers import sql, storage
from tippers.errors import CannotBeDone
from tippers.runs import engine, parents
from tippers.runs.claims import LostLease
from tippers.runs.engine import RunHandle, Stopped
from tippers.runs.models import Run

if TYPE_CHECKING:
    import pyarrow as pa


def launch(
    asset: SqlAsset,
    user: AbstractBaseUser | AnonymousUser | None,
    parent: Run | None = None,
) -> Run:
    """Start materializing; the run that is under way already if there is one for this definition.

    CannotBeDone if it needs an index that is not materialized.
    """
    if isinstance(asset, DerivedAsset) and not asset.index.is_materialized:
        raise CannotBeDone(
            f"The {asset.kind} {asset.name} needs the index {asset.index.name}, which is not "
            "materialized; materialize that first."
        )
    with transaction.atomic():
        if asset.partition_type is None:
            run = engine.launch(
                f"materialize_{asset.kind}",
                key=asset.run_key,
                args={asset.pk_name: asset.pk},
                created_by=user,
                parent=parent,
            )
        else:
            run = parents.launch_parent(
                "materialize_partitions",  # concepts.partition_runs
                key=asset.run_key,
                args={asset.pk_name: asset.pk, "fingerprint": asset.fingerprint()},
                created_by=user,
                parent=parent,
                unit="steps",
            )
        asset.follow(run)
    return run


def materialize(asset: SqlAsset, run: RunHandle) -> None:
    """The work of a run: stream the query's result into storage, then make it current.

    CannotBeDone if the query or its result is not usable, or if the definition changed meanwhile.
    Until the last step nothing that can be read changes.
    """
    inputs = asset.inputs_now()
    key = f"{asset.folder}/{asset.kind}_{asset.pk}/{run.token}.parquet"
    stats = ColumnStats()
    written = stored(asset, run, key, rendered(asset), stats.add)
    publish(asset, run, key, written, stats, inputs=inputs)


@dataclass(frozen=True)
class Source:
    """A query with all values in it, and where it runs: what `query.stream` takes."""

    target: query.Target
    text: str
    index_table: sql.IndexTable | None


def rendered(asset: SqlAsset) -> Source:
    """The asset's query as it runs now."""
    target = asset.connection.target()
    values, index_type = _index_values(asset) if isinstance(asset, DerivedAsset) else (None, None)
    table = None if values is None else sql.index_table(values, index_type, target.dialect)
    text = sql.render(
        asset.sql_query,
        dialect=target.dialect,
        params=asset.query_template_params,
        index_values=values,
        index_type=index_type,
        table=table,
        existing_names=partial(query.existing_names, target),
    )
    return Source(target, text, table)


def stored(
    asset: SqlAsset,
    run: RunHandle,
    key: str,
    source: Source,
    watch: Callable[[pa.Table], None] = lambda _: None,
) -> storage.Written:
    """Stream the result of the query into the object `key`, and show its parts to `watch`."""
    run.log(f"the query runs on the connection {asset.connection.name}")
    with query_of(run, source) as reader:
        check_columns(asset, reader.schema.names, run)
        written = storage.write_parquet(key, reader.schema, counted(reader, run), watch)
    run.log(f"{written.rows} rows, {written.bytes} bytes")
    return written


@contextmanager
def query_of(run: RunHandle, source: Source) -> Iterator[pa.RecordBatchReader]:
    """The result of the query, which ends with the run."""
    try:
        with query.stream(
            source.target, source.text, on_stop=run.on_stop, index_table=source.index_table
        ) as reader:
            yield reader
    except query.QueryStopped:
        run.check()  # raises what the stop was for, in the engine's words
        raise


def publish(
    asset: SqlAsset,
    run: RunHandle,
    key: str,
    written: storage.Written,
    stats: ColumnStats,
    *,
    inputs: dict[str, str | None],
    confirm: Callable[[], None] = lambda: None,
) -> None:
    """End the run and make the object `key` the asset's product, made from `inputs`.

    `stats` has seen its rows. `confirm` is called while the asset is locked and raises CannotBeDone
    if it must not be.
    """
    columns = stats.found()
    with discarded_unless_current(key), run.finishing():
        became_current = asset.become_current(
            inputs=inputs,
            storage_path=storage.uri(key),
            row_count=written.rows,
            byte_size=written.bytes,
            content_sha256=written.sha256,
            column_stats=columns,
        )
        if not became_current:
            raise changed_meanwhile(asset)
        confirm()


@contextmanager
def discarded_unless_current(key: str) -> Iterator[None]:
    """Delete the object when the block does not make it current."""
    try:
        yield
    except (CannotBeDone, LostLease, Stopped):
        # Only where the object is known not to be current: when a commit's answer is lost, it may
        # be, and what it leaves behind otherwise is swept as an orphan.
        storage.delete(key)
        raise


def changed_meanwhile(asset: SqlAsset) -> CannotBeDone:
    """Why a result is not used."""
    return CannotBeDone(
        f"The definition of the {asset.kind} changed while its query ran, so the "
        "result was discarded; materialize it again."
    )


def _index_values(asset: DerivedAsset) -> tuple[pa.Array, str | None]:
    """The distinct values of the index column without null, and the database's name of its type.

    The name is None where Arrow has a type of its own for it.
    """
    column = asset.key_column
    asset.index.require_column(column)
    table = asset.index.table([column])
    source_type = (table.schema.field(0).metadata or {}).get(b"source_type")
    return (
        table.column(0).drop_null().unique(),
        None if source_type is None else source_type.decode(),
    )


def check_columns(asset: SqlAsset, names: list[str], run: RunHandle) -> None:
    """CannotBeDone unless the columns of the result can be those of the asset's product."""
    there = ", ".join(names)
    if not names:
        raise CannotBeDone("The result has no columns.", field="sql_query")
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise CannotBeDone(
            f"The result has more than one column {', '.join(doubled)}; give each a name of its "
            "own with AS.",
            field="sql_query",
        )
    asked_for = (asset.columns or []) if isinstance(asset, Feature) else []
    if missing := [name for name in asked_for if name not in names]:
        raise CannotBeDone(
            f"The result has no column {', '.join(missing)}; it has: {there}.", field="columns"
        )
    if isinstance(asset, DerivedAsset) and asset.key_column not in names:
        run.log(
            f"the result has no column {asset.key_column}, so it cannot be joined to the index; "
            f"it has: {there}",
            "WARNING",
        )


def counted(reader: Iterable[pa.RecordBatch], run: RunHandle) -> Iterator[pa.RecordBatch]:
    """The batches as they come, their rows shown as the run's progress."""
    rows = 0
    for batch in reader:
        rows += batch.num_rows
        run.progress(rows, unit="rows")
        yield batch
