"""Labeling functions over REST."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ValidationError

from concepts.api import OfConceptSerializer, OfConceptViewSet
from concepts.models import ConceptValue, Rule
from labeling import functions
from labeling.api.fields import OfThisConcept, distinct
from labeling.models import LabelingFunction, LFType
from labeling.sandbox.names import EXPORTS
from tippers.api import Serializer

OPERATORS = (">", ">=", "<", "<=", "==", "!=", "in", "contains")


class WithLabel(serializers.Serializer[Any]):
    """Votes for one value."""

    label = serializers.IntegerField()  # type: ignore[assignment]  # declared fields leave the class


class MayHaveLabel(serializers.Serializer[Any]):
    """May name one value."""

    label = serializers.IntegerField(required=False)  # type: ignore[assignment]  # as above


class CustomConfigSerializer(MayHaveLabel, Serializer):
    """What a custom function's lf_config holds."""

    code = serializers.CharField(trim_whitespace=False)
    allowed_imports = serializers.MultipleChoiceField(choices=sorted(EXPORTS), default=set)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return {**attrs, "allowed_imports": sorted(attrs["allowed_imports"])}


class TemplateConfigSerializer(WithLabel, Serializer):
    """What a template function's lf_config holds: `field operator value` votes `label`."""

    field = serializers.CharField()
    operator = serializers.ChoiceField(choices=OPERATORS)
    value = serializers.JSONField()
    template = serializers.CharField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        operator, value = attrs["operator"], attrs["value"]
        if operator == "in":
            if not isinstance(value, list) or not value or not all(map(_is_scalar, value)):
                raise ValidationError({"value": "For in, give a list of texts or numbers."})
        elif operator == "contains":
            if not isinstance(value, str) or not value or not _is_scalar(value):
                raise ValidationError({"value": "For contains, give the text to look for."})
        elif not _is_scalar(value):
            raise ValidationError({"value": "Give one text, number or boolean."})
        return attrs


def _is_scalar(value: Any) -> bool:
    """A JSON value that a column can be compared with and that PostgreSQL can store."""
    if isinstance(value, str):
        return not any(mark == "\0" or "\ud800" <= mark <= "\udfff" for mark in value)
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


class RegexConfigSerializer(WithLabel, Serializer):
    """What a regex function's lf_config holds: a field with `pattern` in it votes `label`."""

    pattern = serializers.CharField(trim_whitespace=False, max_length=1000)
    field = serializers.CharField()

    def validate_pattern(self, pattern: str) -> str:
        from labeling.votes import regex_problem

        if problem := regex_problem(pattern):
            raise ValidationError(f"Not a usable pattern: {problem}")
        return pattern


CONFIGS: dict[str, type[Serializer]] = {
    LFType.CUSTOM: CustomConfigSerializer,
    LFType.TEMPLATE: TemplateConfigSerializer,
    LFType.REGEX: RegexConfigSerializer,
}


def _checked_config(lf_type: str, config: Any, rule: Rule, values: set[int]) -> dict[str, Any]:
    """An lf_config of the type, or a ValidationError that names what is wrong in it."""
    serializer = CONFIGS[lf_type](data=config)
    serializer.is_valid(raise_exception=True)
    checked: dict[str, Any] = dict(serializer.validated_data)
    if "label" in checked and checked["label"] not in values:
        raise ValidationError({"label": f"This concept has no value {checked['label']}."})
    columns = rule.columns_of_product
    if rule.is_materialized and "field" in checked and checked["field"] not in columns:
        raise ValidationError(
            {"field": f"The rule {rule.name} has no such column; it has: {', '.join(columns)}."}
        )
    return checked


class LabelingFunctionSerializer(OfConceptSerializer):
    """A labeling function as it is shown."""

    rule_id = serializers.IntegerField(read_only=True)
    cv_id = serializers.IntegerField(read_only=True, allow_null=True)
    applicable_cv_ids = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    parent_lf_id = serializers.IntegerField(read_only=True, allow_null=True)
    deprecated_by_lf_id = serializers.IntegerField(read_only=True, allow_null=True)
    lf_config = serializers.DictField(read_only=True)
    code_sha256 = serializers.SerializerMethodField(help_text="what an approval names")
    created_by = serializers.CharField(
        source="created_by.username", default=None, read_only=True, allow_null=True
    )
    approved_by = serializers.CharField(
        source="approved_by.username", default=None, read_only=True, allow_null=True
    )

    class Meta:
        model = LabelingFunction
        fields = (
            "lf_id", "c_id", "cv_id", "applicable_cv_ids", "rule_id", "name", "version",
            "parent_lf_id", "lf_type", "lf_config", "code_sha256", "is_active", "requires_approval",
            "approved_sha256", "approved_by", "approved_at", "created_by", "deprecated_at",
            "deprecated_by_lf_id", "estimated_accuracy", "coverage", "conflicts", "created_at",
            "updated_at",
        )  # fmt: skip

    def get_code_sha256(self, lf: LabelingFunction) -> str | None:
        return lf.code_sha256 if lf.runs_user_code else None


class _NewFunctionSerializer(OfConceptSerializer):
    """What the bodies of the three types share."""

    lf_type: ClassVar[str]
    rule_id = OfThisConcept(source="rule", queryset=Rule.objects.select_related("index"))
    cv_id = OfThisConcept(source="cv", queryset=ConceptValue.objects.all(), required=False)
    applicable_cv_ids = OfThisConcept(
        source="applicable",
        queryset=ConceptValue.objects.all(),
        many=True,
        required=False,
        allow_empty=False,
    )
    parent_lf_id = OfThisConcept(
        source="parent_lf", queryset=LabelingFunction.objects.all(), required=False, allow_null=True
    )

    shared: ClassVar[tuple[str, ...]] = (
        "name", "rule_id", "cv_id", "applicable_cv_ids", "parent_lf_id",
    )  # fmt: skip

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        values = {value.cv_id: value for value in ConceptValue.objects.filter(c_id=self.concept_id)}
        label = attrs.get("label")
        if label is not None and label not in values:
            raise ValidationError({"label": f"This concept has no value {label}."})
        if "applicable" not in attrs:
            if label is None:
                raise ValidationError({"applicable_cv_ids": "This field is required."})
            attrs["applicable"] = [values[label]]
        attrs["applicable"] = distinct(attrs["applicable"])
        names = map(str, CONFIGS[self.lf_type]().fields)
        config: dict[str, Any] = {name: attrs.pop(name) for name in names if name in attrs}
        if self.lf_type == LFType.CUSTOM and config.get("code") is None:
            ids = [value.cv_id for value in attrs["applicable"]]
            config["code"] = functions.generated_code(self.context["view"].concept, ids)
        attrs["config"] = _checked_config(self.lf_type, config, attrs["rule"], set(values))
        if label is not None and values[label] not in attrs["applicable"]:
            raise ValidationError({"label": "It must be one of applicable_cv_ids."})
        return attrs

    def create(self, validated_data: dict[str, Any]) -> LabelingFunction:
        label = validated_data["config"].get("label")
        named = {value.cv_id: value for value in validated_data["applicable"]}
        return functions.create(
            validated_data["c"],
            name=validated_data["name"],
            rule=validated_data["rule"],
            lf_type=self.lf_type,
            config=validated_data["config"],
            applicable=validated_data["applicable"],
            user=self.context["request"].user,
            cv=validated_data.get("cv") or named.get(label),
            parent=validated_data.get("parent_lf"),
        )

    def to_representation(self, instance: LabelingFunction) -> dict[str, Any]:
        return LabelingFunctionSerializer(instance, context=self.context).data


class NewCustomSerializer(MayHaveLabel, _NewFunctionSerializer):
    """The body of a new custom function; without code it gets a template to start from."""

    lf_type = LFType.CUSTOM
    code = serializers.CharField(required=False, allow_null=True, trim_whitespace=False)
    allowed_imports = serializers.MultipleChoiceField(choices=sorted(EXPORTS), required=False)

    class Meta:
        model = LabelingFunction
        fields = (*_NewFunctionSerializer.shared, "code", "allowed_imports", "label")


class NewTemplateSerializer(WithLabel, _NewFunctionSerializer):
    """The body of a new template function."""

    lf_type = LFType.TEMPLATE
    field = serializers.CharField()
    operator = serializers.ChoiceField(choices=OPERATORS)
    value = serializers.JSONField()
    template = serializers.CharField(required=False)

    class Meta:
        model = LabelingFunction
        fields = (
            *_NewFunctionSerializer.shared, "field", "operator", "value", "label", "template",
        )  # fmt: skip


class NewRegexSerializer(WithLabel, _NewFunctionSerializer):
    """The body of a new regex function."""

    lf_type = LFType.REGEX
    pattern = serializers.CharField(trim_whitespace=False)
    field = serializers.CharField()

    class Meta:
        model = LabelingFunction
        fields = (*_NewFunctionSerializer.shared, "pattern", "field", "label")


class ChangeSerializer(OfConceptSerializer):
    """The body of an update; what is not given stays."""

    name = serializers.CharField(max_length=255, required=False)
    is_active = serializers.BooleanField(required=False)
    lf_config = serializers.DictField(required=False)

    class Meta:
        model = LabelingFunction
        fields = ("name", "is_active", "lf_config")

    def validate_lf_config(self, config: dict[str, Any]) -> dict[str, Any]:
        lf: LabelingFunction = self.context["lf"]
        return _checked_config(lf.lf_type, config, lf.rule, set(functions.values_of(lf.c)))


class VersionSerializer(ChangeSerializer):
    """The body of a new version."""

    lf_config = serializers.DictField()

    class Meta:
        model = LabelingFunction
        fields = ("name", "lf_config")


class ApprovalSerializer(Serializer):
    """The body of an approval: which code the reviewer has read."""

    code_sha256 = serializers.CharField(
        required=False,
        max_length=64,
        help_text="as the function showed it; required where nobody approves their own code",
    )


class TemplateCodeSerializer(serializers.Serializer[Any]):
    """Generated code to start from."""

    code = serializers.CharField()
    applicable_cv_ids = serializers.ListField(child=serializers.IntegerField())


class MetricsSerializer(serializers.ModelSerializer[LabelingFunction]):
    """How a function did in the last finished Snorkel job that used it."""

    metrics_available = serializers.SerializerMethodField()

    class Meta:
        model = LabelingFunction
        fields = (
            "lf_id", "name", "version", "estimated_accuracy", "coverage", "conflicts",
            "metrics_available",
        )  # fmt: skip

    def get_metrics_available(self, lf: LabelingFunction) -> bool:
        return lf.coverage is not None


class LabelingFunctionViewSet(OfConceptViewSet):
    """The labeling functions of a concept."""

    queryset = (
        LabelingFunction.objects.select_related("c", "rule__index", "created_by", "approved_by")
        .prefetch_related("applicable")
        .order_by("lf_id")
    )
    serializer_class = LabelingFunctionSerializer
    lookup_field = "lf_id"
    action_permissions: ClassVar[dict[str, str]] = {
        "approve": "labeling.approve_labelingfunction",
        "create_template": "labeling.add_labelingfunction",
        "create_regex": "labeling.add_labelingfunction",
        "create_custom": "labeling.add_labelingfunction",
        "create_version": "labeling.add_labelingfunction",
    }

    @extend_schema(parameters=[OpenApiParameter("active_only", bool, default=False)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        said = self.request.query_params.get("active_only", "false").lower()
        if said not in {"true", "false", "1", "0"}:
            raise ValidationError({"active_only": "Must be true or false."})
        wanted = self.action == "list" and said in {"true", "1"}
        return queryset.filter(is_active=True) if wanted else queryset

    @extend_schema(request=NewCustomSerializer, responses={201: LabelingFunctionSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        del args, kwargs
        return self._create(NewCustomSerializer, request)

    def _create(self, kind: type[_NewFunctionSerializer], request: Request) -> Response:
        serializer = kind(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        lf = serializer.save(c=self.concept)
        return Response(self._shown(lf), status=201)

    def _shown(self, lf: LabelingFunction) -> dict[str, Any]:
        shown: dict[str, Any] = self.get_serializer(lf).data
        return shown

    @extend_schema(request=ChangeSerializer, responses=LabelingFunctionSerializer)
    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        del args, kwargs
        lf: LabelingFunction = self.get_object()
        serializer = self._body(ChangeSerializer, lf, request)
        functions.change(lf, serializer.validated_data, request.user)
        return Response(self._shown(lf))

    @extend_schema(request=ChangeSerializer, responses=LabelingFunctionSerializer)
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.update(request, *args, **kwargs)

    def _body(
        self, kind: type[ChangeSerializer], lf: LabelingFunction, request: Request
    ) -> ChangeSerializer:
        context = {**self.get_serializer_context(), "lf": lf}
        instance = lf if kind is ChangeSerializer else None
        serializer = kind(instance, data=request.data, context=context)
        serializer.is_valid(raise_exception=True)
        return serializer

    def perform_destroy(self, instance: LabelingFunction) -> None:
        functions.delete(instance, self.request.user)

    @extend_schema(
        parameters=[OpenApiParameter("applicable_cv_ids", int, many=True, required=True)],
        responses=TemplateCodeSerializer,
        filters=False,
    )
    @action(detail=False, methods=["get"], url_path="template", pagination_class=None)
    def template(self, request: Request, **_: Any) -> Response:
        asked = request.query_params.getlist("applicable_cv_ids")
        values = functions.values_of(self.concept)
        if not asked:
            raise ValidationError({"applicable_cv_ids": "Give at least one concept value's id."})
        for cv_id in asked:
            if not cv_id.isdecimal() or int(cv_id) not in values:
                raise ValidationError({"applicable_cv_ids": f"This concept has no value {cv_id}."})
        cv_ids = distinct([int(cv_id) for cv_id in asked])
        code = functions.generated_code(self.concept, cv_ids)
        return Response({"code": code, "applicable_cv_ids": cv_ids})

    @extend_schema(request=NewTemplateSerializer, responses={201: LabelingFunctionSerializer})
    @template.mapping.post
    def create_template(self, request: Request, **_: Any) -> Response:
        return self._create(NewTemplateSerializer, request)

    @extend_schema(request=NewRegexSerializer, responses={201: LabelingFunctionSerializer})
    @action(detail=False, methods=["post"], url_path="regex")
    def create_regex(self, request: Request, **_: Any) -> Response:
        return self._create(NewRegexSerializer, request)

    @extend_schema(request=NewCustomSerializer, responses={201: LabelingFunctionSerializer})
    @action(detail=False, methods=["post"], url_path="custom")
    def create_custom(self, request: Request, **_: Any) -> Response:
        return self._create(NewCustomSerializer, request)

    @extend_schema(responses=MetricsSerializer)
    @action(detail=True)
    def metrics(self, request: Request, **_: Any) -> Response:
        del request
        return Response(MetricsSerializer(self.get_object()).data)

    @extend_schema(request=ApprovalSerializer, responses=LabelingFunctionSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, **_: Any) -> Response:
        lf: LabelingFunction = self.get_object()
        body = ApprovalSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        functions.approve(lf, request.user, code_sha256=body.validated_data.get("code_sha256"))
        return Response(self._shown(lf))

    @extend_schema(request=None, responses=LabelingFunctionSerializer)
    @action(detail=True, methods=["post"])
    def toggle(self, request: Request, **_: Any) -> Response:
        lf: LabelingFunction = self.get_object()
        functions.toggle(lf, request.user)
        return Response(self._shown(lf))

    @extend_schema(responses=LabelingFunctionSerializer(many=True))
    @action(detail=True, methods=["get"], pagination_class=None)
    def versions(self, request: Request, **_: Any) -> Response:
        del request
        chain = functions.versions(self.get_object())
        return Response(self.get_serializer(chain, many=True).data)

    @extend_schema(request=VersionSerializer, responses={201: LabelingFunctionSerializer})
    @versions.mapping.post
    def create_version(self, request: Request, **_: Any) -> Response:
        parent: LabelingFunction = self.get_object()
        said = self._body(VersionSerializer, parent, request).validated_data
        lf = functions.new_version(
            parent, config=said["lf_config"], name=said.get("name"), user=request.user
        )
        return Response(self._shown(lf), status=201)
