"""What every REST endpoint shares: one error shape, strict serializers, base viewsets, router.

The error shape is `{"detail": a sentence, "code": snake_case, "errors": {field: [sentences]}}`,
`errors` only when the input is at fault.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from django.core.exceptions import PermissionDenied
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import IntegrityError, OperationalError, models, transaction
from django.db.models.deletion import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions, mixins, serializers, viewsets
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import set_rollback

from tippers import audit
from tippers.errors import CannotBeDone, NotFound, Unavailable

# An id in a path: any that a bigint can hold, and nothing that a lookup would choke on.
ID = "[0-9]{1,18}"


def exception_handler(error: Exception, _context: Mapping[str, Any]) -> Response | None:
    """Render an exception in the one error shape; None (a 500) for what is our own bug."""
    response = _response_for(error)
    if response is not None:
        set_rollback()
    return response


def _response_for(error: Exception) -> Response | None:  # noqa: PLR0911 - one row per kind of error
    match error:
        case CannotBeDone():
            errors = {error.field: [error.detail]} if error.field else None
            return _error(error.status, error.detail, error.code, errors)
        case Unavailable():
            return _error(503, str(error), error.code)
        case OperationalError():
            return _error(503, "The database does not answer; try again shortly.", "unavailable")
        case RestrictedError():
            return _error(409, _needed_by(error.restricted_objects), "in_use")
        case ProtectedError():
            return _error(409, _needed_by(error.protected_objects), "in_use")
        case IntegrityError():
            return _integrity(error)
        case ModelValidationError():
            return _invalid(serializers.as_serializer_error(error))
        case Http404():
            return _error(404, str(error) or "Not found.", "not_found")
        case PermissionDenied():
            return _error(403, "You do not have permission to do this.", "permission_denied")
        case exceptions.ValidationError():
            return _invalid(error.detail)
        case exceptions.APIException():
            return _api_exception(error)
    return None


def _error(
    status: int, detail: str, code: str, errors: Mapping[str, Any] | None = None
) -> Response:
    body: dict[str, Any] = {"detail": _sayable(detail), "code": code}
    if errors:
        body["errors"] = {
            _sayable(field): [_sayable(line) for line in said] for field, said in errors.items()
        }
    return Response(body, status=status)


def _sayable(text: str) -> str:
    """What was sent comes back in errors, and half of a surrogate pair cannot be sent."""
    return text.encode(errors="replace").decode()


def _api_exception(error: exceptions.APIException) -> Response:
    codes = error.get_codes()
    code = codes if isinstance(codes, str) else "invalid"
    response = _error(error.status_code, str(error.detail), code)
    if header := getattr(error, "auth_header", None):
        response["WWW-Authenticate"] = header
    if wait := getattr(error, "wait", None):
        response["Retry-After"] = str(int(wait) + 1)
    return response


def _invalid(detail: Any) -> Response:
    errors = detail if isinstance(detail, Mapping) else {"non_field_errors": detail}
    flat = {
        ("body" if field == "non_field_errors" else str(field)): _sentences(said)
        for field, said in errors.items()
    }
    first_field, first = next(iter(flat.items()))
    sentence = first[0] if first_field == "body" else f"{first_field}: {first[0]}"
    return _error(400, sentence, "invalid", flat)


def _sentences(said: Any) -> list[str]:
    """Nested serializer errors as flat sentences, each naming its place."""
    if isinstance(said, Mapping):
        return [f"{key}: {line}" for key, value in said.items() for line in _sentences(value)]
    if isinstance(said, list | tuple):
        return [line for item in said for line in _sentences(item)]
    return [str(said)]


def _needed_by(objects: Iterable[models.Model]) -> str:
    names = sorted(f"{item._meta.verbose_name} {item}" for item in objects)  # noqa: SLF001 - Django's public Options
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"Still needed by {shown}; delete that first."


def _integrity(error: IntegrityError) -> Response | None:
    """A unique or foreign key that lost a race after validation; anything else is our bug."""
    diagnostics = getattr(error.__cause__, "diag", None)
    detail = getattr(diagnostics, "message_detail", None) or ""
    match getattr(error.__cause__, "pgcode", None):
        case "23505":
            columns = [
                name.strip() for name in detail.partition("(")[2].partition(")")[0].split(",")
            ]
            field = columns[-1] or "body"
            return _error(
                400,
                f"{field}: this is taken already.",
                "invalid",
                {field: ["This is taken already."]},
            )
        case "23503":
            return _error(
                409, "Something this refers to, or that refers to it, changed.", "conflict"
            )
    return None


def no_such_path(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What no URL matches: the one error shape for programs, a page for browsers."""
    if _is_browser(request):
        return defaults.page_not_found(request, exception)
    body = {"detail": f"There is nothing at {request.path}.", "code": "not_found"}
    return JsonResponse(body, status=404)


def our_fault(request: HttpRequest) -> HttpResponse:
    """A bug of ours, which the log tells and the answer does not."""
    if _is_browser(request):
        return defaults.server_error(request)
    body = {"detail": "Something went wrong here; the server's log says what.", "code": "error"}
    return JsonResponse(body, status=500)


def _is_browser(request: HttpRequest) -> bool:
    return "text/html" in request.headers.get("Accept", "")


class Router(SimpleRouter):
    """Paths without a trailing slash; one is accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.trailing_slash = "/?"  # the constructor takes only yes or no


class _KnownFieldsOnly(serializers.Serializer[Any]):
    """A misspelt optional field must not be ignored in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(map(str, data)) - set(self.fields))
            if unknown:
                known = ", ".join(
                    name for name, field in self.fields.items() if not field.read_only
                )
                raise exceptions.ValidationError(
                    {name: [f"There is no such field; there are: {known}."] for name in unknown}
                )
        return super().to_internal_value(data)


class Serializer(_KnownFieldsOnly):
    """A plain serializer that refuses unknown fields by name."""


class ModelSerializer(_KnownFieldsOnly, serializers.ModelSerializer[Any]):
    """A model serializer that refuses unknown fields by name."""


class IdField(serializers.PrimaryKeyRelatedField[Any]):
    """Another object by its id, which is a whole number: no 1.5, no true, no infinity."""

    def __init__(self, **options: Any) -> None:
        super().__init__(pk_field=serializers.IntegerField(), **options)


class DestroyModelMixin(mixins.DestroyModelMixin):
    """Delete, and leave an entry in the audit trail if and only if it is done."""

    request: Any  # the view's

    def perform_destroy(self, instance: Any) -> None:
        with transaction.atomic():
            audit.record(self.request.user, audit.Act.DELETED, instance)
            instance.delete()


class ModelViewSet(DestroyModelMixin, viewsets.ModelViewSet[Any]):
    """List, create, retrieve, update and delete over an ordered queryset."""

    action_permissions: ClassVar[dict[str, str]] = {}


def found(queryset: models.QuerySet[Any], what: str, **lookup: Any) -> Any:
    """The one object, or NotFound in words: `Index 7 does not exist.`"""
    item = queryset.filter(**lookup).first()
    if item is None:
        named = ", ".join(str(value) for value in lookup.values())
        raise NotFound(f"{what} {named} does not exist.")
    return item
