"""REST endpoints of occupancy datasets and of the spaces that they are about."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from occupancy import datasets, spaces
from occupancy.models import INTERVALS, MAX_CHUNK_DAYS, OccupancyDataset
from occupancy.series import ORDERS, Shape
from tippers.api import ID, DestroyModelMixin, ModelSerializer, Serializer
from tippers.downloads import FORMATS, WhateverIsAsked, as_download
from tippers.errors import CannotBeDone
from tippers.paging import MAX_LIMIT, limit_parameter, one_of, skip_parameter, whole_number

ROWS_BY_DEFAULT = 500
JSON = "json"
WHOLE = "csv and parquet are files, with all rows unless skip or limit are given"
SMALLEST_ID, LARGEST_ID = -(2**31), 2**31 - 1
INT4 = {"type": "integer", "minimum": SMALLEST_ID, "maximum": LARGEST_ID}


class OccupancyDatasetSerializer(ModelSerializer):
    """A dataset. `dagster_run_id` is null: many runs compute it, and they serve others too."""

    interval_seconds = serializers.ChoiceField(choices=INTERVALS, default=3600)
    chunk_days = serializers.IntegerField(min_value=1, max_value=MAX_CHUNK_DAYS, default=30)
    dagster_run_id = serializers.CharField(read_only=True, default=None, allow_null=True)

    class Meta:
        model = OccupancyDataset
        fields = [
            "dataset_id", "name", "description", "root_space_id", "start_time", "end_time",
            "interval_seconds", "chunk_days", "status", "dagster_run_id", "storage_path",
            "row_count", "column_stats", "error_message", "created_at", "completed_at",
        ]  # fmt: skip
        read_only_fields = [
            "status", "storage_path", "row_count", "column_stats", "error_message", "created_at",
            "completed_at",
        ]  # fmt: skip

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        start, end = attrs.get("start_time"), attrs.get("end_time")
        if start is not None and end is not None and end <= start:
            raise serializers.ValidationError({"end_time": ["It must be after start_time."]})
        return attrs


class OccupancyRowSerializer(Serializer):
    """One bin; the time is UTC without a zone."""

    interval_begin_time = serializers.CharField()
    number_connections = serializers.IntegerField()
    number_devices = serializers.IntegerField()


class OccupancyResultsSerializer(Serializer):
    """Rows when the space is complete; before that, how far it is, or why it failed."""

    dataset_id = serializers.IntegerField()
    space_id = serializers.IntegerField()
    status = serializers.CharField()
    error = serializers.CharField(required=False)
    completed_chunks = serializers.IntegerField()
    total_chunks = serializers.IntegerField()
    provisional = serializers.BooleanField(
        required=False, help_text="Whether rows may change: a window or a session is still open."
    )
    data_faults = serializers.IntegerField(
        required=False, help_text="The space's own sessions that end before they start."
    )
    row_count = serializers.IntegerField(required=False)
    total_rows = serializers.IntegerField(required=False)
    rows = OccupancyRowSerializer(many=True, required=False)


class SpaceProgressSerializer(Serializer):
    """One space: its windows, and how many of them are done; one with nobody there needs no work."""

    space_id = serializers.IntegerField()
    space_name = serializers.CharField(allow_null=True)
    parent_space_id = serializers.IntegerField(allow_null=True)
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    failed = serializers.IntegerField()
    provisional = serializers.IntegerField(help_text="Of those done: computed again when asked.")
    data_faults = serializers.IntegerField(help_text="Own sessions that end before they start.")


class OccupancyProgressSerializer(Serializer):
    """The sums over the whole tree, and its spaces by name, page by page."""

    dataset_id = serializers.IntegerField()
    status = serializers.CharField()
    error = serializers.CharField(required=False)
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    failed = serializers.IntegerField()
    provisional = serializers.IntegerField()
    data_faults = serializers.IntegerField()
    total_spaces = serializers.IntegerField()
    spaces = SpaceProgressSerializer(many=True)


class RetriedSerializer(Serializer):
    """Chunks put back, and chunks that wait for a worker because of it."""

    reset = serializers.IntegerField()
    resubmitted = serializers.IntegerField()


class RefreshStartedSerializer(Serializer):
    """The run that looks for what has changed; its log says how many chunks are computed again."""

    dataset_id = serializers.IntegerField()
    dagster_run_id = serializers.UUIDField()
    status = serializers.CharField()


def _words(
    name: str, choices: Sequence[str], *, default: str | None = None, description: str = ""
) -> OpenApiParameter:
    schema = {"type": "string", "enum": list(choices)}
    return OpenApiParameter(
        name, schema | ({"default": default} if default else {}), description=description
    )


def _shown(dataset: OccupancyDataset, found: datasets.Results) -> Response:
    answer: dict[str, Any] = {
        "dataset_id": dataset.dataset_id,
        "space_id": found.space_id,
        "status": found.status,
        "completed_chunks": found.completed_chunks,
        "total_chunks": found.total_chunks,
    }
    if found.error is not None:
        answer["error"] = found.error
    if found.rows is None:
        return Response(answer)
    answer |= {
        "provisional": found.provisional,
        "data_faults": found.data_faults,
        "row_count": len(found.rows),
        "total_rows": found.total_rows,
        "rows": found.rows,
    }
    return Response(answer, headers={"X-Total-Count": str(found.total_rows)})


class OccupancyDatasetViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    DestroyModelMixin,
    viewsets.GenericViewSet[OccupancyDataset],
):
    """Occupancy datasets, newest first. Deleting one keeps its chunks, which others may share."""

    queryset = OccupancyDataset.objects.all()
    serializer_class = OccupancyDatasetSerializer
    lookup_value_regex = ID

    @extend_schema(responses={201: OccupancyDatasetSerializer, 404: None})  # no such root
    def create(self, request: Request) -> Response:
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        dataset = datasets.create(
            OccupancyDataset(**serializer.validated_data), created_by=request.user
        )
        return Response(self.get_serializer(dataset).data, status=status.HTTP_201_CREATED)

    @extend_schema(
        parameters=[
            OpenApiParameter("space_id", INT4, description="default: the dataset's root"),
            skip_parameter(),
            limit_parameter(ROWS_BY_DEFAULT),
            _words("order", ORDERS, default=ORDERS[0]),
            _words("fill", ["zero"], description="zero: a row for every bin of the range"),
            _words("format", [JSON, *FORMATS], default=JSON, description=WHOLE),
        ],
        responses={
            (200, "application/json"): OccupancyResultsSerializer,
            **{(200, media): OpenApiTypes.BINARY for media in FORMATS.values()},
            409: None,  # a file of what is not complete; a tree that is none
        },
    )
    @action(
        detail=True,
        methods=["get"],
        pagination_class=None,
        content_negotiation_class=WhateverIsAsked,
    )
    def results(self, request: Request, pk: str) -> Response | StreamingHttpResponse:
        """The rows of one space of the dataset."""
        dataset = self.get_object()
        space_id = whole_number(
            request,
            "space_id",
            default=dataset.root_space_id,
            least=SMALLEST_ID,
            most=LARGEST_ID,
        )
        shape = Shape(
            one_of(request, "order", ORDERS, default=ORDERS[0]),
            dense=bool(one_of(request, "fill", ["zero"], default="")),
        )
        file_format = one_of(request, "format", [JSON, *FORMATS], default=JSON)
        skip = whole_number(request, "skip", default=0)
        limit = whole_number(request, "limit", default=ROWS_BY_DEFAULT, least=1, most=MAX_LIMIT)
        if file_format == JSON:
            found = datasets.results(
                dataset, space_id=space_id, shape=shape, skip=skip, limit=limit
            )
            return _shown(dataset, found)
        file = datasets.download(
            dataset,
            space_id=space_id,
            shape=shape,
            skip=skip,
            limit=limit if request.query_params.get("limit") else None,
            file_format=file_format,
        )
        name = f"occupancy_{dataset.dataset_id}_space_{space_id}.{file_format}"
        return as_download(file, name)

    @extend_schema(
        parameters=[skip_parameter(), limit_parameter(100)],
        responses={200: OccupancyProgressSerializer, 409: None},
    )
    @action(detail=True, methods=["get"], pagination_class=None)
    def progress(self, request: Request, pk: str) -> Response:
        """How far every space of the dataset is."""
        skip = whole_number(request, "skip", default=0)
        limit = whole_number(request, "limit", default=100, least=1, most=MAX_LIMIT)
        dataset = self.get_object()
        found = datasets.progress(dataset)
        answer = {"dataset_id": dataset.dataset_id, "status": dataset.status}
        if dataset.error_message is not None:
            answer["error"] = dataset.error_message
        answer |= {
            "done": found.done,
            "total": found.total,
            "failed": found.failed,
            "provisional": found.provisional,
            "data_faults": found.data_faults,
            "total_spaces": len(found.spaces),
            "spaces": [asdict(space) for space in found.spaces[skip : skip + limit]],
        }
        return Response(answer, headers={"X-Total-Count": str(len(found.spaces))})

    @extend_schema(request=None, responses=RetriedSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Try the failed chunks of the dataset again."""
        return Response(datasets.retry(self.get_object(), created_by=request.user))

    @extend_schema(request=None, responses={202: RefreshStartedSerializer})
    @action(detail=True, methods=["post"])
    def refresh(self, request: Request, pk: str) -> Response:
        """Compute again what is provisional or has other sessions by now, and nothing else."""
        dataset = self.get_object()
        run = datasets.refresh(dataset, created_by=request.user)
        return Response(
            {
                "dataset_id": dataset.dataset_id,
                "dagster_run_id": str(run.run_id),
                "status": "STARTED",
            },
            status=status.HTTP_202_ACCEPTED,
        )


class SpaceSerializer(Serializer):
    """A row of the tippers database's table `space`."""

    space_id = serializers.IntegerField()
    space_name = serializers.CharField(allow_null=True)
    parent_space_id = serializers.IntegerField(allow_null=True)
    building_room = serializers.CharField(allow_null=True)


class SpaceViewSet(viewsets.GenericViewSet[Any]):
    """The spaces of the tippers database. Read-only; that database belongs to others."""

    queryset = OccupancyDataset.objects.none()  # who may see the datasets may see the spaces
    serializer_class = SpaceSerializer
    pagination_class = None
    lookup_url_kwarg = "space_id"
    lookup_value_regex = "-?[0-9]{1,10}"

    @extend_schema(
        parameters=[
            OpenApiParameter("search", str, description="part of the name, in whatever case"),
            skip_parameter(),
            limit_parameter(100),
        ],
        responses=SpaceSerializer(many=True),
    )
    def list(self, request: Request) -> Response:
        search = request.query_params.get("search", "")
        if "\0" in search:
            raise CannotBeDone("No name has a NUL character in it.", field="search")
        found, total = spaces.listed(
            search=search,
            skip=whole_number(request, "skip", default=0),
            limit=whole_number(request, "limit", default=100, least=1, most=MAX_LIMIT),
        )
        return Response([asdict(space) for space in found], headers={"X-Total-Count": str(total)})

    def retrieve(self, request: Request, space_id: str) -> Response:
        return Response(asdict(spaces.get(int(space_id))))

    @extend_schema(responses=SpaceSerializer(many=True))
    @action(detail=False)
    def roots(self, request: Request) -> Response:
        """The spaces that lie in no other."""
        return _many(spaces.roots())

    @extend_schema(responses=SpaceSerializer(many=True))
    @action(detail=True)
    def children(self, request: Request, space_id: str) -> Response:
        """The spaces directly below."""
        return _many(spaces.children(int(space_id)))

    @extend_schema(responses={200: SpaceSerializer(many=True), 409: None})  # no tree
    @action(detail=True)
    def subtree(self, request: Request, space_id: str) -> Response:
        """The space and all below it."""
        return _many(spaces.subtree(int(space_id)))

    @extend_schema(responses={200: SpaceSerializer(many=True), 409: None})  # no tree
    @action(detail=True)
    def ancestors(self, request: Request, space_id: str) -> Response:
        """The spaces above, from the root down."""
        return _many(spaces.ancestors(int(space_id)))


def _many(found: list[spaces.Space]) -> Response:
    return Response([asdict(space) for space in found])
