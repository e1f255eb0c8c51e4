"""Concepts in the admin. SQL assets are only shown: the API judges an edit and resets products."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from concepts.models import Concept, ConceptValue, Feature, Index, Rule


@admin.register(Concept)
class ConceptAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = ["c_id", "name", "created_at"]
    search_fields = ["name"]


@admin.register(ConceptValue)
class ConceptValueAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = ["cv_id", "c", "name", "display_order"]
    list_select_related = ["c"]
    search_fields = ["name"]


@admin.register(Index, Rule, Feature)
class SqlAssetAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # for the three kinds
    list_display = ["pk", "c", "name", "is_materialized", "row_count", "materialized_at"]
    list_select_related = ["c"]
    list_filter = ["is_materialized"]
    search_fields = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
