"""/runs... and the same under /dagster, where existing clients look."""

from django.urls import include, path

from tippers.api import Router
from tippers.runs.api import RunsHealthViewSet, RunViewSet

runs = Router()
runs.register("runs", RunViewSet, basename="run")

dagster = Router()
dagster.register("runs", RunViewSet, basename="dagster-run")
dagster.register("health", RunsHealthViewSet, basename="dagster-health")

urlpatterns = [
    path("", include(runs.urls)),
    path("dagster/", include(dagster.urls)),
]
