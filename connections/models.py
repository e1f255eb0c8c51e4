"""Where queries run."""

from contextlib import suppress
from typing import Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from connections.target import Target
from tippers.errors import CannotBeDone


class Dialect(models.TextChoices):
    POSTGRESQL = "postgresql", "PostgreSQL"
    MYSQL = "mysql", "MySQL or MariaDB"


class DatabaseConnection(models.Model):
    """A database of the user's. Its password is stored encrypted and never shown."""

    conn_id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=255, unique=True)
    connection_type = models.CharField(max_length=50, choices=Dialect)
    host = models.CharField(max_length=255)
    port = models.IntegerField(validators=[MinValueValidator(1), MaxValueValidator(65535)])
    database = models.CharField(max_length=255)
    user = models.CharField(max_length=255)
    encrypted_password = models.TextField(editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "database_connections"
        verbose_name = "connection"
        ordering = ["conn_id"]

    def __str__(self) -> str:
        return self.name

    @classmethod
    def register(cls, *, name: str, url: str) -> Self:
        """Create the connection of that name, or lead it to where the URL says."""
        target = Target.from_url(url)
        values = {
            "connection_type": target.dialect,
            "host": target.host,
            "port": target.port,
            "database": target.database,
            "user": target.user,
            "encrypted_password": _encrypted(target.password),
        }
        connection, _ = cls.objects.update_or_create(name=name, defaults=values)
        return connection

    def set_password(self, password: str) -> None:
        """Encrypt with the newest key; `save` is the caller's."""
        self.encrypted_password = _encrypted(password)

    def rotate_password(self) -> bool | None:
        """Encrypt with the newest key; `save` is the caller's.

        False when it is so already, None when no key of ours opens it.
        """
        stored = self.encrypted_password.encode()
        with suppress(InvalidToken):
            _keys()[0].decrypt(stored)
            return False
        try:
            self.encrypted_password = _cipher().rotate(stored).decode()
        except InvalidToken:
            return None
        return True

    def target(self) -> Target:
        """What to ask; CannotBeDone when no key of ours opens the stored password."""
        try:
            password = _cipher().decrypt(self.encrypted_password.encode()).decode()
        except InvalidToken as error:
            raise CannotBeDone(
                f"The password of the connection {self.name} was encrypted with a key that is no "
                "longer set; enter the password again.",
                field="password",
            ) from error
        return Target(
            dialect=self.connection_type,
            host=self.host,
            port=self.port,
            database=self.database,
            user=self.user,
            password=password,
        )


def _encrypted(password: str) -> str:
    return _cipher().encrypt(password.encode()).decode()


def _cipher() -> MultiFernet:
    return MultiFernet(_keys())


def _keys() -> list[Fernet]:
    """Newest first."""
    if not settings.FERNET_KEYS:
        raise CannotBeDone("TIPPERS_ENCRYPTION_KEYS is not set, so passwords cannot be kept.")
    return [Fernet(key) for key in settings.FERNET_KEYS]
