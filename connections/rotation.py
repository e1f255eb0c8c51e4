"""Bring every stored password under the newest key, so that older keys can be taken away."""

from dataclasses import dataclass, field

from django.db import transaction

from connections.models import DatabaseConnection

BATCH_ROWS = 100


@dataclass
class Rotated:
    """What was done: how many were encrypted anew, how many were already, and who is left."""

    changed: int = 0
    already: int = 0
    unopened: list[str] = field(default_factory=list)  # the names of connections


def rotate_keys() -> Rotated:
    """Encrypt with the newest key what an older one opens. Interrupted or repeated, it goes on."""
    done = Rotated()
    last = 0
    while True:
        with transaction.atomic():
            # Locked, so that a password entered meanwhile is not overwritten by the one before.
            waiting = DatabaseConnection.objects.filter(pk__gt=last).order_by("pk")
            batch = list(waiting.select_for_update()[:BATCH_ROWS])
            changed = []
            for connection in batch:
                match connection.rotate_password():
                    case True:
                        changed.append(connection)
                    case False:
                        done.already += 1
                    case None:
                        done.unopened.append(connection.name)
            DatabaseConnection.objects.bulk_update(changed, ["encrypted_password"])
        if not batch:
            return done
        done.changed += len(changed)
        last = batch[-1].pk
