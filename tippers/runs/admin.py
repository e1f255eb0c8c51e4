"""Runs in the admin: to look at, not to edit (the engine owns every transition)."""

from django.contrib import admin
from django.http import HttpRequest

from tippers.runs.models import Heartbeat, Run


class LookOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # for both models below
    """No add, change or delete."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Run)
class RunAdmin(LookOnly):
    """The job table."""

    list_display = ("job", "status", "queue", "attempt", "created_at", "ended_at", "error_message")
    list_filter = ("status", "job", "queue")
    ordering = ("-created_at",)


@admin.register(Heartbeat)
class HeartbeatAdmin(LookOnly):
    """Which processes are alive."""

    list_display = ("name", "kind", "queues", "seen_at")
