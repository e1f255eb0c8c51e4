"""Bring the database to this version: migrations, roles, the first user, the first connection.

Harmless when repeated; `serve` and the compose file run it before everything else.
"""

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, transaction
from django.db.models import Q

from connections.models import DatabaseConnection

APPS = ("connections", "concepts", "labeling", "occupancy", "runs")
WORK = ("concepts", "labeling", "occupancy", "runs")


class Command(BaseCommand):
    """See the module."""

    help = "Migrate, and create the roles, the admin user and the first connection if missing."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            call_command("migrate", verbosity=0, interactive=False)
        except OperationalError as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        with transaction.atomic():
            create_roles()
            password = create_admin()
            register_sessions_database()
        if password:
            self.stdout.write(
                f"First start: created the user {settings.ADMIN_USER!r} with the password "
                f"{password!r}. It is printed this once; change it under /admin/."
            )


def create_roles() -> None:
    """Viewer, analyst, reviewer and admin as groups, with the permissions that they stand for."""
    ours = Q(content_type__app_label__in=APPS)
    view = Q(codename__startswith="view_")
    change = Q(codename__startswith="add_") | Q(codename__startswith="change_")
    change |= Q(codename__startswith="delete_")
    approve = Q(codename="approve_labelingfunction")
    roles = {
        "viewer": ours & view,
        "analyst": (ours & view) | (Q(content_type__app_label__in=WORK) & change),
        "reviewer": (ours & view) | approve,
        "admin": ours,
    }
    for name, wanted in roles.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set(Permission.objects.filter(wanted))


def create_admin() -> str:
    """The first superuser; returns a password only when one had to be made up."""
    if User.objects.filter(username=settings.ADMIN_USER).exists():
        return ""
    password = settings.ADMIN_PASSWORD or secrets.token_urlsafe(12)
    User.objects.create_superuser(settings.ADMIN_USER, password=password)
    return "" if settings.ADMIN_PASSWORD else password


def register_sessions_database() -> None:
    """The embedded sessions database as the connection `tippers`, through its read-only role.

    The row follows when the embedded server had to move to another port.
    """
    if settings.TIPPERS_READER_URL:
        DatabaseConnection.register(name="tippers", url=settings.TIPPERS_READER_URL)
