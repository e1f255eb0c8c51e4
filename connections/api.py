"""Database connections over REST; the password goes in and never comes out."""

from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.throttling import UserRateThrottle

from connections import query
from connections.models import DatabaseConnection
from tippers import audit
from tippers.api import ID, ModelSerializer, ModelViewSet
from tippers.audit import Act


class ConnectionSerializer(ModelSerializer):
    """A connection on the wire."""

    host = serializers.RegexField(
        r"^[\w.:-]+$",
        max_length=255,
        error_messages={"invalid": "Must be a host name or an address, without a port."},
    )
    password = serializers.CharField(write_only=True, trim_whitespace=False, max_length=1000)

    class Meta:
        model = DatabaseConnection
        fields = (
            "conn_id", "name", "connection_type", "host", "port", "database", "user", "password",
            "created_at", "updated_at",
        )  # fmt: skip

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        # Nobody can read the password back, so a PUT of what was read must not need it.
        fields["password"].required = self.instance is None
        return fields

    def create(self, validated_data: dict[str, Any]) -> DatabaseConnection:
        password = validated_data.pop("password")
        connection = DatabaseConnection(**validated_data)
        connection.set_password(password)
        connection.save()
        return connection

    def update(
        self, instance: DatabaseConnection, validated_data: dict[str, Any]
    ) -> DatabaseConnection:
        password = validated_data.pop("password", None)
        changed = [*validated_data, "updated_at"]
        for name, value in validated_data.items():
            setattr(instance, name, value)
        if password is not None:
            instance.set_password(password)
            changed.append("encrypted_password")
        # The changed columns only: another request may be changing others.
        instance.save(update_fields=changed)
        return instance


class TestedSerializer(serializers.Serializer[Any]):
    """What a test of a connection found."""

    status = serializers.ChoiceField(["success", "failed"])
    message = serializers.CharField()
    latency_ms = serializers.FloatField(allow_null=True)
    server_version = serializers.CharField(allow_null=True)
    warnings = serializers.ListField(child=serializers.CharField())


class TestThrottle(UserRateThrottle):
    """A test opens a socket to where the caller says; it must not become a port scanner."""

    scope = "connection_test"
    rate = "30/min"


class ConnectionViewSet(ModelViewSet):
    """Connections to the databases that queries run on."""

    queryset = DatabaseConnection.objects.order_by("conn_id")
    serializer_class = ConnectionSerializer
    lookup_field = "conn_id"
    lookup_value_regex = ID
    action_permissions = {"test": "connections.view_databaseconnection"}

    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        with transaction.atomic():
            audit.record(self.request.user, Act.ADDED, serializer.save())

    def perform_update(self, serializer: BaseSerializer[Any]) -> None:
        given = serializer.validated_data
        changed = [
            name
            for name, value in given.items()
            if name == "password" or getattr(serializer.instance, name) != value
        ]
        with transaction.atomic():
            connection = serializer.save()
            if changed:
                audit.record(
                    self.request.user, Act.CHANGED, connection, f"changed {', '.join(changed)}"
                )

    @extend_schema(request=None, responses=TestedSerializer)
    @action(detail=True, methods=["post"], throttle_classes=[TestThrottle])
    def test(self, request: Request, **_: Any) -> Response:
        connection: DatabaseConnection = self.get_object()
        return Response(query.test(connection.target()))
