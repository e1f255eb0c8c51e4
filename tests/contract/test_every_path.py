"""What holds for every path that the schema lists: sign-in, and the one error shape."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

pytestmark = pytest.mark.django_db
# Whoever may look at a connection may ask whether it works.
TESTS = {"/connections/{conn_id}/test", "/database-connections/{conn_id}/test"}
PUBLIC = {"/health", "/health/ready", "/auth/login", "/schema"}


def operations() -> Iterator[tuple[str, str]]:
    generator: Any = SchemaGenerator  # drf-spectacular's is not typed
    schema = generator().get_schema(request=None, public=True)
    for path, methods in schema["paths"].items():
        for method in sorted(set(methods) & {"get", "post", "put", "patch", "delete"}):
            yield method, path


def nowhere(path: str) -> str:
    """The path with ids of things that do not exist."""
    path = re.sub(r"\{run_id\}", str(uuid.uuid4()), path)
    return re.sub(r"\{\w+\}", "999999", path)


OPERATIONS = pytest.mark.parametrize(("method", "path"), list(operations()))


def in_the_one_shape(answer: Any) -> bool:
    body = answer.json()
    plain = isinstance(body["detail"], str) and re.fullmatch(r"[a-z_]+", body["code"]) is not None
    errors = body.get("errors", {})
    lists = all(isinstance(said, list) and said for said in errors.values())
    return plain and lists and set(body) <= {"detail", "code", "errors"}


def test_the_contracts_families_are_all_there() -> None:
    paths = {path for _, path in operations()}
    for family in (
        "/database-connections", "/connections", "/concepts", "/concepts/{c_id}/values",
        "/concepts/{c_id}/indexes", "/concepts/{c_id}/rules", "/concepts/{c_id}/features",
        "/concepts/{c_id}/labeling-functions", "/concepts/{c_id}/catalog",
        "/concepts/{c_id}/snorkel/jobs", "/concepts/{c_id}/classifiers/jobs",
        "/occupancy/datasets", "/spaces", "/runs", "/dagster/runs", "/dagster/assets",
    ):  # fmt: skip
        assert family in paths


@OPERATIONS
def test_a_stranger_is_asked_to_sign_in(stranger: APIClient, method: str, path: str) -> None:
    if path in PUBLIC:
        return
    answer = getattr(stranger, method)(nowhere(path))
    assert answer.status_code == 401
    assert in_the_one_shape(answer)


@OPERATIONS
def test_a_viewer_changes_nothing(viewer: APIClient, method: str, path: str) -> None:
    if method == "get" or path in PUBLIC | TESTS or path == "/auth/logout":
        return
    answer = getattr(viewer, method)(nowhere(path), {})
    assert answer.status_code == 403
    assert in_the_one_shape(answer)


@OPERATIONS
def test_what_does_not_exist_is_404_in_the_one_shape(
    api: APIClient, method: str, path: str
) -> None:
    if "{" not in path:
        return
    answer = getattr(api, method)(nowhere(path))
    assert answer.status_code in {404, 400}, answer.content
    assert in_the_one_shape(answer)


@OPERATIONS
def test_a_body_that_is_no_json_is_400_in_the_one_shape(
    api: APIClient, method: str, path: str
) -> None:
    if method != "post" or "{" in path or path == "/auth/logout":
        return
    answer = api.post(path, data="{not json", content_type="application/json")
    assert answer.status_code == 400
    assert in_the_one_shape(answer)
