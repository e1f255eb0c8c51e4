"""Snorkel jobs over REST."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from concepts.models import Index, Rule
from labeling import label_jobs
from labeling.api.fields import MOST_ROWS, OfThisConcept, distinct, validated
from labeling.api.jobs import (
    CHOICE_PARAMETERS,
    DOWNLOADS,
    FORMAT_PARAMETER,
    SHARED_JOB_FIELDS,
    JobSerializer,
    JobViewSet,
    ResultsSerializer,
    choice_of,
    format_of,
)
from labeling.models import LabelingFunction, OutputType, SnorkelJob
from tippers.api import Serializer
from tippers.downloads import WhateverIsAsked, as_download
from tippers.paging import MAX_LIMIT, whole_number

MOST_EPOCHS = 100_000


class SnorkelJobSerializer(JobSerializer):
    """A Snorkel job on the wire."""

    index_id = serializers.IntegerField(read_only=True)
    rule_ids = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    lf_ids = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    config = serializers.DictField(read_only=True)
    truth_rule_id = serializers.IntegerField(read_only=True, allow_null=True)

    class Meta:
        model = SnorkelJob
        fields = (
            "job_id", "c_id", "index_id", "rule_ids", "lf_ids", "config", "output_type",
            "truth_rule_id", *SHARED_JOB_FIELDS,
        )  # fmt: skip


class SnorkelOptionsSerializer(Serializer):
    """How the label model is trained."""

    epochs = serializers.IntegerField(default=100, min_value=1, max_value=MOST_EPOCHS)
    lr = serializers.FloatField(default=0.01, min_value=1e-9, max_value=10)
    sample_size = serializers.IntegerField(
        default=None, allow_null=True, min_value=1, max_value=MOST_ROWS
    )
    output_type = serializers.ChoiceField(choices=OutputType.choices, default=OutputType.SOFTMAX)
    seed = serializers.IntegerField(default=label_jobs.SEED, min_value=0, max_value=2**32 - 1)


class SnorkelRunSerializer(Serializer):
    """The body that launches a Snorkel job."""

    selectedIndex = OfThisConcept(source="index", queryset=Index.objects.all())  # noqa: N815 - the wire's name
    selectedRules = OfThisConcept(  # noqa: N815 - the wire's name
        source="rules", queryset=Rule.objects.all(), many=True, required=False
    )
    selectedLFs = OfThisConcept(  # noqa: N815 - the wire's name
        source="functions",
        queryset=LabelingFunction.objects.select_related("rule").prefetch_related("applicable"),
        many=True,
        allow_empty=False,
    )
    truth_rule_id = OfThisConcept(
        source="truth_rule", queryset=Rule.objects.all(), required=False, allow_null=True
    )
    snorkel = SnorkelOptionsSerializer(default=dict)

    def validate_snorkel(self, said: dict[str, Any]) -> dict[str, Any]:
        return validated(SnorkelOptionsSerializer, said)


class PredictionSerializer(serializers.Serializer[Any]):
    """One entity's label: -1 and no name where there is none."""

    sample_id = serializers.JSONField()
    predicted_class = serializers.IntegerField()
    predicted_name = serializers.CharField(allow_null=True)
    confidence = serializers.FloatField(allow_null=True)
    probs = serializers.ListField(child=serializers.FloatField(), required=False, allow_null=True)


class LabelSummarySerializer(serializers.Serializer[Any]):
    """All labels together."""

    total_samples = serializers.IntegerField()
    labelled = serializers.IntegerField()
    abstained = serializers.IntegerField()
    avg_confidence = serializers.FloatField(allow_null=True)
    class_balance = serializers.DictField(child=serializers.FloatField())
    truth_rows = serializers.IntegerField(
        allow_null=True, help_text="Entities whose value the truth rule knows."
    )
    label_model_accuracy = serializers.FloatField(
        allow_null=True, help_text="Right labels among those that there are of such entities."
    )


class LFAnalysisSerializer(serializers.Serializer[Any]):
    """What one function did in the job."""

    lf_id = serializers.IntegerField()
    name = serializers.CharField()
    polarity = serializers.ListField(child=serializers.IntegerField())
    coverage = serializers.FloatField()
    overlaps = serializers.FloatField()
    conflicts = serializers.FloatField()
    conflict_rows = serializers.IntegerField()
    learned_weight = serializers.FloatField(allow_null=True)
    empirical_accuracy = serializers.FloatField(
        allow_null=True, help_text="Right votes among those on rows whose truth is known."
    )
    rows = serializers.IntegerField()
    faults = serializers.IntegerField()
    first_fault = serializers.CharField(allow_null=True)


class SnorkelResultsSerializer(ResultsSerializer):
    """A Snorkel job's results; `probs` and predictions follow the order of `class_cv_ids`."""

    output_type = serializers.ChoiceField(OutputType.choices, required=False)
    result_path = serializers.CharField(required=False)
    class_cv_ids = serializers.ListField(child=serializers.IntegerField(), required=False)
    class_names = serializers.ListField(child=serializers.CharField(), required=False)
    summary = LabelSummarySerializer(required=False)
    lf_analysis = LFAnalysisSerializer(many=True, required=False)
    sandbox_layers = serializers.ListField(
        child=serializers.CharField(), allow_null=True, required=False
    )
    predictions = PredictionSerializer(many=True, required=False)


class SnorkelJobViewSet(JobViewSet):
    """The Snorkel jobs of a concept, newest first."""

    queryset = SnorkelJob.objects.select_related("run", "index")
    serializer_class = SnorkelJobSerializer
    action_permissions: ClassVar[dict[str, str]] = {"launch": "labeling.add_snorkeljob"}

    @extend_schema(request=SnorkelRunSerializer, responses={201: SnorkelJobSerializer})
    def launch(self, request: Request, **_: Any) -> Response:
        body = SnorkelRunSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        said = body.validated_data
        config = said["snorkel"]
        output_type = config.pop("output_type")
        job = label_jobs.launch(
            self.concept,
            index=said["index"],
            rules=distinct(said.get("rules", [])),
            functions=distinct(said["functions"]),
            config=config,
            output_type=output_type,
            truth_rule=said.get("truth_rule"),
            user=request.user,
        )
        return self._launched(job)

    @extend_schema(parameters=CHOICE_PARAMETERS, responses=SnorkelResultsSerializer)
    @action(detail=True)
    def results(self, request: Request, **_: Any) -> Response:
        """The labels, filtered and ordered as asked; `X-Total-Count` counts what was chosen."""
        skip = whole_number(request, "skip", default=0)
        limit = whole_number(request, "limit", default=100, least=1, most=MAX_LIMIT)
        choice = choice_of(request)
        answer, total = label_jobs.results(self.get_object(), choice, skip=skip, limit=limit)
        headers = {"X-Total-Count": str(total)} if "predictions" in answer else None
        return Response(answer, headers=headers)

    @extend_schema(parameters=[FORMAT_PARAMETER], responses=DOWNLOADS)
    @action(detail=True, url_path="results/download", content_negotiation_class=WhateverIsAsked)
    def download(self, request: Request, **_: Any) -> StreamingHttpResponse:
        """The whole result as a file; its columns are named as in the stored Parquet file."""
        job: SnorkelJob = self.get_object()
        asked = format_of(request)
        return as_download(label_jobs.download(job, asked), f"labels_{job.job_id}.{asked}")
