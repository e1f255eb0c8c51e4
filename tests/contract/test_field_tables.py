"""The reference's field tables, walked field by field over every family that takes a body."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from rest_framework.test import APIClient

from labeling.models import SnorkelJob
from tests.labeling.conftest import Devices
from tests.occupancy.conftest import CAMPUS, SessionsDatabase
from tippers.runs.models import Queue, Run, RunStatus

pytestmark = pytest.mark.django_db

NOTHING: Any = object()  # the table names no default, and the answer shows none
OF_MACS = "SELECT mac, 1 AS one FROM wifi WHERE mac IN (:index_values)"
# What a field of a kind refuses, whatever the field is for.
WRONG: dict[str, list[Any]] = {
    "string": [{}, ["x"], True, "a\0b", "half \ud800"],
    "name": [{}, ["x"], True, "a\0b", "", "x" * 256],
    "integer": ["x", 1.5, {}, [1], True, 10**30, -(10**30)],
    "float": ["x", {}, [1]],
    "boolean": ["perhaps", {}, [True]],
    "object": [[], "x", 5, {"a": "b\0"}],
    "ids": ["x", 5, {"a": 1}, ["x"], [1.5], [True], [10**30], [None]],
    "strings": ["x", 5, {"a": 1}, [{}], ["a\0b"]],
    "time": ["yesterday", 5, {}, "2024-13-01T00:00:00Z", "10000-01-01T00:00:00Z"],
}


@dataclass(frozen=True)
class Field:
    """A row of a table: the field's kind, whether it must be given, what it is when it is not."""

    kind: str
    required: bool = False
    default: Any = NOTHING
    # An optional field is null when it is given as null; those with a default of their own refuse.
    nullable: bool = True


@dataclass(frozen=True)
class Family:
    """A family of paths: how one is made, its tables, and what an update may say."""

    create: str
    body: Callable[[Devices], dict[str, Any]]
    fields: dict[str, Field]
    answer: set[str]
    pk: str
    listed: str = ""  # where they are read, if that is not where they are made
    newest_first: bool = False
    update: Callable[[Devices], dict[str, Any]] | None = None  # a value for every field it takes


def finished_labels(devices: Devices) -> int:
    """A Snorkel job whose run has ended well; what it found does not matter to a launch."""
    run = Run.objects.create(job="snorkel_training", queue=Queue.LONG, status=RunStatus.SUCCESS)
    job = SnorkelJob.objects.create(
        c=devices.concept, index=devices.index, run=run, rule_ids=[], lf_ids=[]
    )
    return job.job_id


def required(kind: str) -> Field:
    return Field(kind, required=True)


def optional(kind: str) -> Field:
    return Field(kind, default=None)


PARTITIONS = {"query_template_params": optional("object"), "partition_type": optional("string"),
              "partition_config": optional("object")}  # fmt: skip
MATERIALIZED = {
    "query_template_params", "partition_type", "partition_config", "storage_path",
    "is_materialized", "materialized_at", "row_count", "created_at", "updated_at",
}  # fmt: skip
LF_ANSWER = {
    "lf_id", "c_id", "applicable_cv_ids", "rule_id", "name", "version", "parent_lf_id", "lf_type",
    "lf_config", "is_active", "requires_approval", "deprecated_at", "deprecated_by_lf_id",
    "estimated_accuracy", "coverage", "conflicts", "created_at", "updated_at",
}  # fmt: skip

FAMILIES = {
    "connections": Family(
        "/database-connections",
        lambda _: {
            "name": "new",
            "connection_type": "postgresql",
            "host": "db.example.com",
            "port": 5432,
            "database": "tippers",
            "user": "reader",
            "password": "secret",
        },
        {
            "name": required("name"),
            "connection_type": required("string"),
            "host": required("name"),
            "port": required("integer"),
            "database": required("name"),
            "user": required("name"),
            "password": required("string"),
        },
        {"conn_id", "name", "connection_type", "host", "port", "database", "user", "created_at"},
        "conn_id",
        update=lambda _: {
            "name": "newer",
            "connection_type": "mysql",
            "host": "new-host.example.com",
            "port": 5433,
            "database": "other",
            "user": "somebody",
        },
    ),
    "concepts": Family(
        "/concepts",
        lambda _: {"name": "new"},
        {"name": required("name"), "description": optional("string")},
        {"c_id", "name", "description", "created_at", "updated_at"},
        "c_id",
        update=lambda _: {"name": "newer", "description": "Updated description"},
    ),
    "values": Family(
        "{root}/values",
        lambda _: {"name": "NEW"},
        {
            "name": required("name"),
            "description": optional("string"),
            "display_order": optional("integer"),
        },
        {"cv_id", "c_id", "name", "description", "display_order", "created_at"},
        "cv_id",
        update=lambda _: {"name": "NEWER", "description": "Updated", "display_order": 2},
    ),
    "indexes": Family(
        "{root}/indexes",
        lambda d: {"name": "new", "conn_id": d.index.conn_id, "sql_query": "SELECT 1 AS one"},
        {
            "name": required("name"),
            "conn_id": required("integer"),
            "sql_query": required("string"),
            **PARTITIONS,
        },
        {"index_id", "c_id", "conn_id", "name", "sql_query", *MATERIALIZED},
        "index_id",
        update=lambda d: {
            "name": "newer",
            "conn_id": d.index.conn_id,
            "sql_query": "SELECT {{ n }} AS two",
            "query_template_params": {"n": 2},
            "partition_type": "categorical",
            "partition_config": {"column": "two"},
        },
    ),
    "rules": Family(
        "{root}/rules",
        lambda d: {"name": "new", "index_id": d.index.index_id, "sql_query": OF_MACS},
        {
            "name": required("name"),
            "index_id": required("integer"),
            "sql_query": required("string"),
            "index_column": optional("string"),
            **PARTITIONS,
        },
        {"r_id", "c_id", "index_id", "name", "sql_query", "index_column", *MATERIALIZED},
        "r_id",
        update=lambda d: {
            "name": "newer",
            "index_id": d.index.index_id,
            "index_column": "mac",
            "sql_query": OF_MACS.replace("1", "{{ n }}"),
            "query_template_params": {"n": 2},
            "partition_type": "id_range",
            "partition_config": {"column": "one", "size": 10},
        },
    ),
    "features": Family(
        "{root}/features",
        lambda d: {"name": "new", "index_id": d.index.index_id, "sql_query": OF_MACS},
        {
            "name": required("name"),
            "index_id": required("integer"),
            "sql_query": required("string"),
            "index_column": optional("string"),
            "columns": optional("strings"),
            "description": optional("string"),
            "level": optional("integer"),
            **PARTITIONS,
        },
        {
            "feature_id",
            "c_id",
            "index_id",
            "name",
            "description",
            "sql_query",
            "index_column",
            "columns",
            "level",
            *MATERIALIZED,
        },
        "feature_id",
        update=lambda _: {
            "name": "newer",
            "sql_query": OF_MACS.replace("1", "{{ n }}"),
            "index_column": "mac",
            "columns": ["one"],
            "query_template_params": {"n": 2},
            "description": "Updated",
            "level": 1,
            "partition_type": "time",
            "partition_config": {"column": "one", "granularity": "daily"},
        },
    ),
    "labeling functions": Family(
        "{root}/labeling-functions",
        lambda d: {
            "name": "new",
            "rule_id": d.rule.r_id,
            "applicable_cv_ids": [d.values["PHONE"]],
        },
        {
            "name": required("name"),
            "rule_id": required("integer"),
            "applicable_cv_ids": required("ids"),
            "code": Field("string"),
            "allowed_imports": Field("strings", nullable=False),
            "parent_lf_id": optional("integer"),
        },
        LF_ANSWER,
        "lf_id",
        update=lambda d: {
            "name": "newer",
            "is_active": False,
            "lf_config": {"code": d.code("PHONE", "row['n'] > 1"), "allowed_imports": ["re"]},
        },
    ),
    "Snorkel jobs": Family(
        "{root}/snorkel/run",
        lambda d: {
            "selectedIndex": d.index.index_id,
            "selectedLFs": [
                d.post(
                    "labeling-functions/template",
                    {
                        "name": f"t{label}",
                        "rule_id": d.rule.r_id,
                        "field": "n",
                        "operator": ">",
                        "value": 2,
                        "label": label,
                    },
                )["lf_id"]
                for label in d.values.values()
            ],
        },
        {
            "selectedIndex": required("integer"),
            "selectedRules": Field("ids", nullable=False),
            "selectedLFs": required("ids"),
            "snorkel.epochs": Field("integer", default=100, nullable=False),
            "snorkel.lr": Field("float", default=0.01, nullable=False),
            "snorkel.sample_size": Field("integer", default=None),
            "snorkel.output_type": Field("string", nullable=False),
            "truth_rule_id": optional("integer"),  # ours
        },
        {
            "job_id",
            "c_id",
            "index_id",
            "rule_ids",
            "lf_ids",
            "config",
            "output_type",
            "dagster_run_id",
            "status",
            "result_path",
            "error_message",
            "created_at",
            "completed_at",
        },
        "job_id",
        listed="{root}/snorkel/jobs",
        newest_first=True,
    ),
    "classifier jobs": Family(
        "{root}/classifiers/run",
        lambda d: {
            "snorkel_job_id": finished_labels(d),
            "feature_ids": [d.feature.feature_id],
        },
        {
            "snorkel_job_id": required("integer"),
            "feature_ids": required("ids"),
            "config.threshold_method": Field("string", default="max_confidence", nullable=False),
            "config.threshold_value": Field("float", default=0.7, nullable=False),
            "config.min_labels_per_class": Field("integer", default=10, nullable=False),
            "config.imbalance_factor": Field("float", default=3.0, nullable=False),
            "config.test_size": Field("float", default=0.2, nullable=False),
            "config.random_state": Field("integer", default=42, nullable=False),
        },
        {
            "job_id",
            "c_id",
            "snorkel_job_id",
            "feature_ids",
            "config",
            "dagster_run_id",
            "status",
            "result_path",
            "error_message",
            "created_at",
            "completed_at",
        },
        "job_id",
        listed="{root}/classifiers/jobs",
        newest_first=True,
    ),
    "occupancy datasets": Family(
        "/occupancy/datasets",
        lambda _: {"name": "new", "root_space_id": CAMPUS},
        {
            "name": required("name"),
            "description": optional("string"),
            "root_space_id": required("integer"),
            "start_time": Field("time"),
            "end_time": Field("time"),
            "interval_seconds": Field("integer", default=3600, nullable=False),
            "chunk_days": Field("integer", default=30, nullable=False),
        },
        {
            "dataset_id",
            "name",
            "description",
            "root_space_id",
            "start_time",
            "end_time",
            "interval_seconds",
            "chunk_days",
            "status",
            "dagster_run_id",
            "storage_path",
            "row_count",
            "column_stats",
            "error_message",
            "created_at",
            "completed_at",
        },
        "dataset_id",
        newest_first=True,
    ),
}
EVERY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
UPDATED = pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES.values() if family.update],
    ids=[name for name, family in FAMILIES.items() if family.update],
)


@pytest.fixture
def made(devices: Devices, campus: SessionsDatabase) -> "Made":
    return Made(devices)


class Made:
    """Families, made in one concept by one who may do everything."""

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        self.api: APIClient = devices.reviewer
        self.bodies: dict[str, dict[str, Any]] = {}

    def path(self, family: Family) -> str:
        return family.create.format(root=self.devices.root)

    def body(self, family: Family) -> dict[str, Any]:
        """The same at every call."""
        if family.pk not in self.bodies:
            self.bodies[family.pk] = family.body(self.devices)
        return self.bodies[family.pk]

    def send(self, method: str, path: str, said: Any) -> Any:
        """The body with its half surrogates escaped, as a careless program sends them."""
        return self.api.generic(method, path, json.dumps(said), content_type="application/json")

    def post(self, family: Family, said: Any) -> Any:
        return self.send("POST", self.path(family), said)

    def patch(self, path: str, said: Any) -> Any:
        return self.send("PATCH", path, said)

    def created(self, family: Family) -> tuple[str, dict[str, Any]]:
        """The path of a new one, and how it was answered."""
        response = self.post(family, self.body(family))
        assert response.status_code == 201, response.content
        answer: dict[str, Any] = response.json()
        listed = family.listed.format(root=self.devices.root) or self.path(family)
        return f"{listed}/{answer[family.pk]}", answer


def changed(said: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The body with one field changed; `snorkel.lr` is the field `lr` in the object `snorkel`."""
    said = copy.deepcopy(said)
    outer, _, inner = name.partition(".")
    if inner:
        said.setdefault(outer, {})[inner] = value
    else:
        said[outer] = value
    return said


def refused(response: Any, name: str) -> str | None:
    """None if the answer is a 400 that names the field, else what it is instead."""
    answer = response.json()
    if response.status_code == 400 and name.partition(".")[0] in answer.get("errors", {}):
        return None
    return f"{response.status_code} {answer}"


@EVERY
def test_what_is_created_is_answered_with_every_field_and_can_be_read(
    made: Made, family: Family
) -> None:
    path, answer = made.created(family)
    assert set(answer) >= family.answer
    again = made.api.get(path)
    assert again.status_code == 200
    volatile = {"status"}  # what was just launched says RUNNING, and then what it is
    assert {k: v for k, v in again.json().items() if k not in volatile} == {
        k: v for k, v in answer.items() if k not in volatile
    }
    assert made.api.get(path + "/").status_code == 200


@EVERY
def test_required_fields_are_required_and_not_null(made: Made, family: Family) -> None:
    body, wrong = made.body(family), {}
    for name, row in family.fields.items():
        if row.required:
            without = {key: value for key, value in body.items() if key != name}
            wrong[name] = refused(made.post(family, without), name)
            wrong[f"{name} null"] = refused(made.post(family, changed(body, name, None)), name)
    assert {name: said for name, said in wrong.items() if said} == {}


@EVERY
def test_optional_fields_have_the_tables_defaults(made: Made, family: Family) -> None:
    _, answer = made.created(family)
    for name, row in family.fields.items():
        if row.default is not NOTHING:
            outer, _, inner = name.partition(".")
            shown = answer["config"][inner] if inner else answer[outer]
            assert shown == row.default, name


@EVERY
def test_an_optional_field_may_be_null_unless_it_has_a_default_of_its_own(
    made: Made, family: Family
) -> None:
    body = made.body(family)
    for number, (name, row) in enumerate(family.fields.items()):
        if not row.required:
            said = changed(body, name, None)
            if "name" in said:
                said["name"] = f"{said['name']} {number}"
            response = made.post(family, said)
            if row.nullable:
                assert response.status_code == 201, (name, response.content)
            else:
                assert refused(response, name) is None, (name, response.content)


@EVERY
def test_values_of_another_kind_are_refused_by_the_field(made: Made, family: Family) -> None:
    body, wrong = made.body(family), {}
    for name, row in family.fields.items():
        for value in WRONG[row.kind]:
            said = refused(made.post(family, changed(body, name, value)), name)
            if said:
                wrong[f"{name} = {value!r:.40}"] = said[:300]
    assert wrong == {}


@EVERY
def test_what_is_no_object_or_has_unknown_fields_is_refused(made: Made, family: Family) -> None:
    for no_object in ([], "x", 5, None, [made.body(family)]):
        response = made.post(family, no_object)
        assert response.status_code == 400, (no_object, response.content)
    said = changed(made.body(family), "no_such_field", 1)
    assert refused(made.post(family, said), "no_such_field") is None


@UPDATED
def test_a_patch_changes_each_field_alone_and_put_all_of_them(made: Made, family: Family) -> None:
    assert family.update is not None
    path, answer = made.created(family)
    update = family.update(made.devices)
    together = {"sql_query", "query_template_params", "partition_type", "partition_config"}
    alone = [{name: value} for name, value in update.items() if name not in together]
    rest = {name: value for name, value in update.items() if name in together}
    for said in [*alone, *([rest] if rest else [])]:
        response = made.patch(path, said)
        assert response.status_code == 200, (said, response.content)
        for name, value in said.items():
            assert response.json()[name] == value, name
    assert refused(made.patch(path, {"no_such_field": 1}), "no_such_field") is None
    assert made.patch(path, {}).status_code == 200
    again = changed(made.body(family), "name", "put")
    response = made.api.put(path, {"name": "put"} if family.pk == "lf_id" else again)
    assert response.status_code == 200, response.content
    assert response.json()["name"] == "put"
    assert response.json()[family.pk] == answer[family.pk]


@UPDATED
def test_a_patch_refuses_what_a_post_refuses(made: Made, family: Family) -> None:
    assert family.update is not None
    path, _ = made.created(family)
    wrong = {}
    for name in family.update(made.devices):
        row = family.fields.get(name)
        for value in WRONG[row.kind] if row else []:
            said = refused(made.patch(path, {name: value}), name)
            if said:
                wrong[f"{name} = {value!r:.40}"] = said[:300]
    assert wrong == {}


@EVERY
def test_lists_are_paged_in_their_order_with_a_total(made: Made, family: Family) -> None:
    listed = family.listed.format(root=made.devices.root) or made.path(family)
    before = [each[family.pk] for each in made.api.get(listed).json()]
    ids = []
    for number in range(3):
        said = made.body(family)
        said = changed(said, "name", f"n{number}") if "name" in said else said
        ids.append(made.post(family, said).json()[family.pk])
    whole = [*reversed(ids), *before] if family.newest_first else [*before, *ids]
    assert [each[family.pk] for each in made.api.get(listed).json()] == whole
    page = made.api.get(f"{listed}?skip=1&limit=2")
    assert [each[family.pk] for each in page.json()] == whole[1:3]
    assert page["X-Total-Count"] == str(len(whole))
    beyond = made.api.get(f"{listed}?skip=1000")
    assert (beyond.json(), beyond["X-Total-Count"]) == ([], str(len(whole)))
    assert made.api.get(f"{listed}?limit=1000").status_code == 200
    for name, values in {
        "limit": ["0", "-1", "1001", "x", "1.5", "9" * 30],
        "skip": ["-1", "x", "1.5", "9" * 30],
    }.items():
        for value in values:
            assert refused(made.api.get(f"{listed}?{name}={value}"), name) is None, (name, value)


@EVERY
def test_deleting_answers_204_and_then_404(made: Made, family: Family) -> None:
    path, _ = made.created(family)
    if family.pk == "job_id":
        assert made.api.delete(path).status_code == 409
        assert made.api.post(f"{path}/cancel").json()["status"] == "CANCELLED"
    response = made.api.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    for method in ("get", "delete"):
        gone = getattr(made.api, method)(path)
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


@EVERY
def test_what_belongs_to_another_concept_does_not_exist_here(made: Made, family: Family) -> None:
    path, _ = made.created(family)
    if not path.startswith(made.devices.root):
        return
    other = made.api.post("/concepts", {"name": "other"}).json()["c_id"]
    elsewhere = path.replace(made.devices.root, f"/concepts/{other}")
    methods = ["get", "delete", *(["patch", "put"] if family.update else [])]
    for method in methods:
        assert getattr(made.api, method)(elsewhere, {}).status_code == 404, method
    listed = elsewhere.rpartition("/")[0]
    assert made.api.get(listed).json() == []
    assert made.api.get(path).status_code == 200
