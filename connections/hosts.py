"""Which addresses the databases that users name may have.

A connection is a request to open a socket from inside our network, so a name is resolved once,
what it resolves to is judged, and the drivers connect to those addresses and nothing else.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from django.conf import settings

from tippers.errors import CannotBeDone, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HostRefused(CannotBeDone):
    """The host of a connection leads where connections may not go."""

    code = "host_refused"


class HostUnknown(Unavailable):
    """The name of the host does not resolve, at least not now."""


def admitted(host: str, port: int, database: str) -> list[str]:
    """The addresses of `host`, each of which may be connected to.

    HostRefused when one may not: a name with a good and a bad address is a trick.
    """
    if host.startswith("/") or not host.strip():
        raise HostRefused("The host must be a name or an address.", field="host")
    addresses = _resolve(host, port)
    if not _is_tippers_database(host, port, database):
        for address in addresses:
            if reason := _objection(address, port):
                raise HostRefused(
                    f"{host} leads to {address}, {reason}; an operator can admit it with "
                    "ALLOWED_DB_NETWORKS.",
                    field="host",
                )
    return [str(address) for address in addresses]


def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise HostUnknown(f"The host {host} is not known: {error}.") from error
    # A zone such as fe80::1%eth0 is of no use to the judgement.
    texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ipaddress.ip_address(text) for text in texts]


def _is_tippers_database(host: str, port: int, database: str) -> bool:
    """The sessions database that the operator named needs no further permission."""
    url = urlsplit(settings.TIPPERS_DB_URL)
    return (url.hostname, url.port or 5432, url.path.lstrip("/")) == (host.lower(), port, database)


def _objection(address: Address, port: int) -> str | None:
    """Why a connection may not go there; None when it may."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    networks = [ipaddress.ip_network(text, strict=False) for text in settings.ALLOWED_DB_NETWORKS]
    if any(address in network for network in networks):
        return None
    local = settings.LOCAL_MODE and (address.is_loopback or address.is_private)
    kinds = (
        # The cloud's metadata service is link-local; private is true of it as well.
        (address.is_link_local, "a link-local address"),
        (address.is_unspecified or address.is_multicast, "no address of a server"),
        (not local and address.is_loopback, "this machine itself"),
        (not local and address.is_private, "a private address"),
        (not local and address.is_reserved, "no address of a server"),
        ((str(address), port) in _own_services(), "a service of our own"),
    )
    return next((reason for holds, reason in kinds if holds), None)


def _own_services() -> set[tuple[str, int]]:
    """Only in local mode may users reach these: the sessions lie on the product's own server."""
    if settings.LOCAL_MODE:
        return set()
    found = set()
    for text, default in ((settings.DATABASE_URL, 5432), (settings.REDIS_URL, 6379)):
        url = urlsplit(text)
        if url.hostname:
            port = url.port or default
            found |= {(str(address), port) for address in _resolve(url.hostname, port)}
    return found
