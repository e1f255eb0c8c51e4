"""Runs over REST, at /runs and, for existing clients, at /dagster/runs."""

import uuid
from typing import Any
from urllib.parse import urlsplit

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from tippers.api import found
from tippers.errors import CannotBeDone
from tippers.paging import MAX_LIMIT, limit_parameter, whole_number
from tippers.runs import engine
from tippers.runs.models import Run, RunStatus

CHILDREN = ArraySubquery(
    Run.objects.filter(parent=OuterRef("run_id")).order_by("created_at", "run_id").values("run_id")
)


class ProgressSerializer(serializers.Serializer[Any]):
    """How far a run is; `total` is null while it is unknown."""

    done = serializers.IntegerField(source="progress_done")
    total = serializers.IntegerField(source="progress_total", allow_null=True)
    unit = serializers.CharField(source="progress_unit")
    message = serializers.CharField(source="progress_message")


class RunSerializer(serializers.ModelSerializer[Run]):
    """A run on the wire."""

    start_time = serializers.DateTimeField(source="started_at", allow_null=True)
    end_time = serializers.DateTimeField(source="ended_at", allow_null=True)
    progress = ProgressSerializer(source="*")
    parent = serializers.UUIDField(source="parent_id", allow_null=True)  # type: ignore[assignment]  # declared fields leave the class
    children = serializers.ListField(child=serializers.UUIDField(), source="children_ids")

    class Meta:
        model = Run
        fields = (
            "run_id", "status", "start_time", "end_time", "error_message",
            "job", "queue", "attempt", "progress", "created_at",
            "parent", "children",
        )  # fmt: skip


@extend_schema_serializer(many=False)  # the answer of `list` is an object here
class RunListSerializer(serializers.Serializer[Any]):
    """The list's wrapper."""

    runs = RunSerializer(many=True)


class LogLineSerializer(serializers.Serializer[Any]):
    """A log line."""

    timestamp = serializers.DateTimeField()
    level = serializers.CharField()
    message = serializers.CharField()


class RunLogSerializer(serializers.Serializer[Any]):
    """A run's log."""

    run_id = serializers.UUIDField()
    logs = LogLineSerializer(many=True)


class CancelledSerializer(serializers.Serializer[Any]):
    """A cancelled run."""

    run_id = serializers.UUIDField()
    status = serializers.CharField()
    message = serializers.CharField()


@extend_schema_serializer(many=False)  # the answer of `list` is an object here
class RunsHealthSerializer(serializers.Serializer[Any]):
    """Whether runs start; host and port are this server's own."""

    status = serializers.CharField()
    dagster_host = serializers.CharField()
    dagster_port = serializers.CharField()


class RunViewSet(viewsets.GenericViewSet[Run]):
    """Follow, list and cancel background runs."""

    queryset = Run.objects.order_by("-created_at", "run_id").annotate(children_ids=CHILDREN)
    serializer_class = RunSerializer
    pagination_class = None
    lookup_field = "run_id"
    lookup_value_regex = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

    @extend_schema(
        parameters=[
            limit_parameter(20),
            OpenApiParameter("status_filter", str, enum=RunStatus.values),
        ],
        responses=RunListSerializer,
    )
    def list(self, request: Request) -> Response:
        limit = whole_number(request, "limit", default=20, least=1, most=MAX_LIMIT)
        runs: QuerySet[Run] = self.get_queryset()
        if status := request.query_params.get("status_filter"):
            if status not in RunStatus.values:
                raise CannotBeDone(
                    f"status_filter must be one of {', '.join(RunStatus.values)}.",
                    field="status_filter",
                )
            runs = runs.filter(status=status)
        return Response({"runs": RunSerializer(runs[:limit], many=True).data})

    def retrieve(self, request: Request, run_id: uuid.UUID) -> Response:
        return Response(RunSerializer(found(self.get_queryset(), "Run", run_id=run_id)).data)

    @extend_schema(
        parameters=[limit_parameter(100)],
        responses=RunLogSerializer,
    )
    @action(detail=True)
    def logs(self, request: Request, run_id: uuid.UUID) -> Response:
        limit = whole_number(request, "limit", default=100, least=1, most=MAX_LIMIT)
        run = found(self.get_queryset(), "Run", run_id=run_id)
        newest = list(run.logs.order_by("-id")[:limit])
        lines = LogLineSerializer(reversed(newest), many=True).data
        return Response({"run_id": str(run_id), "logs": lines})

    @extend_schema(request=None, responses=CancelledSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, run_id: uuid.UUID) -> Response:
        run = engine.cancel(run_id)
        message = "Cancelled; work that is under way stops within five seconds."
        return Response({"run_id": str(run.run_id), "status": run.status, "message": message})


class RunsHealthViewSet(viewsets.GenericViewSet[Run]):
    """Whether background runs will start."""

    queryset = Run.objects.none()
    pagination_class = None

    @extend_schema(responses=RunsHealthSerializer)
    def list(self, request: Request) -> Response:
        healthy = engine.workers_alive() > 0 and engine.beat_alive()
        address = urlsplit(f"//{request.get_host()}")
        status = "healthy" if healthy else "no worker or scheduler was seen for 60 seconds"
        return Response(
            {
                "status": status,
                "dagster_host": address.hostname or "",
                "dagster_port": str(address.port or 80),
            }
        )
