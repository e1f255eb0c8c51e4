"""Which database to ask, as whom; and the errors that asking can end in."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, quote_plus, unquote, urlsplit

from connections import hosts
from tippers.errors import CannotBeDone, Unavailable

SHOWN_CHARACTERS = 500


class QueryFailed(CannotBeDone):
    """The database refused the query or could not carry it out; the same again will not help."""

    code = "query_failed"


class QueryTooSlow(QueryFailed):
    """The query did not end within its time limit."""


class DatabaseDown(Unavailable):
    """The database does not answer, refused for now, or broke off."""


class QueryStopped(Exception):
    """The query was stopped from outside, through what `on_stop` was given."""


DIALECTS = {"postgresql": 5432, "mysql": 3306}
_SCHEMES = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql"}


@dataclass(frozen=True)
class Target:
    """One database and the account to use. The dialect is `postgresql` or `mysql`."""

    dialect: str
    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """From `postgresql://user:password@host:port/database`; CannotBeDone when it is not one."""
        parts = urlsplit(url)
        dialect = _SCHEMES.get(parts.scheme)
        if dialect is None or not parts.hostname:
            raise CannotBeDone(
                "A database URL reads postgresql://user:password@host:port/database "
                "(or mysql://...)."
            )
        if parts.query:
            # Dropping sslmode=verify-full in silence would be worse than refusing it.
            raise CannotBeDone("Options after the ? of a database URL are not supported.")
        return cls(
            dialect=dialect,
            host=unquote(parts.hostname),
            port=parts.port or DIALECTS[dialect],
            database=unquote(parts.path.lstrip("/")),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
        )

    def addresses(self) -> list[str]:
        """What the host resolves to now, if connecting there is admitted (HostRefused)."""
        return hosts.admitted(self.host, self.port, self.database)

    def scrubbed(self, text: str) -> str:
        """A message for people: short, without the password in any spelling of a URL."""
        # Blanking a password of a letter or two would spell it out by its gaps.
        if len(self.password) > 3:
            for secret in {
                self.password,
                quote(self.password),
                quote(self.password, safe=""),
                quote_plus(self.password),
            }:
                text = text.replace(secret, "***")
        text = text.strip()
        return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
