"""What the stack stands on, asked piece by piece.

`/health` is public, answers 200 while the web server answers, and says what is missing;
`/health/ready` is 503 until everything is there.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection
from drf_spectacular.utils import extend_schema
from kombu.exceptions import OperationalError as BrokerError
from rest_framework import permissions, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tippers import storage
from tippers.errors import CannotBeDone
from tippers.runs import engine


@dataclass(frozen=True)
class Part:
    """One thing the stack stands on."""

    name: str
    ok: bool
    message: str


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "answers"


def _broker() -> str:
    with current_app.connection_for_write() as broker:
        broker.ensure_connection(max_retries=1, timeout=2)
    return "answers"


def _storage() -> str:
    key = f"health/{uuid.uuid4().hex}"
    storage.put_bytes(key, b"ok")
    storage.delete(key)
    return "can be written"


def _worker() -> str:
    slots = engine.workers_alive()
    if not slots:
        raise LookupError("no worker was seen for 60 seconds: background runs will not start")
    return f"{slots} slots"


def _sandbox() -> str:
    """The layers on the web server's own machine; a run says which its worker had."""
    from labeling.sandbox.host import SandboxRefused, layers_here, refuse_without_seccomp

    layers = layers_here()
    try:
        refuse_without_seccomp(layers)
    except SandboxRefused as refused:
        return refused.detail  # everything else works, so this server is ready all the same
    return f"labeling code is held by {', '.join(layers)}"


def _beat() -> str:
    if not engine.beat_alive():
        raise LookupError("the scheduler was not seen for 60 seconds")
    return "ticks"


PARTS: dict[str, Callable[[], str]] = {
    "database": _database,
    "broker": _broker,
    "storage": _storage,
    "worker": _worker,
    "beat": _beat,
    "sandbox": _sandbox,
}


@dataclass
class _Answer:
    parts: list[Part]
    good_until: float


_last = _Answer([], 0.0)


def ask() -> list[Part]:
    """Every part's state; a part that fails is an answer, not an error.

    An answer is kept for some seconds: asking writes an object, and anybody may ask.
    """
    global _last  # noqa: PLW0603 - one answer per process
    now = time.monotonic()
    if now >= _last.good_until:
        parts = [_ask(name, question) for name, question in PARTS.items()]
        _last = _Answer(parts, now + (5 if all(part.ok for part in parts) else 0.5))
    return _last.parts


def _ask(name: str, question: Callable[[], str]) -> Part:
    try:
        return Part(name, ok=True, message=question())
    except (
        DatabaseError, BrokerError, OSError, LookupError, CannotBeDone, storage.StorageError,
    ) as error:  # fmt: skip
        said = (
            str(error)
            if isinstance(error, LookupError | CannotBeDone)
            else f"does not answer ({type(error).__name__})"
        )
        return Part(name, ok=False, message=said)


class HealthSerializer(serializers.Serializer):  # type: ignore[type-arg]  # schema only
    """The answer of both endpoints."""

    status = serializers.CharField()
    ready = serializers.BooleanField()
    local_mode = serializers.BooleanField()
    details = serializers.DictField(child=serializers.CharField())


def _body(parts: list[Part], status: str) -> dict[str, object]:
    return {
        "status": status,
        "ready": all(part.ok for part in parts),
        "local_mode": settings.LOCAL_MODE,
        "details": {part.name: part.message for part in parts},
    }


class HealthView(APIView):
    """The web server answers."""

    authentication_classes = ()
    permission_classes = (permissions.AllowAny,)

    @extend_schema(responses=HealthSerializer)
    def get(self, request: Request) -> Response:
        return Response(_body(ask(), "healthy"))


class ReadyView(APIView):
    """Everything that the stack stands on is there."""

    authentication_classes = ()
    permission_classes = (permissions.AllowAny,)

    @extend_schema(responses={200: HealthSerializer, 503: HealthSerializer})
    def get(self, request: Request) -> Response:
        parts = ask()
        if all(part.ok for part in parts):
            return Response(_body(parts, "healthy"))
        return Response(_body(parts, "not ready"), status=503)
