"""Labeling functions in the Django admin: what waits for a reviewer first, read, tried and judged.

Nothing is edited here. A reviewer's acts are admin actions, on the list and on the page of one
function alike, and all of them take the permission to approve. Each is done to the code that the
page showed, whose SHA-256 comes back with the form.
"""

import difflib
import json
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db.models import Case, OrderBy, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString, mark_safe
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import DiffLexer, JsonLexer, PythonLexer

from labeling import functions
from labeling.models import LabelingFunction
from tippers.errors import CannotBeDone

MOST_AT_ONCE = 10  # each is read by a person and run for seconds
SHOWN_VOTES = 10
SHOWN_FAULTS = 3  # rows mostly fail alike
PENDING, REJECTED, ACTIVE, INACTIVE, DEPRECATED = (
    "waits for approval", "rejected", "active", "inactive", "deprecated",
)  # fmt: skip
STATE = Case(
    When(deprecated_at__isnull=False, then=Value(DEPRECATED)),
    When(rejected_at__isnull=False, then=Value(REJECTED)),
    When(requires_approval=True, then=Value(PENDING)),
    When(is_active=True, then=Value(ACTIVE)),
    default=Value(INACTIVE),
)
CODE = HtmlFormatter(cssclass="source", linenos="inline")
DIFF = HtmlFormatter(cssclass="source")


@dataclass(frozen=True)
class Reviewed:
    """A function as a reviewer reads it. `diff`: from the version before, if there is one.

    `tried` is what `functions.try_saved` found, `refused` why it could not be run.
    """

    lf: LabelingFunction
    code: SafeString
    diff: SafeString | None
    tried: dict[str, Any] | None = None
    refused: str = ""


class Rejection(forms.Form):
    """Why code is rejected."""

    reason = forms.CharField(max_length=2000)


class StateFilter(admin.SimpleListFilter):
    """By state; what waits for a reviewer is the first choice."""

    title = "state"
    parameter_name = "state"

    def lookups(
        self, request: HttpRequest, model_admin: "admin.ModelAdmin[Any]"
    ) -> list[tuple[str, str]]:
        return [(state, state) for state in (PENDING, REJECTED, ACTIVE, INACTIVE, DEPRECATED)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(LabelingFunction)
class LabelingFunctionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own is not generic
    """See the module."""

    list_display = (
        "name", "c", "lf_type", "version", "state", "edited_by", "edited_at", "approved_by",
    )  # fmt: skip
    list_filter = (StateFilter, "lf_type", "c")
    search_fields = ("name",)
    ordering = (OrderBy(Case(When(state=PENDING, then=0), default=1)), "-updated_at")
    actions = ("approve", "reject", "try_out")
    readonly_fields = ("state", "applicable_values")
    change_form_template = "labeling/function.html"
    fieldsets = (
        (None, {"fields": (
            "name", "state", "c", "rule", "applicable_values", "version", "parent_lf",
            "deprecated_by_lf",
        )}),
        ("Written", {"fields": ("edited_by", "edited_at", "created_by", "created_at")}),
        ("Approved", {"fields": (
            "approved_by", "approved_at", "approved_sha256", "approval_trial",
        )}),
        ("Rejected", {"fields": ("rejected_by", "rejected_at", "rejection_reason")}),
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[LabelingFunction]:
        found: Any = super().get_queryset(request).annotate(state=STATE)
        return found.select_related(  # type: ignore[no-any-return]  # the stub's queryset is generic
            "c", "rule__index", "edited_by", "created_by", "approved_by", "rejected_by", "parent_lf"
        )

    @admin.display(ordering="state")
    def state(self, lf: LabelingFunction) -> str:
        return str(lf.state)  # type: ignore[attr-defined]  # annotated above

    @admin.display
    def applicable_values(self, lf: LabelingFunction) -> str:
        return ", ".join(str(value) for value in lf.applicable.all())

    # Who may do what

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: LabelingFunction | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: LabelingFunction | None = None
    ) -> bool:
        return False

    def has_approve_permission(self, request: HttpRequest) -> bool:
        """Whether the actions and their buttons are there."""
        return request.user.has_perm("labeling.approve_labelingfunction")

    # Pages

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST" and not self.has_approve_permission(request):
            raise PermissionDenied  # Django itself would only say that there is no such action
        return super().changelist_view(request, extra_context)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        lf = self.get_object(request, object_id)
        context = self._form_context(request, [_reviewed(lf)]) if lf else {}
        return super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )

    def _form_context(self, request: HttpRequest, reviewed: list[Reviewed]) -> dict[str, Any]:
        return {
            "reviewed": reviewed,
            "may_judge": self.has_approve_permission(request),
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "shown_votes": f":{SHOWN_VOTES}",
            "shown_faults": f":{SHOWN_FAULTS}",
        }

    def _review(self, request: HttpRequest, reviewed: list[Reviewed]) -> HttpResponse:
        """The page with the code of each and the buttons."""
        context = {
            **self.admin_site.each_context(request),
            **self._form_context(request, reviewed),
            "title": "Review labeling functions",
            "opts": self.opts,
        }
        return TemplateResponse(request, "labeling/review.html", context)

    # Actions: one that a page's own form asks for is done, else the page is shown first.

    @admin.action(description="Approve the chosen labeling functions", permissions=["approve"])
    def approve(
        self, request: HttpRequest, queryset: QuerySet[LabelingFunction]
    ) -> HttpResponse | None:
        if self._are_too_many(request, queryset):
            return None
        if "seen" not in request.POST:
            return self._review(request, [_reviewed(lf) for lf in queryset])
        for lf in queryset:
            try:
                functions.approve(lf, request.user, code_sha256=_seen(request, lf))
            except CannotBeDone as refused:
                self.message_user(request, f"{lf.name}: {refused}", messages.ERROR)
            else:
                said = f"{lf.name} is approved and active. {lf.approval_trial}"
                self.message_user(request, said, messages.SUCCESS)
        return None

    @admin.action(description="Reject the chosen labeling functions", permissions=["approve"])
    def reject(
        self, request: HttpRequest, queryset: QuerySet[LabelingFunction]
    ) -> HttpResponse | None:
        if self._are_too_many(request, queryset):
            return None
        if "seen" not in request.POST:
            return self._review(request, [_reviewed(lf) for lf in queryset])
        said = Rejection(request.POST)
        if not said.is_valid():
            self.message_user(request, f"Reason: {said.errors['reason'][0]}", messages.ERROR)
            return self._review(request, [_reviewed(lf) for lf in queryset])
        reason = said.cleaned_data["reason"]
        for lf in queryset:
            try:
                functions.reject(lf, request.user, reason=reason, code_sha256=_seen(request, lf))
            except CannotBeDone as refused:
                self.message_user(request, f"{lf.name}: {refused}", messages.ERROR)
            else:
                self.message_user(request, f"{lf.name} is rejected.", messages.SUCCESS)
        return None

    @admin.action(description="Try the chosen labeling functions", permissions=["approve"])
    def try_out(
        self, request: HttpRequest, queryset: QuerySet[LabelingFunction]
    ) -> HttpResponse | None:
        if self._are_too_many(request, queryset):
            return None
        return self._review(request, [_tried(lf) for lf in queryset])

    def _are_too_many(self, request: HttpRequest, queryset: QuerySet[LabelingFunction]) -> bool:
        too_many = queryset.count() > MOST_AT_ONCE
        if too_many:
            said = f"Choose at most {MOST_AT_ONCE} at a time: each is to be read."
            self.message_user(request, said, messages.ERROR)
        return too_many


def _seen(request: HttpRequest, lf: LabelingFunction) -> str:
    """The SHA-256 of the code that the page showed."""
    return request.POST.get(f"code_sha256_{lf.pk}", "")


def _reviewed(
    lf: LabelingFunction, *, tried: dict[str, Any] | None = None, refused: str = ""
) -> Reviewed:
    lexer = PythonLexer(stripnl=False) if lf.runs_user_code else JsonLexer()
    code = _highlighted(_text(lf), lexer, CODE)
    return Reviewed(lf, code, _diff(lf), tried, refused)


def _tried(lf: LabelingFunction) -> Reviewed:
    try:
        return _reviewed(lf, tried=functions.try_saved(lf, limit=functions.APPROVAL_ROWS))
    except CannotBeDone as refused:
        return _reviewed(lf, refused=refused.detail)


def _text(lf: LabelingFunction) -> str:
    """What there is to read of a function: its code and imports, or its whole configuration."""
    if not lf.runs_user_code:
        return json.dumps(lf.lf_config, indent=2, ensure_ascii=False)
    return lf.code


def _diff(lf: LabelingFunction) -> SafeString | None:
    """From the version before, the imports' list included; None for a first version."""
    if lf.parent_lf is None:
        return None
    before, after = (
        [f"allowed_imports: {one.lf_config.get('allowed_imports', [])}", *_text(one).splitlines()]
        for one in (lf.parent_lf, lf)
    )
    lines = list(
        difflib.unified_diff(
            before,
            after,
            f"{lf.parent_lf.name} (version {lf.parent_lf.version})",
            f"{lf.name} (version {lf.version})",
            lineterm="",
        )
    )
    return _highlighted("\n".join(lines), DiffLexer(), DIFF) if lines else SafeString()


def _highlighted(text: str, lexer: Any, formatter: Any) -> SafeString:
    shown = "".join(map(_visible, text.replace("\r\n", "\n").replace("\r", "\n")))
    return mark_safe(str(highlight(shown, lexer, formatter)))  # noqa: S308 - Pygments escapes the text


def _visible(mark: str) -> str:
    """Marks that reorder or hide what follows them would show a reviewer other code than runs."""
    plain = mark.isprintable() or mark in "\n\t"
    return mark if plain else mark.encode("unicode_escape").decode()
