"""The Celery application: `python -m celery -A tippers.celery worker | beat`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tippers.settings")
app = Celery("tippers")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["tippers.runs"], related_name="engine")
