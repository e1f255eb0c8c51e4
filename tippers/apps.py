"""The project package is an app too, for its management commands."""

from django.apps import AppConfig


class TippersConfig(AppConfig):
    name = "tippers"
    label = "tippers"
