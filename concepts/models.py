"""Concepts, their values, and the three kinds of SQL asset: index, rule, feature.

An asset is a definition (a query and what it runs on) and, once materialized, a product: one
Parquet object. The two live in one row, so that a single UPDATE can make a product current and a
single UPDATE can take it away when the definition changes.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from connections.models import DatabaseConnection
from tippers import storage
from tippers.errors import CannotBeDone, NotFound, NotPossibleNow

if TYPE_CHECKING:
    import pyarrow as pa

    from tippers.runs.models import Run


class Concept(models.Model):
    """What devices are to be classified by, e.g. "device_classification"."""

    c_id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=255, unique=True)
    description = models.TextField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "concepts"
        ordering = ["c_id"]

    def __str__(self) -> str:
        return self.name


class ConceptValue(models.Model):
    """One of the classes of a concept, e.g. STATIC."""

    cv_id = models.BigAutoField(primary_key=True)
    c = models.ForeignKey(Concept, on_delete=models.CASCADE, related_name="values")
    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    display_order = models.IntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "concept_values"
        verbose_name = "value"
        ordering = [models.F("display_order").asc(nulls_last=True), "cv_id"]
        constraints = [models.UniqueConstraint(fields=["c", "name"], name="unique_value_name")]

    def __str__(self) -> str:
        return self.name


class PartitionType(models.TextChoices):
    """How the key space of a query is cut into parts."""

    TIME = "time"
    ID_RANGE = "id_range"
    CATEGORICAL = "categorical"


class SqlAsset(models.Model):
    """A query of a concept and its current product.

    The product's fields (`PRODUCT_FIELDS`) are set together by `become_current` and cleared
    together by `change`; nothing else writes them. `is_materialized` is true exactly while
    `storage_path` names an object.

    `inputs` holds what the product was made from, as hashes by name: the definition, the
    connection's address, and for rules and features the content of the index. A product whose
    inputs are no longer those of today is stale, but it stays readable.
    """

    DEFINITION_FIELDS: ClassVar[tuple[str, ...]] = (
        "sql_query",
        "query_template_params",
        "partition_type",
        "partition_config",
    )
    PRODUCT_FIELDS: ClassVar[tuple[str, ...]] = (
        "storage_path",
        "materialized_at",
        "row_count",
        "byte_size",
        "content_sha256",
        "column_stats",
        "inputs",
    )
    kind: ClassVar[str]
    folder: ClassVar[str]

    # pk is declared by each kind: its name is the id's name on the wire.
    c = models.ForeignKey(Concept, on_delete=models.CASCADE)
    name = models.CharField(max_length=255)
    sql_query = models.TextField()
    query_template_params = models.JSONField(null=True, blank=True)
    partition_type = models.CharField(max_length=50, choices=PartitionType.choices, null=True)
    partition_config = models.JSONField(null=True, blank=True)

    storage_path = models.CharField(max_length=500, null=True, editable=False)
    is_materialized = models.BooleanField(default=False, editable=False)
    materialized_at = models.DateTimeField(null=True, editable=False)
    row_count = models.BigIntegerField(null=True, editable=False)
    byte_size = models.BigIntegerField(null=True, editable=False)
    content_sha256 = models.CharField(max_length=64, null=True, editable=False)
    # A list in the order of the result's columns: jsonb does not keep the order of keys.
    column_stats = models.JSONField(null=True, editable=False)
    inputs = models.JSONField(null=True, editable=False)
    run = models.ForeignKey(
        "runs.Run", null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
        constraints = [models.UniqueConstraint(fields=["c", "name"], name="unique_%(class)s_name")]
        indexes = [models.Index(fields=["is_materialized"], name="idx_%(class)s_materialized")]

    def __str__(self) -> str:
        return self.name

    # Queries

    @property
    def connection(self) -> DatabaseConnection:
        """Where the query runs."""
        raise NotImplementedError

    @property
    def key_column(self) -> str:
        """The column that names the entity, by which tables of one index are joined.

        NotPossibleNow if it depends on an index that is not materialized.
        """
        raise NotImplementedError

    @property
    def columns_of_product(self) -> list[str]:
        """The current product's columns in their order; empty when there is no product."""
        return [str(column["name"]) for column in self.column_stats or []]

    @property
    def is_stale(self) -> bool:
        """The product was made from something that is no longer so."""
        return self.stale_reason is not None

    @property
    def stale_reason(self) -> str | None:
        """What the product was made from that is no longer so, in a sentence; None if nothing is.

        None, too, without a product: it is missing then, not stale.
        """
        now, then = self.inputs_now(), self.inputs or {}
        if not self.is_materialized or now == then:
            return None
        # Only names of inputs that there are: one more or fewer comes with another version of us.
        changed = [name for name in now if now[name] != then.get(name)] or ["definition"]
        return f"Since it was materialized, {' and '.join(map(self._changed, changed))}."

    def _changed(self, name: str) -> str:
        """That the input of this name is another one now, in the words of `stale_reason`."""
        match name:
            case "connection":
                return f"the connection {self.connection.name} was pointed to another database"
            case _:
                return f"its {name} changed"

    def inputs_now(self) -> dict[str, str | None]:
        """What a product made now would be made from: hashes by name of input."""
        connection = self.connection
        return {
            "definition": _hash({field: getattr(self, field) for field in self.DEFINITION_FIELDS}),
            "connection": _hash(
                [
                    connection.connection_type,
                    connection.host,
                    connection.port,
                    connection.database,
                    connection.user,
                ]
            ),
        }

    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that decides the result, save the source's own rows."""
        return _hash(self.inputs_now())

    @property
    def run_key(self) -> str:
        """The natural key of a run that materializes this asset as it is defined now."""
        return f"{self.kind}:{self.pk}:{self.fingerprint()}"

    def require_materialized(self) -> None:
        """NotPossibleNow unless there is a product to read."""
        if not self.is_materialized:
            raise NotPossibleNow(
                f"The {self.kind} {self.name} is not materialized; materialize it first."
            )

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """The current product, whole or only `columns`; NotPossibleNow if there is none."""
        self.require_materialized()
        return storage.read_table(self.storage_key, columns)

    @property
    def storage_key(self) -> str:
        """The key of the current product in storage."""
        assert self.storage_path is not None  # noqa: S101 - callers hold a materialized asset
        return storage.key_of(self.storage_path)

    @property
    def pk_name(self) -> str:
        """The id's name on the wire: index_id, r_id, feature_id."""
        return self._meta.pk.name

    @property
    def partitions(self) -> models.QuerySet[PartitionExecution]:
        """The parts that the key space was cut into when the asset was last planned, in order."""
        return PartitionExecution.objects.filter(**{self.pk_name: self.pk})

    # Mutators

    def _update(self, **fields: Any) -> None:
        if not self._rows().update(**fields):
            raise NotFound(f"The {self.kind} {self.name} was deleted meanwhile.")

    def _rows(self) -> models.QuerySet[Self]:
        """This row, to update or to lock without writing what else the instance holds."""
        return type(self)._default_manager.filter(pk=self.pk)  # noqa: SLF001 - Django documents it

    def change(self, **fields: Any) -> None:
        """Write an edit; one that alters what is computed takes the product away with it.

        Only the fields named are written, so that an edit never undoes a concurrent one. Its
        partitions go, too: they are parts of a product that nobody can ask for any more.
        """
        changed = {name: value for name, value in fields.items() if getattr(self, name) != value}
        if not changed:
            return
        if changed.keys() & set(self.DEFINITION_FIELDS):
            changed |= dict.fromkeys(self.PRODUCT_FIELDS) | {"is_materialized": False}
        changed["updated_at"] = timezone.now()
        with transaction.atomic():
            self._update(**changed)
            if "is_materialized" in changed:
                self.partitions.delete()
        self.refresh_from_db()

    def follow(self, run: Run) -> None:
        """Point to the latest run that materializes this asset."""
        self._update(run=run)

    def locked(self) -> Self | None:
        """This asset as it is now, its row locked until the transaction ends; None if deleted.

        Only this row is locked, and what it depends on is read after the lock is held: a join in
        the locking statement would show the state from before the wait.
        """
        return self._rows().select_for_update(no_key=True).first()

    def become_current(
        self, *, inputs: dict[str, str | None], storage_path: str, **product: Any
    ) -> bool:
        """Make a product current if it was made from what holds now; False if not.

        `product` gives the other `PRODUCT_FIELDS`. Call it inside a transaction: the row stays
        locked until its end, so that of two runs with different inputs the later one wins.
        """
        now = self.locked()
        if now is None or now.inputs_now() != inputs:
            return False
        self._rows().update(
            is_materialized=True,
            materialized_at=Now(),
            inputs=inputs,
            storage_path=storage_path,
            **product,
        )
        return True


class Index(SqlAsset):
    """The sample: which entities a concept is about. The first column names the entity."""

    DEFINITION_FIELDS = (*SqlAsset.DEFINITION_FIELDS, "conn_id")
    kind = "index"
    folder = "indexes"

    index_id = models.BigAutoField(primary_key=True)
    conn = models.ForeignKey(DatabaseConnection, on_delete=models.RESTRICT, related_name="indexes")

    class Meta(SqlAsset.Meta):
        db_table = "concept_indexes"
        verbose_name = "index"
        verbose_name_plural = "indexes"
        ordering = ["index_id"]

    @property
    def connection(self) -> DatabaseConnection:
        return self.conn

    @property
    def key_column(self) -> str:
        self.require_materialized()
        return self.columns_of_product[0]

    def identity(self, column: str | None = None) -> str | None:
        """A hash of what is made from the values of `column`, by default the first one, rests on.

        It is that of the set of its values: neither their order, which a query without ORDER BY
        may change, nor the other columns matter. Where they were too many to be told apart, it is
        that of the whole file. None without a product.
        """
        for stats in self.column_stats or []:
            if column is None or stats["name"] == column:
                return stats.get("distinct_sha256") or self.content_sha256
        return self.content_sha256

    def require_column(self, column: str) -> None:
        """CannotBeDone, with the columns there are, if the product lacks this one."""
        self.require_materialized()
        if column not in self.columns_of_product:
            there = ", ".join(self.columns_of_product)
            raise CannotBeDone(
                f"The index {self.name} has no column {column}; it has: {there}.",
                field="index_column",
            )


class DerivedAsset(SqlAsset):
    """A query about the entities of an index, run on the index's connection."""

    DEFINITION_FIELDS = (*SqlAsset.DEFINITION_FIELDS, "index_id", "index_column")

    index = models.ForeignKey(Index, on_delete=models.RESTRICT)
    index_column = models.CharField(max_length=255, null=True)

    class Meta(SqlAsset.Meta):
        abstract = True

    @property
    def connection(self) -> DatabaseConnection:
        return self.index.conn

    @property
    def key_column(self) -> str:
        return self.index_column or self.index.key_column

    def inputs_now(self) -> dict[str, str | None]:
        return super().inputs_now() | {"index": self.index.identity(self.index_column)}

    def _changed(self, name: str) -> str:
        if name != "index":
            return super()._changed(name)
        became = "got other content" if self.index.is_materialized else "lost its product"
        return f"the index {self.index.name} {became}"


class Rule(DerivedAsset):
    """Columns about each entity for labeling functions to vote on; knows no labels."""

    kind = "rule"
    folder = "rules"

    r_id = models.BigAutoField(primary_key=True)

    class Meta(DerivedAsset.Meta):
        db_table = "concept_rules"
        verbose_name = "rule"
        ordering = ["r_id"]


class Feature(DerivedAsset):
    """Columns about each entity for classifiers to learn from."""

    DEFINITION_FIELDS = (*DerivedAsset.DEFINITION_FIELDS, "columns")
    kind = "feature"
    folder = "features"

    feature_id = models.BigAutoField(primary_key=True)
    description = models.TextField(null=True, blank=True)
    columns = ArrayField(models.CharField(max_length=255), null=True, blank=True)
    level = models.IntegerField(null=True, blank=True)

    class Meta(DerivedAsset.Meta):
        db_table = "concept_features"
        verbose_name = "feature"
        ordering = ["feature_id"]


class PartitionExecution(models.Model):
    """One part of a partitioned asset, and its rows once they are there.

    Whole materializations write these rows anew; `fingerprint` says for which definition and
    inputs. The part is done while `storage_path` names its rows, waits while it has neither those
    nor a run, and is otherwise as its run says: there is no second status to drift.
    """

    execution_id = models.BigAutoField(primary_key=True)
    # Exactly one of the three; each is named like its asset's own id.
    index = models.ForeignKey(Index, null=True, on_delete=models.CASCADE, related_name="+")
    r = models.ForeignKey(Rule, null=True, on_delete=models.CASCADE, related_name="+")
    feature = models.ForeignKey(Feature, null=True, on_delete=models.CASCADE, related_name="+")
    partition_key = models.CharField(max_length=255)
    bounds = models.JSONField(null=True)  # see concepts.partitioning
    fingerprint = models.CharField(max_length=64)
    run = models.ForeignKey("runs.Run", null=True, on_delete=models.SET_NULL, related_name="+")
    row_count = models.BigIntegerField(null=True)
    storage_path = models.CharField(max_length=500, null=True)

    class Meta:
        db_table = "partition_executions"
        verbose_name = "partition"
        ordering = ["execution_id"]
        constraints = [
            models.UniqueConstraint(
                fields=["index", "partition_key"], name="unique_index_partition"
            ),
            models.UniqueConstraint(fields=["r", "partition_key"], name="unique_rule_partition"),
            models.UniqueConstraint(
                fields=["feature", "partition_key"], name="unique_feature_partition"
            ),
            models.CheckConstraint(
                condition=models.Q(index__isnull=False, r=None, feature=None)
                | models.Q(index=None, r__isnull=False, feature=None)
                | models.Q(index=None, r=None, feature__isnull=False),
                name="partition_of_one_asset",
            ),
        ]

    def __str__(self) -> str:
        return self.partition_key

    @property
    def asset(self) -> SqlAsset:
        """What this is a part of."""
        of = self.index or self.r or self.feature
        assert of is not None  # noqa: S101 - the database checks it
        return of

    @property
    def status(self) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED or CANCELLED."""
        if self.storage_path is not None:
            return "COMPLETED"
        return "PENDING" if self.run is None else self.run.domain_status


def _hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
