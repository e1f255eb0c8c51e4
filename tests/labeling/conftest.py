"""A concept of devices whose products are laid down as a materialization would, without a query."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from django.conf import settings
from django.db import transaction
from rest_framework.test import APIClient

from concepts.models import Concept, ConceptValue, Feature, Index, Rule, SqlAsset
from connections.models import DatabaseConnection
from tests.conftest import body
from tippers import storage

DEVICES = 240


@dataclass
class Devices:
    """A concept with three values, one index, a rule and a feature; driven as an analyst does."""

    api: APIClient
    reviewer: APIClient
    perform_all: Callable[[], int]
    concept: Concept
    values: dict[str, int]
    index: Index
    rule: Rule
    feature: Feature
    truth: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"/concepts/{self.concept.c_id}"

    @property
    def functions(self) -> str:
        return f"{self.root}/labeling-functions"

    def post(self, path: str, said: Any = None, *, status: int = 201) -> Any:
        response = self.api.post(f"{self.root}/{path}", said)
        assert response.status_code == status, response.content
        return body(response)

    def get(self, path: str, *, status: int = 200) -> Any:
        response = self.api.get(f"{self.root}/{path}")
        assert response.status_code == status, response.content
        return body(response)

    def patch(self, path: str, said: Any, *, status: int = 200) -> Any:
        response = self.api.patch(f"{self.root}/{path}", said)
        assert response.status_code == status, response.content
        return body(response)

    def code(self, value: str, condition: str) -> str:
        """A labeling function that votes `value` where the condition holds."""
        return (
            f"{value} = {self.values[value]}\nABSTAIN = -1\n\ndef labeling_function(row):\n"
            f"    return {value} if {condition} else ABSTAIN"
        )

    def custom(self, name: str, value: str = "STATIC", condition: str = "row['n'] > 1") -> Any:
        """A new custom function, waiting for approval."""
        said = {
            "name": name, "rule_id": self.rule.r_id,
            "applicable_cv_ids": list(self.values.values()), "code": self.code(value, condition),
        }  # fmt: skip
        return self.post("labeling-functions", said)

    def approve(self, lf_id: int, *, status: int = 200) -> Any:
        path = f"{self.functions}/{lf_id}"
        seen = {"code_sha256": body(self.reviewer.get(path))["code_sha256"]}
        response = self.reviewer.post(f"{path}/approve", seen)
        assert response.status_code == status, response.content
        return body(response)

    def approved(self, name: str, value: str, condition: str) -> int:
        lf_id: int = self.custom(name, value, condition)["lf_id"]
        self.approve(lf_id)
        return lf_id

    def four_functions(self) -> list[int]:
        """Honest but imperfect functions: three of code, one template."""
        template = {
            "name": "many_rooms", "rule_id": self.rule.r_id, "field": "rooms", "operator": ">",
            "value": 6, "label": self.values["PHONE"],
        }  # fmt: skip
        return [
            self.approved("one_room", "STATIC", "row['rooms'] == 1"),
            self.approved("long_stays", "LAPTOP", "row['hours'] > 2 and row['rooms'] > 1"),
            self.approved("short_stays", "PHONE", "row['hours'] < 1"),
            self.post("labeling-functions/template", template)["lf_id"],
        ]

    def label(self, lf_ids: list[int], **options: Any) -> Any:
        """A Snorkel job, performed; its results."""
        said = {
            "selectedIndex": self.index.index_id, "selectedRules": [self.rule.r_id],
            "selectedLFs": lf_ids, "snorkel": {"epochs": 50, **options},
        }  # fmt: skip
        job = self.post("snorkel/run", said)
        assert job["status"] == "RUNNING"
        self.perform_all()
        return self.get(f"snorkel/jobs/{job['job_id']}/results?limit=1000")


def publish(asset: SqlAsset, table: pa.Table) -> None:
    """Make a table the asset's current product, through the same door as a run does."""
    key = f"{asset.folder}/{asset.kind}_{asset.pk}/{table.num_rows}_{id(table)}.parquet"
    written = storage.write_parquet(key, table.schema, iter(table.to_batches()))
    with transaction.atomic():
        assert asset.become_current(
            inputs=asset.inputs_now(),
            storage_path=storage.uri(key),
            row_count=written.rows,
            byte_size=written.bytes,
            content_sha256=written.sha256,
            column_stats=[{"name": name} for name in table.column_names],
        )
    asset.refresh_from_db()


@pytest.fixture
def devices(analyst: APIClient, api: APIClient, perform_all: Callable[[], int]) -> Devices:
    concept = Concept.objects.create(name="devices")
    names = ("STATIC", "LAPTOP", "PHONE")
    ids = [ConceptValue.objects.create(c=concept, name=name).cv_id for name in names]
    conn = DatabaseConnection.register(name="wifi", url=settings.TIPPERS_DB_URL)
    index = Index.objects.create(c=concept, name="macs", conn=conn, sql_query="SELECT 1")
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 3, DEVICES)
    macs = [f"mac{number:03}" for number in range(DEVICES)]
    rooms = np.where(kind == 0, 1, np.where(kind == 1, rng.integers(1, 5, DEVICES),
                                            rng.integers(4, 12, DEVICES)))  # fmt: skip
    hours = np.round(np.array([6.0, 3.0, 0.7])[kind] * rng.uniform(0.5, 1.6, DEVICES), 3)
    publish(index, pa.table({"mac": [*reversed(macs), None, macs[0]]}))
    rule = Rule.objects.create(c=concept, name="habits", index=index, sql_query="SELECT 1")
    publish(rule, pa.table({"mac": macs, "n": rng.integers(0, 5, DEVICES), "rooms": rooms,
                            "hours": hours}))  # fmt: skip
    feature = Feature.objects.create(c=concept, name="use", index=index, sql_query="SELECT 1")
    publish(feature, pa.table({"mac": macs, "mean_hours": hours + rng.normal(0, 0.3, DEVICES),
                               "distinct_rooms": rooms + rng.integers(0, 2, DEVICES),
                               "noise": rng.normal(size=DEVICES)}))  # fmt: skip
    return Devices(
        analyst, api, perform_all, concept, dict(zip(names, ids, strict=True)), index, rule,
        feature, {mac: ids[k] for mac, k in zip(macs, kind, strict=True)},
    )  # fmt: skip
