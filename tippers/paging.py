"""Paging by skip and limit. REST framework loads this with its settings, before its views."""

import re
from collections.abc import Collection
from typing import Any

from django.db import models
from drf_spectacular.utils import OpenApiParameter
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from tippers.errors import CannotBeDone

MAX_LIMIT = 1000
LARGEST = 2**31 - 1  # what nothing here is longer than, and what PostgreSQL can take as an offset


SKIP = {"type": "integer", "minimum": 0, "maximum": LARGEST, "default": 0}


def _limit(default: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": default}


def skip_parameter() -> OpenApiParameter:
    """`skip` of a view that pages by itself, for its schema."""
    return OpenApiParameter("skip", SKIP)


def limit_parameter(default: int) -> OpenApiParameter:
    """`limit` of a view that pages by itself, for its schema."""
    return OpenApiParameter("limit", _limit(default))


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
        return [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in (("skip", SKIP), ("limit", _limit(self.default_limit)))
        ]


def whole_number(
    request: Request, name: str, *, default: int, least: int = 0, most: int = LARGEST
) -> int:
    """A query parameter as a whole number within bounds; CannotBeDone names it otherwise."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    plain = re.fullmatch("-?[0-9]{1,10}", text) is not None
    if not plain or not least <= int(text) <= most:
        raise CannotBeDone(f"{name} must be a whole number from {least} to {most}.", field=name)
    return int(text)


def one_of(request: Request, name: str, choices: Collection[str], *, default: str) -> str:
    """A query parameter that is one of these words; CannotBeDone names them otherwise."""
    said = request.query_params.get(name) or default
    if said not in (default, *choices):
        raise CannotBeDone(f"{name} must be one of: {', '.join(choices)}.", field=name)
    return said
