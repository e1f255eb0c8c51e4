"""Who did what to what, for reviewers and auditors: Django's admin log, written by the API too.

The admin shows an object's entries under History, and writes its own there by itself.
"""

from enum import IntEnum

from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Act(IntEnum):
    """What was done, in the log's own numbers."""

    ADDED = ADDITION
    CHANGED = CHANGE
    DELETED = DELETION


def record(
    user: AbstractBaseUser | AnonymousUser, act: Act, subject: models.Model, message: str = ""
) -> None:
    """Add an entry in the caller's transaction, so that it stands if and only if the act does.

    `subject` still has its primary key (call it before a deletion). `message` names fields, never
    their secret values.
    """
    LogEntry.objects.create(
        user_id=user.pk,  # type: ignore[misc]  # nobody acts without having signed in
        content_type=ContentType.objects.get_for_model(subject, for_concrete_model=False),
        object_id=str(subject.pk),
        object_repr=str(subject)[:200],
        action_flag=act,
        change_message=message,
    )
