"""Approval in the Django admin: what waits for a reviewer first."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from labeling.models import LabelingFunction
from tippers.errors import CannotBeDone


@admin.register(LabelingFunction)
class LabelingFunctionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own is not generic
    """Labeling functions, pending ones first; nothing is edited here, only approved."""

    list_display = (
        "name", "c", "lf_type", "version", "requires_approval", "is_active", "edited_by",
        "approved_by",
    )  # fmt: skip
    list_filter = ("requires_approval", "is_active", "lf_type", "c")
    search_fields = ("name",)
    ordering = ("-requires_approval", "-updated_at")
    actions = ("approve",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        del request
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: LabelingFunction | None = None
    ) -> bool:
        del request, obj
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: LabelingFunction | None = None
    ) -> bool:
        del request, obj
        return False

    def has_approve_permission(self, request: HttpRequest) -> bool:
        """Whether the approve action is there."""
        return request.user.has_perm("labeling.approve_labelingfunction")

    @admin.action(description="Approve the chosen labeling functions", permissions=["approve"])
    def approve(self, request: HttpRequest, queryset: QuerySet[LabelingFunction]) -> None:
        for lf in queryset:
            try:
                lf.approve(request.user)
            except CannotBeDone as refused:
                self.message_user(request, f"{lf.name}: {refused}", messages.ERROR)
            else:
                self.message_user(request, f"{lf.name} is approved and active.", messages.SUCCESS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LabelingFunction]:
        found: Any = super().get_queryset(request)
        return found.select_related("c", "edited_by", "approved_by")  # type: ignore[no-any-return]  # the stub's queryset is generic
