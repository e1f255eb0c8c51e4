"""Connections in the admin. Their passwords are set through the API and shown nowhere."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from connections.models import DatabaseConnection


@admin.register(DatabaseConnection)
class DatabaseConnectionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = ["conn_id", "name", "connection_type", "host", "port", "database", "user"]
    search_fields = ["name", "host", "database"]
    exclude = ["encrypted_password"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
