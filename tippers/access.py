"""Who may do what. REST framework loads this with its settings, before its views."""

from collections.abc import Mapping
from typing import Any

from rest_framework import permissions
from rest_framework.request import Request


class ModelPermission(permissions.DjangoModelPermissions):
    """Signed in, and the model permission that the method asks for (view, add, change, delete).

    An action listed in the view's `action_permissions` needs that permission instead; any other
    custom action that writes needs `change`. A view without a queryset names everything itself.
    """

    perms_map = {
        "GET": ["%(app_label)s.view_%(model_name)s"],
        "HEAD": ["%(app_label)s.view_%(model_name)s"],
        "OPTIONS": [],
        "POST": ["%(app_label)s.add_%(model_name)s"],
        "PUT": ["%(app_label)s.change_%(model_name)s"],
        "PATCH": ["%(app_label)s.change_%(model_name)s"],
        "DELETE": ["%(app_label)s.delete_%(model_name)s"],
    }

    def has_permission(self, request: Request, view: Any) -> bool:
        if not request.user or not request.user.is_authenticated:
            return False
        if request.method == "OPTIONS" or getattr(view, "action", "") is None:
            return True  # what there is; or a method that is not there, which the view refuses
        action = getattr(view, "action", None) or request.method.lower()  # type: ignore[union-attr]  # a request has a method
        named: Mapping[str, str] = getattr(view, "action_permissions", {})
        if action in named:
            return request.user.has_perm(named[action])
        if not hasattr(view, "get_queryset") and not hasattr(view, "queryset"):
            return False
        if request.method == "POST" and action not in {"create", "post"}:
            model = self._queryset(view).model._meta  # noqa: SLF001 - Django's public Options
            return request.user.has_perm(f"{model.app_label}.change_{model.model_name}")
        return super().has_permission(request, view)
