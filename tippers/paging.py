"""Paging by skip and limit. REST framework loads this with its settings, before its views."""

from typing import Any

from django.db import models
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from tippers.errors import CannotBeDone

MAX_LIMIT = 1000


class SkipLimitPagination(BasePagination):
    """`?skip=&limit=` over an ordered queryset: a bare array, the total in `X-Total-Count`."""

    default_limit = 100

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        del view
        skip = whole_number(request, "skip", default=0, least=0)
        limit = whole_number(request, "limit", default=self.default_limit, least=1, most=MAX_LIMIT)
        if isinstance(queryset, models.QuerySet):
            if not queryset.ordered:
                raise TypeError("a paged queryset must have an order")
            self.total = queryset.count()
        else:
            self.total = len(queryset)
        return list(queryset[skip : skip + limit])

    def get_paginated_response(self, data: Any) -> Response:
        return Response(data, headers={"X-Total-Count": str(self.total)})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        del view
        bounds = {"skip": {"minimum": 0, "default": 0}}
        bounds["limit"] = {"minimum": 1, "maximum": MAX_LIMIT, "default": self.default_limit}
        return [
            {"name": name, "in": "query", "required": False, "schema": {"type": "integer", **bound}}
            for name, bound in bounds.items()
        ]


def whole_number(
    request: Request, name: str, *, default: int, least: int = 0, most: int | None = None
) -> int:
    """A query parameter as a whole number within bounds; CannotBeDone names it otherwise."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    sentence = f"{name} must be a whole number {bounds}."
    try:
        value = int(text)
    except ValueError as error:
        raise CannotBeDone(sentence, field=name) from error
    if value < least or (most is not None and value > most):
        raise CannotBeDone(sentence, field=name)
    return value
