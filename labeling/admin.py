"""Approval in the Django admin: what waits for a reviewer first."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

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
    def approve(
        self, request: HttpRequest, queryset: QuerySet[LabelingFunction]
    ) -> HttpResponse | None:
        """First a page with the code of each; what was on that page is what is approved."""
        if "seen" not in request.POST:
            context = {
                **self.admin_site.each_context(request),
                "title": "Approve labeling functions",
                "opts": self.model._meta,  # noqa: SLF001 - Django's public Options
                "functions": queryset,
                "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            }
            return TemplateResponse(request, "labeling/approve.html", context)
        for lf in queryset:
            try:
                lf.approve(request.user, code_sha256=request.POST.get(f"code_sha256_{lf.pk}", ""))
            except CannotBeDone as refused:
                self.message_user(request, f"{lf.name}: {refused}", messages.ERROR)
            else:
                self.message_user(request, f"{lf.name} is approved and active.", messages.SUCCESS)
        return None

    def get_queryset(self, request: HttpRequest) -> QuerySet[LabelingFunction]:
        found: Any = super().get_queryset(request)
        return found.select_related("c", "edited_by", "approved_by")  # type: ignore[no-any-return]  # the stub's queryset is generic
