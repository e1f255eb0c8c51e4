"""A concept's graph over REST."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from concepts.lineage import Edge, Lineage, Node, State
from concepts.models import Concept
from labeling import lineage
from labeling.models import LabelingFunction
from tippers.api import found


class NodeSerializer(serializers.Serializer[Node]):
    """A part of a concept: what it is, how it stands, and which run made it or tries to."""

    id = serializers.CharField(help_text="kind:id, e.g. index:1")
    kind = serializers.ChoiceField(choices=lineage.KINDS)
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=[state.value for state in State])
    stale_reason = serializers.CharField(allow_null=True)
    run_id = serializers.UUIDField(allow_null=True)
    row_count = serializers.IntegerField(allow_null=True)
    materialized_at = serializers.DateTimeField(allow_null=True)


class EdgeSerializer(serializers.Serializer[Edge]):
    """`to` is made from `from`; both are ids of nodes."""

    def get_fields(self) -> dict[str, Any]:
        # `from` is no name that Python lets a class have.
        return {
            "from": serializers.CharField(source="source"),
            "to": serializers.CharField(source="target"),
        }


@extend_schema_serializer(many=False)  # the answer of `list` is an object here
class LineageSerializer(serializers.Serializer[Lineage]):
    """A concept as a graph; each node comes after those it is made from."""

    nodes = NodeSerializer(many=True)
    edges = EdgeSerializer(many=True)


class LineageViewSet(viewsets.GenericViewSet[Any]):
    """What depends on what in a concept, and what of it is up to date."""

    queryset = LabelingFunction.objects.all()  # who may see the functions may see the graph
    pagination_class = None

    @extend_schema(responses=LineageSerializer)
    def list(self, request: Request, c_id: str) -> Response:
        concept: Concept = found(Concept.objects.all(), "Concept", c_id=c_id)
        return Response(LineageSerializer(lineage.of_concept(concept)).data)
