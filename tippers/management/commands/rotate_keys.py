"""Encrypt every stored password with the newest key: `manage.py rotate_keys`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from connections.rotation import rotate_keys
from tippers.errors import CannotBeDone


class Command(BaseCommand):
    """See `connections.rotation`."""

    help = (
        "Encrypt the stored passwords of all connections with the first of "
        "TIPPERS_ENCRYPTION_KEYS; afterwards the others can be taken away."
    )
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = rotate_keys()
        except CannotBeDone as error:
            raise CommandError(error.detail) from error
        self.stdout.write(
            f"{done.changed} passwords are encrypted with the newest key now, {done.already} were "
            "already."
        )
        if done.unopened:
            raise CommandError(
                f"No key opens the password of: {', '.join(done.unopened)}. Add the key that it "
                "was encrypted with to TIPPERS_ENCRYPTION_KEYS, or enter the password again."
            )
