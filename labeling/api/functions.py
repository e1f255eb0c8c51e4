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
from rest_framework.throttling import UserRateThrottle

from concepts.api import OfConceptSerializer, OfConceptViewSet
from concepts.models import Concept, ConceptValue, Rule
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


def _applicable(attrs: dict[str, Any], concept: Concept) -> list[ConceptValue]:
    """The values that a body lets its function vote: those it lists, or its label alone."""
    label = attrs.get("label")
    given: list[ConceptValue] | None = attrs.get("applicable")
    if label is None:
        if given is None:
            raise ValidationError({"applicable_cv_ids": "This field is required."})
        return distinct(given)
    named = ConceptValue.objects.filter(c=concept, cv_id=label).first()
    if named is None:
        raise ValidationError({"label": f"This concept has no value {label}."})
    if given is not None and named not in given:
        raise ValidationError({"label": "It must be one of applicable_cv_ids."})
    return distinct(given or [named])


def _with_config(attrs: dict[str, Any], lf_type: str) -> dict[str, Any]:
    """The body with the fields that make up its lf_config taken together as `config`."""
    names = map(str, CONFIGS[lf_type]().fields)
    config = {name: attrs.pop(name) for name in names if name in attrs}
    values = {value.cv_id for value in attrs["applicable"]}
    return {**attrs, "config": _checked_config(lf_type, config, attrs["rule"], values)}


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

    rejected_by = serializers.CharField(
        source="rejected_by.username", default=None, read_only=True, allow_null=True
    )

    class Meta:
        model = LabelingFunction
        fields = (
            "lf_id", "c_id", "cv_id", "applicable_cv_ids", "rule_id", "name", "version",
            "parent_lf_id", "lf_type", "lf_config", "code_sha256", "is_active", "requires_approval",
            "approved_sha256", "approved_by", "approved_at", "approval_trial", "rejected_by",
            "rejected_at", "rejection_reason", "created_by", "deprecated_at", "deprecated_by_lf_id",
            "estimated_accuracy", "coverage", "conflicts", "created_at", "updated_at",
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
        concept: Concept = self.context["view"].concept
        attrs["applicable"] = _applicable(attrs, concept)
        if self.lf_type == LFType.CUSTOM and attrs.get("code") is None:
            ids = [value.cv_id for value in attrs["applicable"]]
            attrs["code"] = functions.generated_code(concept, ids)
        return _with_config(attrs, self.lf_type)

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


LIMIT: dict[str, Any] = {
    "default": functions.TRIED_ROWS,
    "min_value": 1,
    "max_value": functions.MOST_TRIED_ROWS,
    "help_text": "of its rule's rows, spread evenly over them",
}


class TrySavedSerializer(Serializer):
    """What to try: the function as it is saved, or as it would be with another lf_config."""

    lf_config = serializers.DictField(required=False)
    limit = serializers.IntegerField(**LIMIT)

    def validate_lf_config(self, config: dict[str, Any]) -> dict[str, Any]:
        lf: LabelingFunction = self.context["lf"]
        return _checked_config(lf.lf_type, config, lf.rule, set(functions.values_of(lf.c)))


class TryNewSerializer(MayHaveLabel, Serializer):
    """What to try: the body of a new function of the type, without a name."""

    rule_id = OfThisConcept(source="rule", queryset=Rule.objects.select_related("index", "c"))
    lf_type = serializers.ChoiceField(choices=LFType.choices, default=LFType.CUSTOM)
    applicable_cv_ids = OfThisConcept(
        source="applicable",
        queryset=ConceptValue.objects.all(),
        many=True,
        required=False,
        allow_empty=False,
    )
    code = serializers.CharField(required=False, trim_whitespace=False)
    allowed_imports = serializers.MultipleChoiceField(choices=sorted(EXPORTS), required=False)
    field = serializers.CharField(required=False)
    operator = serializers.ChoiceField(choices=OPERATORS, required=False)
    value = serializers.JSONField(required=False)
    template = serializers.CharField(required=False)
    pattern = serializers.CharField(required=False, trim_whitespace=False)
    limit = serializers.IntegerField(**LIMIT)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        lf_type = attrs["lf_type"]
        names = {of_type: set(map(str, kind().fields)) for of_type, kind in CONFIGS.items()}
        others = set[str]().union(*names.values()) - names[lf_type]
        if odd := sorted(others & attrs.keys()):
            raise ValidationError(dict.fromkeys(odd, f"A {lf_type} function has no such field."))
        attrs["applicable"] = _applicable(attrs, self.context["view"].concept)
        return _with_config(attrs, lf_type)


class TriedVoteSerializer(serializers.Serializer[Any]):
    """What it says of one row."""

    sample_id = serializers.JSONField(help_text="the entity's key", allow_null=True)
    cv_id = serializers.IntegerField(
        allow_null=True, help_text="-1: abstains; null: the row failed"
    )
    name = serializers.CharField(allow_null=True)


class TriedValueSerializer(serializers.Serializer[Any]):
    """How often it votes a value."""

    cv_id = serializers.IntegerField()
    name = serializers.CharField()
    rows = serializers.IntegerField()


class TriedFaultSerializer(serializers.Serializer[Any]):
    """Why a row failed; `lines` of the code, outermost first."""

    sample_id = serializers.JSONField(allow_null=True)
    lines = serializers.ListField(child=serializers.IntegerField())
    message = serializers.CharField()


class DifferingVotesSerializer(serializers.Serializer[Any]):
    """A row that got two votes; null: it failed."""

    sample_id = serializers.JSONField(allow_null=True)
    first = serializers.IntegerField(allow_null=True)
    second = serializers.IntegerField(allow_null=True)


class TriedSerializer(serializers.Serializer[Any]):
    """What a function did on some rows of its rule; nothing of it is saved."""

    row_count = serializers.IntegerField(help_text="rows that the rule has", allow_null=True)
    rows = serializers.IntegerField(help_text="rows that it was tried on")
    columns = serializers.ListField(
        child=serializers.CharField(), help_text="what it reads of a row"
    )
    votes = TriedVoteSerializer(many=True)
    counts = TriedValueSerializer(many=True)
    abstained = serializers.IntegerField()
    fault_count = serializers.IntegerField()
    faults = TriedFaultSerializer(many=True, help_text="the first ones")
    seconds = serializers.FloatField(help_text="in all: started and run twice")
    microseconds_per_row = serializers.FloatField()
    deterministic = serializers.BooleanField(help_text="alike in another process and order")
    differing = DifferingVotesSerializer(allow_null=True)


class TryThrottle(UserRateThrottle):
    """A try runs code in the web server's own time."""

    scope = "labeling_function_try"
    rate = "30/min"


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
        LabelingFunction.objects.select_related(
            "c", "rule__index", "created_by", "approved_by", "rejected_by"
        )
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
        "try_new": "labeling.add_labelingfunction",
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

    @extend_schema(
        request=TryNewSerializer,
        responses=TriedSerializer,
        operation_id="concepts_labeling_functions_try_new_create",
    )
    @action(detail=False, methods=["post"], url_path="try", throttle_classes=[TryThrottle])
    def try_new(self, request: Request, **_: Any) -> Response:
        """Run a function that is not saved on some rows of its rule."""
        body = TryNewSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        said = body.validated_data
        found = functions.try_out(
            rule=said["rule"],
            lf_type=said["lf_type"],
            config=said["config"],
            applicable=said["applicable"],
            limit=said["limit"],
        )
        return Response(TriedSerializer(found).data)

    @extend_schema(request=TrySavedSerializer, responses=TriedSerializer)
    @action(detail=True, methods=["post"], url_path="try", throttle_classes=[TryThrottle])
    def try_saved(self, request: Request, **_: Any) -> Response:
        """Run a function as it is saved, or with another lf_config, on some rows of its rule."""
        lf: LabelingFunction = self.get_object()
        context = {**self.get_serializer_context(), "lf": lf}
        body = TrySavedSerializer(data=request.data, context=context)
        body.is_valid(raise_exception=True)
        said = body.validated_data
        found = functions.try_saved(lf, limit=said["limit"], config=said.get("lf_config"))
        return Response(TriedSerializer(found).data)

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
