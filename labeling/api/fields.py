"""Fields that several families use."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework import serializers

from tippers.api import IdField

MOST_ROWS = 2**31 - 1


class OfThisConcept(IdField):
    """An object of the concept in the path, by id; there are no others."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "does_not_exist": "This concept has none with the id {pk_value}."
    }

    def get_queryset(self) -> QuerySet[Any]:
        objects: QuerySet[Any] = super().get_queryset()  # type: ignore[assignment]  # given at declaration
        return objects.filter(c_id=self.context["view"].kwargs["c_id"])


def validated(
    serializer: type[serializers.Serializer[Any]], said: dict[str, Any]
) -> dict[str, Any]:
    """Options as the serializer has them: a default is not validated, and so would hold no values."""
    options = serializer(data=said)
    options.is_valid(raise_exception=True)
    return dict(options.validated_data)


def distinct(objects: list[Any]) -> list[Any]:
    """The objects, each once, in their order."""
    return list(dict.fromkeys(objects))
