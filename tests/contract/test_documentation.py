"""The schema, and the pages that show it without asking anyone else for anything."""

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command
from rest_framework.test import APIClient

from tests.contract.test_every_path import operations
from tests.contract.test_field_tables import FAMILIES, NOTHING, Family

pytestmark = pytest.mark.django_db


class Links(HTMLParser):
    """Everything that a page makes a browser fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.found += re.findall(r"url\(\s*['\"]?([^'\")]+)", page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"src", "href", "srcset", "data", "poster", "spec-url"}
        self.found += [value for name, value in attrs if name in wanted and value]


def test_the_schema_is_valid_and_free_of_warnings() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_need_no_other_host(stranger: APIClient, path: str) -> None:
    response = stranger.get(path, headers={"accept": "text/html"})
    assert response.status_code == 200
    found = Links(response.content.decode()).found
    assert any(link.endswith(".js") for link in found)
    for link in found:
        assert link.startswith("/"), link
        assert not link.startswith("//"), link
        if link.startswith("/static/"):
            assert finders.find(link.removeprefix("/static/")), link


def test_the_pages_styles_fetch_nothing_from_elsewhere() -> None:
    style = finders.find("drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css")
    assert isinstance(style, str)
    fetched = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import", Path(style).read_text())
    assert [each for each in fetched if not each.startswith("data:")] == []


@pytest.fixture
def schema(stranger: APIClient) -> Any:
    return stranger.get("/schema", headers={"accept": "application/json"}).json()


def test_every_operation_says_what_its_answers_and_errors_are(schema: Any) -> None:
    error = {"$ref": "#/components/schemas/Error"}
    for method, path in operations():
        said = schema["paths"][path][method]
        responses = said["responses"]
        fine = {status for status in responses if status.startswith("2")}
        assert len(fine) == 1, (method, path)
        (status,) = fine
        assert (status == "204") == ("content" not in responses[status]), (method, path)
        for status in set(responses) - fine:
            if (path, status) != ("/health/ready", "503"):
                content = responses[status]["content"]
                assert content == {"application/json": {"schema": error}}, (method, path, status)
        signed_in = said["security"] != [{}]
        assert signed_in == ({"403", "503"} <= set(responses)), (method, path)
        if "{" in path:
            assert "404" in responses, (method, path)
        assert ("requestBody" in said) <= ({"400", "413", "415"} <= set(responses)), (method, path)


def test_ids_in_paths_are_whole_numbers_and_runs_are_uuids(schema: Any) -> None:
    for method, path in operations():
        for parameter in schema["paths"][path][method].get("parameters", []):
            if parameter["in"] == "path" and parameter["name"].endswith("id"):
                kind = "string" if parameter["name"] == "run_id" else "integer"
                assert parameter["schema"]["type"] == kind, (path, parameter)


def test_requests_refuse_what_they_do_not_know(schema: Any) -> None:
    components = schema["components"]["schemas"]
    for method, path in operations():
        sent = schema["paths"][path][method].get("requestBody")
        if sent:
            name = sent["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert components[name]["additionalProperties"] is False, name
            assert not any(
                each.get("readOnly") for each in components[name].get("properties", {}).values()
            )


def test_paged_lists_say_so(schema: Any) -> None:
    concepts = schema["paths"]["/concepts"]["get"]
    skip, limit = (
        next(each["schema"] for each in concepts["parameters"] if each["name"] == name)
        for name in ("skip", "limit")
    )
    assert (skip["minimum"], skip["default"]) == (0, 0)
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 1000, 100)
    assert "X-Total-Count" in concepts["responses"]["200"]["headers"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/runs", "RunList"),
        ("/dagster/runs", "RunList"),
        ("/dagster/assets", "AssetList"),
        ("/dagster/health", "RunsHealth"),
        ("/concepts/{c_id}/catalog", "Catalog"),
        ("/concepts/{c_id}/snorkel/jobs/{job_id}/results", "SnorkelResults"),
        ("/concepts/{c_id}/classifiers/jobs/{job_id}/results", "ClassifierResults"),
        ("/occupancy/datasets/{dataset_id}/results", "OccupancyResults"),
        ("/occupancy/datasets/{dataset_id}/progress", "OccupancyProgress"),
    ],
)
def test_an_answer_that_is_an_object_is_shown_as_one(schema: Any, path: str, name: str) -> None:
    content = schema["paths"][path]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}


def test_occupancy_results_say_in_which_forms_they_come(schema: Any) -> None:
    results = schema["paths"]["/occupancy/datasets/{dataset_id}/results"]["get"]
    assert set(results["responses"]["200"]["content"]) == {
        "application/json", "text/csv", "application/vnd.apache.parquet",
    }  # fmt: skip
    words = {
        each["name"]: (each["schema"]["enum"], each["schema"].get("default"))
        for each in results["parameters"]
        if "enum" in each["schema"]
    }
    assert words == {
        "order": (["interval_begin_time", "-interval_begin_time"], "interval_begin_time"),
        "fill": (["zero"], None),
        "format": (["json", "parquet", "csv"], "json"),
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/occupancy/datasets"),
        ("get", "/occupancy/datasets/{dataset_id}/results"),
        ("get", "/occupancy/datasets/{dataset_id}/progress"),
        ("get", "/spaces/{space_id}/subtree"),
        ("get", "/spaces/{space_id}/ancestors"),
    ],
)
def test_where_a_tree_is_walked_it_may_be_none(schema: Any, method: str, path: str) -> None:
    assert "409" in schema["paths"][path][method]["responses"]


@pytest.mark.parametrize("path", ["/concepts/x", "/nowhere", "/concepts/" + "9" * 5000])
def test_a_path_that_is_none_is_404_in_the_one_shape(stranger: APIClient, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
    assert set(answer.json()) == {"detail", "code"}
    page = stranger.get(path, headers={"accept": "text/html"})
    assert page["Content-Type"].startswith("text/html")


TYPES = {
    "string": "string",
    "name": "string",
    "time": "string",
    "integer": "integer",
    "float": "number",
    "object": "object",
    "ids": "array",
    "strings": "array",
}


def resolved(schema: Any, said: Any) -> Any:
    """What a property is, behind its references; `nullable` and `default` stay beside them."""
    behind = said.get("$ref") or next(
        (each["$ref"] for each in said.get("allOf", said.get("oneOf", [])) if "$ref" in each), None
    )
    if behind is None:
        return said
    return schema["components"]["schemas"][behind.rpartition("/")[2]] | said


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_schema_agrees_with_the_references_tables(schema: Any, family: Family) -> None:
    path = family.create.format(root="/concepts/{c_id}")
    operation = schema["paths"][path]["post"]
    body = resolved(schema, operation["requestBody"]["content"]["application/json"]["schema"])
    answer = operation["responses"]["201"]["content"]["application/json"]["schema"]
    shown = resolved(schema, answer)
    assert family.answer <= set(shown["properties"])
    assert set(shown["required"]) == set(shown["properties"])
    for name, row in family.fields.items():
        outer, _, inner = name.partition(".")
        here = resolved(schema, body["properties"][outer]) if inner else body
        found = resolved(schema, here["properties"][inner or outer])
        assert found["type"] == TYPES[row.kind], name
        if name != "applicable_cv_ids":  # a label may stand for them
            assert (name in body["required"] or bool(inner)) >= row.required, name
        if row.kind != "ids" and not row.required:
            assert found.get("nullable", False) == row.nullable, name
        if row.default not in (NOTHING, None):
            assert found["default"] == row.default, name
