"""What Snorkel jobs and classifier jobs share over REST."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from concepts.models import Concept
from labeling.models import TrainingJob
from tippers import storage
from tippers.api import ID, found
from tippers.errors import NotPossibleNow
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


class JobViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
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
        with transaction.atomic():
            instance.delete()
            if instance.result_path is not None:
                key = storage.key_of(instance.result_path)
                transaction.on_commit(lambda: storage.delete(key), robust=True)

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, **_: Any) -> Response:
        del request
        job: TrainingJob = self.get_object()
        if job.run is None:
            raise NotPossibleNow(f"Job {job.job_id} has no run to cancel.")
        engine.cancel(job.run.run_id)
        return Response(self.get_serializer(self.get_object()).data)
