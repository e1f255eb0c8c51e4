"""Datasets and chunks in the admin, to look at: their rows are changed by conditional UPDATEs only."""

from django.contrib import admin

from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tippers.runs.admin import LookOnly


@admin.register(OccupancyDataset)
class OccupancyDatasetAdmin(LookOnly):
    """Datasets, newest first."""

    list_display = ["dataset_id", "name", "root_space_id", "status", "row_count", "created_at"]
    list_filter = ["status"]
    search_fields = ["name"]


@admin.register(OccupancySpaceChunk)
class OccupancySpaceChunkAdmin(LookOnly):
    """Chunks, by space and time."""

    list_display = [
        "space_id",
        "chunk_start",
        "interval_seconds",
        "space_type",
        "status",
        "attempt",
    ]
    list_filter = ["status", "space_type", "interval_seconds"]
    search_fields = ["=space_id"]
    ordering = ["space_id", "chunk_start"]
    show_full_result_count = False
