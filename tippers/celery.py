"""The Celery application: `python -m celery -A tippers.celery worker | beat`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tippers.settings")
app = Celery("tippers")
app.config_from_object("django.conf:settings", namespace="CELERY")
# A worker imports it before it forks: its children connect to a signal there.
app.autodiscover_tasks(["tippers.runs"], related_name="worker")
