"""The server that the demo works on, and how the demo, and then a person, sign in there."""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings
from django.db import OperationalError

from tippers.demo.client import Api, DemoFailed, SignInRefused
from tippers.embedded.home import Home, Stack
from tippers.embedded.supervisor import READY_SECONDS, Background

Credentials = dict[str, str]  # username, password; empty when they are not known


class Remembered:
    """The credentials of a home that the demo started first: a file that only its owner reads."""

    def __init__(self, home: Home) -> None:
        self._path = home.path / "demo.json"

    def read(self) -> Credentials:
        try:
            found: Credentials = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def write(self, username: str, password: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"username": username, "password": password}, file)


@contextmanager
def server(home: Home) -> Iterator[tuple[Stack, Background | None]]:
    """The home's running stack, or one that is started here and stopped at the end."""
    stack = home.stack()
    if stack and stack.running:
        yield _ready(home), None
        return
    environment = {}
    password = settings.ADMIN_PASSWORD
    if stack is None and not password:
        # The first start would print a password that nobody sees: make one up that we know.
        password = environment["TIPPERS_ADMIN_PASSWORD"] = secrets.token_urlsafe(12)
    background = Background(home.path, environment)
    with background as started:
        if environment:
            Remembered(home).write(settings.ADMIN_USER, password)
        yield started, background


def _ready(home: Home) -> Stack:
    """The stack that somebody else started, once it answers."""
    deadline = time.monotonic() + READY_SECONDS
    while (stack := home.stack()) and stack.running and time.monotonic() < deadline:
        if stack.ready:
            return stack
        time.sleep(0.2)
    raise DemoFailed(f"The server of {home.path} did not become ready")


@contextmanager
def signed_in(stack: Stack, remembered: Credentials) -> Iterator[tuple[Api, str]]:
    """A signed-in client, and a sentence on how a person signs in; the token ends with the block."""
    api, sentence = _sign_in(stack, remembered)
    try:
        yield api, sentence
    finally:
        with suppress(DemoFailed):  # the server may be what failed
            api.sign_out()


def _sign_in(stack: Stack, remembered: Credentials) -> tuple[Api, str]:
    user = settings.ADMIN_USER
    if settings.ADMIN_PASSWORD:
        try:
            api = Api.sign_in(stack.web_url, user, settings.ADMIN_PASSWORD)
        except SignInRefused as error:
            raise DemoFailed(
                f"{error}: TIPPERS_ADMIN_PASSWORD counts at the first start of a home only; unset "
                "it, or set it to the password that the user has now"
            ) from error
        return api, f"{user}, with the password in TIPPERS_ADMIN_PASSWORD"
    if remembered:
        name, password = remembered["username"], remembered["password"]
        with suppress(SignInRefused):  # it was changed since, as it should be
            return Api.sign_in(stack.web_url, name, password), f"{name}, password {password}"
    here = Path(sys.executable)
    python = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    return Api(stack.web_url, _token_for(user)), (
        f"{user}, with the password that the first start printed "
        f"(`{python} manage.py changepassword {user}` sets another)"
    )


def _token_for(username: str) -> str:
    """A token written to the product's own database: this home's password is not known here."""
    from django.contrib.auth.models import User
    from knox.models import AuthToken

    try:
        user = User.objects.filter(username=username, is_superuser=True).first()
    except OperationalError as error:
        raise DemoFailed(
            f"The password of {username} is not known: set TIPPERS_ADMIN_PASSWORD to it"
        ) from error
    if user is None:
        raise DemoFailed(
            f"There is no administrator named {username}: set TIPPERS_ADMIN_USER and "
            "TIPPERS_ADMIN_PASSWORD to one that there is"
        )
    token: str = AuthToken.objects.create(user=user)[1]
    return token
