"""Concepts, values, SQL assets and their catalog over REST."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import Model, QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ValidationError

from concepts import catalog, materialize, partition_runs, partitioning, refresh
from concepts.lineage import node_id
from concepts.models import (
    Concept,
    ConceptValue,
    Feature,
    Index,
    PartitionExecution,
    Rule,
    SqlAsset,
)
from concepts.preview import preview
from connections.models import DatabaseConnection
from tippers import sql, storage
from tippers.api import ID, IdField, ModelSerializer, ModelViewSet, found
from tippers.downloads import PARQUET, WhateverIsAsked, as_download
from tippers.paging import MAX_LIMIT, limit_parameter, whole_number

PREVIEW_ROWS = 20


class ConceptSerializer(ModelSerializer):
    """A concept on the wire."""

    class Meta:
        model = Concept
        fields = ("c_id", "name", "description", "created_at", "updated_at")


class OfConceptSerializer(ModelSerializer):
    """Something below a concept, by a name that is unique there."""

    c_id = serializers.IntegerField(read_only=True)

    @property
    def concept_id(self) -> int:
        return int(self.context["view"].kwargs["c_id"])

    def validate_name(self, name: str) -> str:
        model: type[Model] = self.Meta.model
        namesakes = model._default_manager.filter(c_id=self.concept_id, name=name)  # noqa: SLF001 - Django's documented name
        if self.instance is not None:
            namesakes = namesakes.exclude(pk=self.instance.pk)
        if namesakes.exists():
            raise ValidationError(
                f"This concept already has the {model._meta.verbose_name} {name}."  # noqa: SLF001 - Django's public Options
            )
        return name


class ConceptValueSerializer(OfConceptSerializer):
    """A concept's value on the wire."""

    class Meta:
        model = ConceptValue
        fields = ("cv_id", "c_id", "name", "description", "display_order", "created_at")


class JsonObjectField(serializers.DictField):
    """A JSON object that PostgreSQL can store: it has no NUL and no half of a surrogate pair."""

    def to_internal_value(self, data: Any) -> dict[Any, Any]:
        value: dict[Any, Any] = super().to_internal_value(data)
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:
            raise ValidationError("Must be valid Unicode and finite numbers.") from error
        if rb"\u0000" in text:
            raise ValidationError("Must not contain the character NUL.")
        return value


ASSET_FIELDS = (
    "name", "sql_query", "query_template_params", "partition_type", "partition_config",
    "storage_path", "is_materialized", "materialized_at", "row_count", "created_at", "updated_at",
    "is_stale", "stale_reason", "byte_size", "column_stats", "dagster_run_id",
)  # fmt: skip


class SqlAssetSerializer(OfConceptSerializer):
    """What the three kinds of asset share on the wire."""

    query_template_params = JsonObjectField(required=False, allow_null=True)
    partition_config = JsonObjectField(required=False, allow_null=True)
    is_stale = serializers.BooleanField(read_only=True)
    stale_reason = serializers.CharField(read_only=True, allow_null=True)
    column_stats = serializers.ListField(
        child=serializers.DictField(), read_only=True, allow_null=True
    )
    dagster_run_id = serializers.UUIDField(source="run_id", read_only=True, allow_null=True)

    def after(self, attrs: dict[str, Any], name: str) -> Any:
        """What the field will be once `attrs` are saved."""
        return attrs[name] if name in attrs else getattr(self.instance, name, None)

    def connection_after(self, attrs: dict[str, Any]) -> DatabaseConnection:
        """Where the definition will run once `attrs` are saved."""
        raise NotImplementedError

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        partitioning.check(
            self.after(attrs, "partition_type"), self.after(attrs, "partition_config")
        )
        if attrs.keys() & {"sql_query", "query_template_params", "conn", "index"}:
            dialect = self.connection_after(attrs).connection_type
            params = self.after(attrs, "query_template_params")
            sql.judge(self.after(attrs, "sql_query"), dialect, params)
        return attrs

    def update(self, instance: SqlAsset, validated_data: dict[str, Any]) -> SqlAsset:
        instance.change(
            **{
                f"{name}_id" if isinstance(value, Model) else name: (
                    value.pk if isinstance(value, Model) else value
                )
                for name, value in validated_data.items()
            }
        )
        return instance


class IndexSerializer(SqlAssetSerializer):
    """An index on the wire."""

    conn_id = IdField(
        source="conn",
        queryset=DatabaseConnection.objects.all(),
        error_messages={"does_not_exist": "There is no connection {pk_value}."},
    )

    class Meta:
        model = Index
        fields = ("index_id", "c_id", "conn_id", *ASSET_FIELDS)

    def connection_after(self, attrs: dict[str, Any]) -> DatabaseConnection:
        connection: DatabaseConnection = self.after(attrs, "conn")
        return connection


class IndexOfConcept(IdField):
    """An index of the concept in the path; there are no others."""

    default_error_messages = {"does_not_exist": "This concept has no index {pk_value}."}

    def get_queryset(self) -> QuerySet[Index]:
        view = self.context["view"]
        return Index.objects.select_related("conn").filter(c_id=view.kwargs["c_id"])


class DerivedAssetSerializer(SqlAssetSerializer):
    """What rules and features share on the wire."""

    index_id = IndexOfConcept(source="index", queryset=Index.objects.all())

    def connection_after(self, attrs: dict[str, Any]) -> DatabaseConnection:
        index: Index = self.after(attrs, "index")
        return index.conn

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        index, column = self.after(attrs, "index"), self.after(attrs, "index_column")
        # The columns of an index that is not materialized yet show when the asset runs.
        if attrs.keys() & {"index", "index_column"} and column and index.is_materialized:
            index.require_column(column)
        return attrs


class RuleSerializer(DerivedAssetSerializer):
    """A rule on the wire."""

    class Meta:
        model = Rule
        fields = ("r_id", "c_id", "index_id", "index_column", *ASSET_FIELDS)

    def validate_index_id(self, index: Index) -> Index:
        if not index.is_materialized:
            raise ValidationError(
                f"The index {index.name} is not materialized; a rule can be made once it is."
            )
        return index


class FeatureSerializer(DerivedAssetSerializer):
    """A feature on the wire."""

    class Meta:
        model = Feature
        fields = (
            "feature_id", "c_id", "index_id", "description", "index_column", "columns", "level",
            *ASSET_FIELDS,
        )  # fmt: skip


class OfAssetSerializer(serializers.Serializer[Any]):
    """An asset's id stands under the asset's own name for it."""

    index_id = serializers.IntegerField(required=False)
    r_id = serializers.IntegerField(required=False)
    feature_id = serializers.IntegerField(required=False)


class StartedSerializer(OfAssetSerializer):
    """A materialization that was started."""

    dagster_run_id = serializers.UUIDField()
    status = serializers.CharField()


class LaunchedSerializer(serializers.Serializer[SqlAsset]):
    """An asset that a concept's materialization works on; `id` as in the lineage."""

    id = serializers.SerializerMethodField()
    kind = serializers.CharField()
    name = serializers.CharField()
    dagster_run_id = serializers.UUIDField(source="run_id")

    def get_id(self, asset: SqlAsset) -> str:
        return node_id(asset.kind, asset.pk)


class ConceptStartedSerializer(serializers.Serializer[Any]):
    """The parent run of a concept's materialization, and what it has launched so far."""

    c_id = serializers.IntegerField()
    dagster_run_id = serializers.UUIDField()
    status = serializers.CharField()
    launched = LaunchedSerializer(many=True)


class PartitionSerializer(serializers.Serializer[PartitionExecution]):
    """A part of a partitioned asset; its times and error are those of its latest run."""

    partition_key = serializers.CharField()
    status = serializers.ChoiceField(
        choices=["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
    )
    row_count = serializers.IntegerField(allow_null=True)
    storage_path = serializers.CharField(allow_null=True)
    started_at = serializers.DateTimeField(source="run.started_at", allow_null=True)
    completed_at = serializers.DateTimeField(source="run.ended_at", allow_null=True)
    error_message = serializers.CharField(source="run.error_message", allow_null=True)
    dagster_run_id = serializers.UUIDField(source="run_id", allow_null=True)


class PartitionStartedSerializer(StartedSerializer):
    """A partition that was started."""

    partition_key = serializers.CharField()


class PreviewSerializer(OfAssetSerializer):
    """The first rows of a product."""

    columns = serializers.ListField(child=serializers.CharField())
    types = serializers.ListField(child=serializers.CharField())
    row_count = serializers.IntegerField()
    rows = serializers.ListField(child=serializers.DictField())


class ConceptViewSet(ModelViewSet):
    """Concepts; deleting one deletes everything below it."""

    queryset = Concept.objects.order_by("c_id")
    serializer_class = ConceptSerializer
    lookup_field = "c_id"
    lookup_value_regex = ID

    @extend_schema(request=None, responses=ConceptStartedSerializer)
    @action(detail=True, methods=["post"])
    def materialize(self, request: Request, **_: Any) -> Response:
        """Bring what is stale or missing up to date, as one parent run."""
        concept: Concept = self.get_object()
        parent = refresh.launch(concept, request.user)
        started = {
            "c_id": concept.pk,
            "dagster_run_id": parent.run_id,
            "status": parent.status,
            "launched": refresh.launched(parent),
        }
        return Response(ConceptStartedSerializer(started).data)


class OfConceptViewSet(ModelViewSet):
    """Objects of the concept in the path; those of another concept do not exist here."""

    lookup_value_regex = ID

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.concept: Concept = found(Concept.objects.all(), "Concept", c_id=kwargs["c_id"])

    def get_queryset(self) -> QuerySet[Any]:
        # Permissions and the schema ask before the concept is looked up.
        return super().get_queryset().filter(c_id=self.kwargs.get("c_id"))

    def perform_create(self, serializer: Any) -> None:
        serializer.save(c=self.concept)


class ConceptValueViewSet(OfConceptViewSet):
    """The values of a concept, by display_order and then by cv_id."""

    queryset = ConceptValue.objects.all()
    serializer_class = ConceptValueSerializer
    lookup_field = "cv_id"


class SqlAssetViewSet(OfConceptViewSet):
    """What the three kinds of asset share over REST."""

    @extend_schema(request=None, responses=StartedSerializer)
    @action(detail=True, methods=["post"])
    def materialize(self, request: Request, **_: Any) -> Response:
        asset: SqlAsset = self.get_object()
        run = materialize.launch(asset, request.user)
        return Response(
            {asset.pk_name: asset.pk, "dagster_run_id": str(run.run_id), "status": "STARTED"}
        )

    @extend_schema(responses=PartitionSerializer(many=True))
    @action(detail=True)
    def partitions(self, request: Request, **_: Any) -> Response:
        """The partitions in their order; none while the asset is not partitioned or not planned."""
        asset: SqlAsset = self.get_object()
        listed: Any = self.paginate_queryset(asset.partitions.select_related("run"))
        return self.get_paginated_response(PartitionSerializer(listed, many=True).data)

    @extend_schema(request=None, responses=PartitionStartedSerializer)
    @action(detail=True, methods=["post"], url_path=r"partitions/(?P<partition_key>.+)/run")
    def run_partition(self, request: Request, partition_key: str, **_: Any) -> Response:
        """Make one partition again, and then the whole current if no other is missing."""
        asset: SqlAsset = self.get_object()
        run = partition_runs.launch_one(asset, partition_key, request.user)
        return Response(
            {
                asset.pk_name: asset.pk,
                "partition_key": partition_key,
                "dagster_run_id": str(run.run_id),
                "status": "STARTED",
            }
        )

    @extend_schema(
        parameters=[limit_parameter(PREVIEW_ROWS)],
        responses=PreviewSerializer,
    )
    @action(detail=True)
    def preview(self, request: Request, **_: Any) -> Response:
        limit = whole_number(request, "limit", default=PREVIEW_ROWS, least=1, most=MAX_LIMIT)
        asset: SqlAsset = self.get_object()
        return Response({asset.pk_name: asset.pk, **preview(asset, limit)})

    @extend_schema(responses={(200, PARQUET): OpenApiTypes.BINARY})
    @action(detail=True, content_negotiation_class=WhateverIsAsked)
    def download(self, request: Request, **_: Any) -> StreamingHttpResponse:
        """The current product as a Parquet file."""
        asset: SqlAsset = self.get_object()
        asset.require_materialized()
        return as_download(
            storage.open_bytes(asset.storage_key), f"{asset.kind}_{asset.pk}.parquet"
        )


class IndexViewSet(SqlAssetViewSet):
    """The samples of a concept."""

    queryset = Index.objects.select_related("conn").order_by("index_id")
    serializer_class = IndexSerializer
    lookup_field = "index_id"


class RuleViewSet(SqlAssetViewSet):
    """The rules of a concept: columns to vote on."""

    queryset = Rule.objects.select_related("index__conn").order_by("r_id")
    serializer_class = RuleSerializer
    lookup_field = "r_id"


class FeatureViewSet(SqlAssetViewSet):
    """The features of a concept: columns to learn from."""

    queryset = Feature.objects.select_related("index__conn").order_by("feature_id")
    serializer_class = FeatureSerializer
    lookup_field = "feature_id"


class CatalogEntrySerializer(serializers.Serializer[SqlAsset]):
    """An asset as the catalog shows it."""

    id = serializers.IntegerField(source="pk")
    name = serializers.CharField()
    is_materialized = serializers.BooleanField()
    is_stale = serializers.BooleanField()
    stale_reason = serializers.CharField(allow_null=True)
    row_count = serializers.IntegerField(allow_null=True)
    storage_path = serializers.CharField(allow_null=True)


@extend_schema_serializer(many=False)  # the answer of `list` is an object here
class CatalogSerializer(serializers.Serializer[Any]):
    """The assets of a concept by kind."""

    indexes = CatalogEntrySerializer(many=True)
    rules = CatalogEntrySerializer(many=True)
    features = CatalogEntrySerializer(many=True)


class KindStatsSerializer(serializers.Serializer[Any]):
    """Counts and rows of one kind of asset."""

    total = serializers.IntegerField()
    materialized = serializers.IntegerField()
    unmaterialized = serializers.IntegerField()
    stale = serializers.IntegerField()
    total_rows = serializers.IntegerField()


class SummarySerializer(serializers.Serializer[Any]):
    """Indexes and rules together."""

    total_assets = serializers.IntegerField()
    materialized_assets = serializers.IntegerField()
    total_data_rows = serializers.IntegerField()


class CatalogStatsSerializer(serializers.Serializer[Any]):
    """Counts and rows of a concept's assets."""

    concept_id = serializers.IntegerField()
    indexes = KindStatsSerializer()
    rules = KindStatsSerializer()
    features = KindStatsSerializer()
    summary = SummarySerializer()


class CatalogViewSet(viewsets.GenericViewSet[Index]):
    """The data assets of a concept."""

    queryset = Index.objects.all()  # who may see indexes may see the catalog
    pagination_class = None

    @extend_schema(responses=CatalogSerializer)
    def list(self, request: Request, c_id: str) -> Response:
        return Response(CatalogSerializer(catalog.catalog(_concept(c_id))).data)

    @extend_schema(responses=CatalogSerializer)
    @action(detail=False)
    def materialized(self, request: Request, c_id: str) -> Response:
        shown = catalog.catalog(_concept(c_id), materialized_only=True)
        return Response(CatalogSerializer(shown).data)

    @extend_schema(responses=CatalogStatsSerializer)
    @action(detail=False)
    def stats(self, request: Request, c_id: str) -> Response:
        return Response(catalog.stats(_concept(c_id)))


class AssetSerializer(serializers.Serializer[SqlAsset]):
    """An asset among those of all concepts; `key` is concept, kind and name."""

    key = serializers.SerializerMethodField()
    kind = serializers.CharField()
    id = serializers.IntegerField(source="pk")
    is_materialized = serializers.BooleanField()
    materialized_at = serializers.DateTimeField(allow_null=True)
    row_count = serializers.IntegerField(allow_null=True)
    run_id = serializers.UUIDField(allow_null=True)

    def get_key(self, asset: SqlAsset) -> list[str]:
        return [asset.c.name, asset.kind, asset.name]


@extend_schema_serializer(many=False)  # the answer of `list` is an object here
class AssetListSerializer(serializers.Serializer[Any]):
    """The list's wrapper."""

    assets = AssetSerializer(many=True)


class AssetViewSet(viewsets.GenericViewSet[Index]):
    """The data assets of all concepts."""

    queryset = Index.objects.all()  # who may see indexes may see the list

    @extend_schema(responses=AssetListSerializer)
    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(catalog.every_asset())
        return self.get_paginated_response(AssetListSerializer({"assets": page}).data)


def _concept(c_id: str) -> Concept:
    concept: Concept = found(Concept.objects.all(), "Concept", c_id=c_id)
    return concept
