"""Classifier jobs over REST."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from concepts.models import Feature
from labeling import classifier_jobs
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
from labeling.models import ClassifierJob, Model, SnorkelJob
from tippers.api import Serializer
from tippers.downloads import WhateverIsAsked, as_download
from tippers.paging import MAX_LIMIT, whole_number


class ClassifierJobSerializer(JobSerializer):
    """A classifier job on the wire."""

    snorkel_job_id = serializers.IntegerField(read_only=True)
    feature_ids = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    config = serializers.DictField(read_only=True)

    class Meta:
        model = ClassifierJob
        fields = (
            "job_id", "c_id", "snorkel_job_id", "feature_ids", "config", *SHARED_JOB_FIELDS,
        )  # fmt: skip


class ClassifierOptionsSerializer(Serializer):
    """How labels are chosen and classifiers trained."""

    threshold_method = serializers.ChoiceField(
        choices=["max_confidence", "entropy"], default="max_confidence"
    )
    threshold_value = serializers.FloatField(default=0.7, min_value=0, max_value=1)
    min_labels_per_class = serializers.IntegerField(default=10, min_value=1, max_value=MOST_ROWS)
    imbalance_factor = serializers.FloatField(default=3.0, min_value=1, max_value=1e6)
    test_size = serializers.FloatField(default=0.2, min_value=0.01, max_value=0.9)
    random_state = serializers.IntegerField(default=42, min_value=0, max_value=2**32 - 1)
    relax_threshold = serializers.BooleanField(default=False)


class ClassifierRunSerializer(Serializer):
    """The body that launches a classifier job."""

    snorkel_job_id = OfThisConcept(
        source="snorkel_job", queryset=SnorkelJob.objects.select_related("run")
    )
    feature_ids = OfThisConcept(
        source="features", queryset=Feature.objects.all(), many=True, allow_empty=False
    )
    config = ClassifierOptionsSerializer(default=dict)

    def validate_config(self, said: dict[str, Any]) -> dict[str, Any]:
        return validated(ClassifierOptionsSerializer, said)


class FilteringStatsSerializer(serializers.Serializer[Any]):
    """What the confidence threshold left over."""

    samples_before_filter = serializers.IntegerField()
    samples_after_filter = serializers.IntegerField()
    confidence_before_filter = serializers.FloatField()
    confidence_after_filter = serializers.FloatField()
    filter_retention_rate = serializers.FloatField()
    class_distribution_after_filter = serializers.DictField(child=serializers.IntegerField())


class ClassSerializer(serializers.Serializer[Any]):
    """A concept value that classifiers tell from others."""

    cv_id = serializers.IntegerField()
    name = serializers.CharField()


class ClassReportSerializer(ClassSerializer):
    """How a model did on the test rows of one class, and how many those are."""

    precision = serializers.FloatField()
    recall = serializers.FloatField()
    f1 = serializers.FloatField()
    support = serializers.IntegerField()


class ModelReportSerializer(serializers.Serializer[Any]):
    """A model on the test rows; `confusion_matrix`: by true class, then by predicted class."""

    Model = serializers.CharField()
    confusion_matrix = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField()),
        help_text="Lines are true classes, columns predicted ones, in the order of `classes`.",
    )
    per_class = ClassReportSerializer(many=True)


class ClassifierResultsSerializer(ResultsSerializer):
    """A classifier job's results, the best model first."""

    filtering_stats = FilteringStatsSerializer(required=False)
    model_scores = serializers.ListField(
        child=serializers.DictField(), required=False, help_text="Model, its scores, Time Taken."
    )
    num_models_trained = serializers.IntegerField(required=False)
    skipped_models = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField()), required=False
    )
    classes = ClassSerializer(many=True, required=False)
    model_reports = ModelReportSerializer(
        many=True, required=False, help_text="Of each ranked model, in the order of model_scores."
    )
    features_used = serializers.ListField(child=serializers.CharField(), required=False)
    features_left_out = serializers.DictField(child=serializers.CharField(), required=False)
    threshold_used = serializers.FloatField(required=False)
    config_used = serializers.DictField(required=False)


class ClassifierPredictionSerializer(serializers.Serializer[Any]):
    """What the best model says of one entity: -1 and no name where no feature has a row for it."""

    sample_id = serializers.JSONField()
    predicted_class = serializers.IntegerField()
    predicted_name = serializers.CharField(allow_null=True)
    confidence = serializers.FloatField(
        allow_null=True, help_text="The class's probability; null where the model has none."
    )
    split = serializers.ChoiceField(
        ["train", "test"],
        allow_null=True,
        help_text="The part its label was in; null: its label was not used, or it has none.",
    )


class ClassifierPredictionsSerializer(ResultsSerializer):
    """What the best model says of every entity of the index."""

    model = serializers.CharField(required=False)
    classes = ClassSerializer(many=True, required=False)
    predictions = ClassifierPredictionSerializer(many=True, required=False)


class ModelFeatureSerializer(serializers.Serializer[Any]):
    """A column that a model takes, and how its values become numbers."""

    feature = serializers.CharField()
    column = serializers.CharField()
    name = serializers.CharField()
    type = serializers.CharField(help_text="Arrow's type.")
    encoding = serializers.ChoiceField(["number", "seconds", "one_hot"])
    categories = serializers.ListField(child=serializers.CharField())


class ModelSerializer(serializers.ModelSerializer[Model]):
    """A fitted classifier in storage, with what is needed to predict with it."""

    job_id = serializers.IntegerField(read_only=True)
    features = ModelFeatureSerializer(many=True)
    classes = ClassSerializer(many=True)
    versions = serializers.DictField(child=serializers.CharField())
    scores = serializers.DictField()

    class Meta:
        model = Model
        fields = (
            "model_id", "job_id", "rank", "name", "scores", "features", "classes", "versions",
            "storage_path", "byte_size", "sha256", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class ClassifierJobViewSet(JobViewSet):
    """The classifier jobs of a concept, newest first."""

    queryset = ClassifierJob.objects.select_related("run", "snorkel_job__index")
    serializer_class = ClassifierJobSerializer
    action_permissions: ClassVar[dict[str, str]] = {"launch": "labeling.add_classifierjob"}

    @extend_schema(request=ClassifierRunSerializer, responses={201: ClassifierJobSerializer})
    def launch(self, request: Request, **_: Any) -> Response:
        body = ClassifierRunSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        said = body.validated_data
        job = classifier_jobs.launch(
            self.concept,
            snorkel_job=said["snorkel_job"],
            features=distinct(said["features"]),
            config=said["config"],
            user=request.user,
        )
        return self._launched(job)

    @extend_schema(responses=ClassifierResultsSerializer)
    @action(detail=True)
    def results(self, request: Request, **_: Any) -> Response:
        del request
        return Response(classifier_jobs.results(self.get_object()))

    @extend_schema(responses=ModelSerializer(many=True))
    @action(detail=True)
    def models(self, request: Request, **_: Any) -> Response:
        """The fitted classifiers that were kept, the best first."""
        del request
        page = self.paginate_queryset(self.get_object().models.all())
        return self.get_paginated_response(ModelSerializer(page, many=True).data)

    @extend_schema(parameters=CHOICE_PARAMETERS, responses=ClassifierPredictionsSerializer)
    @action(detail=True)
    def predictions(self, request: Request, **_: Any) -> Response:
        """What the best model says, filtered and ordered as asked; `X-Total-Count` counts it."""
        skip = whole_number(request, "skip", default=0)
        limit = whole_number(request, "limit", default=100, least=1, most=MAX_LIMIT)
        choice = choice_of(request)
        answer, total = classifier_jobs.predictions(
            self.get_object(), choice, skip=skip, limit=limit
        )
        headers = {"X-Total-Count": str(total)} if "predictions" in answer else None
        return Response(answer, headers=headers)

    @extend_schema(parameters=[FORMAT_PARAMETER], responses=DOWNLOADS)
    @action(detail=True, url_path="predictions/download", content_negotiation_class=WhateverIsAsked)
    def download(self, request: Request, **_: Any) -> StreamingHttpResponse:
        """All predictions as a file; its columns are named as in the stored Parquet file."""
        job: ClassifierJob = self.get_object()
        asked = format_of(request)
        return as_download(
            classifier_jobs.download(job, asked), f"predictions_{job.job_id}.{asked}"
        )
