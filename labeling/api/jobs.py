"""What Snorkel jobs and classifier jobs share over REST."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from concepts.models import Concept
from labeling.models import TrainingJob
from labeling.result_pages import ORDERS, Choice
from tippers import storage
from tippers.api import ID, DestroyModelMixin, found
from tippers.downloads import FORMATS
from tippers.errors import CannotBeDone, NotPossibleNow
from tippers.paging import LARGEST, limit_parameter, one_of, skip_parameter, whole_number
from tippers.runs import engine

DOMAIN_STATUSES = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")


class JobSerializer(serializers.ModelSerializer[Any]):
    """What both kinds of job show; a job that was just launched says RUNNING."""

    c_id = serializers.IntegerField(read_only=True)
    dagster_run_id = serializers.UUIDField(source="run_id", read_only=True, allow_null=True)
    status = serializers.SerializerMethodField()
    error_message = serializers.CharField(read_only=True, allow_null=True)
    completed_at = serializers.DateTimeField(read_only=True, allow_null=True)

    @extend_schema_field({"type": "string", "enum": list(DOMAIN_STATUSES)})
    def get_status(self, job: TrainingJob) -> str:
        return "RUNNING" if self.context.get("launched") else job.status


SHARED_JOB_FIELDS = (
    "dagster_run_id", "status", "result_path", "error_message", "created_at", "completed_at",
)  # fmt: skip


class ResultsSerializer(serializers.Serializer[Any]):
    """What every answer about results has; while there are none, `message` says why."""

    job_id = serializers.IntegerField()
    status = serializers.ChoiceField(DOMAIN_STATUSES)
    message = serializers.CharField(required=False)
    is_stale = serializers.BooleanField(required=False)
    notes = serializers.ListField(child=serializers.CharField(), required=False)


CHOICE_PARAMETERS = [
    OpenApiParameter(
        "predicted_class",
        {"type": "integer", "minimum": -1, "maximum": LARGEST},
        description="Only predictions of this cv_id; -1 for those without a label.",
    ),
    OpenApiParameter(
        "min_confidence",
        {"type": "number", "minimum": 0, "maximum": 1},
        description="Only predictions at least so confident; one without a label never is.",
    ),
    OpenApiParameter(
        "order",
        {"type": "string", "enum": list(ORDERS)},
        description="By confidence, rising or falling; those without one last. Otherwise by key.",
    ),
    skip_parameter(),
    limit_parameter(100),
]
FORMAT_PARAMETER = OpenApiParameter(
    "format", {"type": "string", "enum": list(FORMATS), "default": "parquet"}
)
DOWNLOADS = {(200, media): OpenApiTypes.BINARY for media in FORMATS.values()}


def choice_of(request: Request) -> Choice:
    """CHOICE_PARAMETERS as they were given, but for the page; CannotBeDone names one at fault."""
    given = request.query_params
    predicted = confidence = None
    if given.get("predicted_class"):
        predicted = whole_number(request, "predicted_class", default=-1, least=-1)
    if text := given.get("min_confidence"):
        confidence = _share(text, "min_confidence")
    order = one_of(request, "order", ORDERS, default="") or None
    return Choice(predicted, confidence, order)


def _share(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise CannotBeDone(f"{name} must be a number from 0 to 1.", field=name)
    return number


def format_of(request: Request) -> str:
    """Which of FORMATS a download was asked for in."""
    return one_of(request, "format", FORMATS, default="parquet")


class JobViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    DestroyModelMixin,
    viewsets.GenericViewSet[Any],
):
    """What both kinds of job share: list, read, cancel, delete."""

    lookup_field = "job_id"
    lookup_value_regex = ID

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.concept: Concept = found(Concept.objects.all(), "Concept", c_id=kwargs["c_id"])

    def get_queryset(self) -> QuerySet[Any]:
        # Permissions and the schema ask before the concept is looked up.
        return super().get_queryset().filter(c_id=self.kwargs.get("c_id"))

    def _launched(self, job: TrainingJob) -> Response:
        context = {**self.get_serializer_context(), "launched": True}
        job.refresh_from_db()
        return Response(self.get_serializer_class()(job, context=context).data, status=201)

    def perform_destroy(self, instance: TrainingJob) -> None:
        if instance.is_active:
            raise NotPossibleNow(f"Job {instance.job_id} is {instance.status}; cancel it first.")
        keys = [storage.key_of(uri) for uri in instance.stored_objects()]
        with transaction.atomic():
            super().perform_destroy(instance)
            for key in keys:
                transaction.on_commit(partial(storage.delete, key), robust=True)

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, **_: Any) -> Response:
        del request
        job: TrainingJob = self.get_object()
        if job.run is None:
            raise NotPossibleNow(f"Job {job.job_id} has no run to cancel.")
        engine.cancel(job.run.run_id)
        return Response(self.get_serializer(self.get_object()).data)
