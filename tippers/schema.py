"""The OpenAPI schema, as the contract writes its paths."""

from collections.abc import Callable

Endpoint = tuple[str, str, str, Callable[..., object]]


def without_trailing_slashes(endpoints: list[Endpoint]) -> list[Endpoint]:
    """A path that accepts a trailing slash is documented without it."""
    return [(path.rstrip("/") or "/", *rest) for path, *rest in endpoints]  # type: ignore[misc]  # the rest is three
