"""The exceptions that every layer shares, at the very bottom of the imports.

"Cannot be done" and "we have a bug" are different things. A `CannotBeDone` is an answer: the API
renders it as a 4xx, and a background run fails at once with its sentence. `Unavailable` means that
something we stand on (database, storage, broker) does not answer: 503, and runs try again. Any
other exception is a bug of ours: 500, and runs try again a few times before they give up.
"""


class CannotBeDone(Exception):
    """The request or job cannot be carried out as it stands; repeating it will not help.

    `detail` is a sentence for the person who asked. `field` names the input at fault, if one is.
    """

    status = 400
    code = "invalid"

    def __init__(self, detail: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        if code is not None:
            self.code = code


class NotFound(CannotBeDone):
    """What was named does not exist (HTTP 404)."""

    status = 404
    code = "not_found"


class NotPossibleNow(CannotBeDone):
    """The present state forbids the change (HTTP 409)."""

    status = 409
    code = "conflict"


class Unavailable(Exception):
    """Something we stand on does not answer (HTTP 503); a run tries again with back-off."""

    code = "unavailable"
