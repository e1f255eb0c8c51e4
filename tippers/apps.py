"""The project package is an app too, for its management commands."""

from django.apps import AppConfig


class TippersConfig(AppConfig):
    name = "tippers"
    label = "tippers"

    def ready(self) -> None:
        # Whoever sends a hint (web, worker, command) must find our Celery app, not the default.
        from tippers import celery  # noqa: F401 - imported for its effect
