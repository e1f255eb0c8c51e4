"""The REST API as a program sees it: JSON over HTTP, signed in with a token."""

from collections.abc import Iterator
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

PAGE = 1000


class DemoFailed(Exception):
    """The demo cannot go on; the message is a sentence for whoever runs it."""


class SignInRefused(DemoFailed):
    """The server does not take this name and password."""


class Api:
    """One server, with or without a token."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self._session = requests.Session()
        # Reading is repeated while a web worker restarts; what changes something is sent once.
        retry = Retry(total=8, backoff_factor=0.2, status_forcelist=[503], allowed_methods=["GET"])
        self._session.mount(url, HTTPAdapter(max_retries=retry))
        self._session.trust_env = False  # no proxy stands between us and this machine
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    @classmethod
    def sign_in(cls, url: str, username: str, password: str) -> Self:
        """SignInRefused when the server knows no such user and password."""
        anonymous = cls(url)
        body = {"username": username, "password": password}
        answer = anonymous._send("POST", "/auth/login", json=body)
        if answer.status_code == 401:
            raise SignInRefused(f"{url} refuses the password of {username}")
        return cls(url, anonymous._read(answer)["token"])

    def sign_out(self) -> None:
        """End the token."""
        self._read(self._send("POST", "/auth/logout"))

    def get(self, path: str, **params: Any) -> Any:
        return self._read(self._send("GET", path, params=params))

    def post(self, path: str, body: Any = None) -> Any:
        return self._read(self._send("POST", path, json=body))

    def delete(self, path: str) -> None:
        self._read(self._send("DELETE", path))

    def pages(self, path: str, rows: str = "", **params: Any) -> Iterator[Any]:
        """Every row of a list, a page at a time; `rows` names it where an object wraps it."""
        skip = 0
        while True:
            answer = self.get(path, skip=skip, limit=PAGE, **params)
            page = answer[rows] if rows else answer
            yield from page
            if len(page) < PAGE:
                return
            skip += PAGE

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return self._session.request(method, self.url + path, timeout=60, **options)
        except requests.RequestException as error:
            raise DemoFailed(f"{method} {path}: the server does not answer ({error})") from error

    def _read(self, answer: requests.Response) -> Any:
        if answer.ok:
            return answer.json() if answer.content else None
        try:
            body = answer.json()
            said = " ".join([body["detail"], *map(str, body.get("errors", {}).items())])
        except (ValueError, KeyError, TypeError):
            said = answer.text[:300]
        request = answer.request
        raise DemoFailed(f"{request.method} {request.path_url}: {answer.status_code} {said}")
