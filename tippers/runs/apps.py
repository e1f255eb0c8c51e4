from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class RunsConfig(AppConfig):
    name = "tippers.runs"
    label = "runs"
    verbose_name = "background runs"

    def ready(self) -> None:
        # Every app's tasks.py registers its jobs by being imported.
        autodiscover_modules("tasks")
