from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from concepts.models import Concept, ConceptValue, Feature, Index, Rule


@admin.register(Concept)
class ConceptAdmin(admin.ModelAdmin[Concept]):
    list_display = ["c_id", "name", "created_at"]
    search_fields = ["name"]


@admin.register(ConceptValue)
class ConceptValueAdmin(admin.ModelAdmin[ConceptValue]):
    list_display = ["cv_id", "c", "name", "display_order"]
    list_select_related = ["c"]
    search_fields = ["name"]


class SqlAssetAdmin(admin.ModelAdmin):
    """Shows an asset; a definition is edited through the API, which judges its SQL."""

    list_display = ["pk", "c", "name", "is_materialized", "row_count", "materialized_at"]
    list_select_related = ["c"]
    list_filter = ["is_materialized"]
    search_fields = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


for model in (Index, Rule, Feature):
    admin.site.register(model, SqlAssetAdmin)
