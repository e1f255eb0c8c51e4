"""The demo's concepts: complete, consistent, and right often enough on the simulated campus."""

import operator
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pytest
from snorkel.labeling.model import LabelModel

from tests.scratch import scratch_database
from tippers import sessions
from tippers.sample import campus
from tippers.sample.campus import Campus
from tippers.sample.devices import DEVICES
from tippers.sample.recipe import Custom, Recipe, Regex, Template
from tippers.sample.visitors import VISITORS

COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def simulated() -> Campus:
    return campus.simulate(devices=800, rooms=60, days=56, seed=3)


@pytest.fixture(scope="module")
def url(simulated: Campus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("campus")
    campus.write(simulated, folder)
    with scratch_database() as url:
        sessions.load(
            url, spaces=folder / campus.SPACES_FILE, sessions=folder / campus.SESSIONS_FILE
        )
        yield url


def rows_of(url: str, sql: str) -> Rows:
    """The query's rows by device, its placeholder standing for all there are."""
    everybody = "SELECT DISTINCT mac_address FROM user_ap_trajectory"
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql.replace(":index_values", everybody))
        names = [column[0] for column in cursor.description or ()]
        return {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}


def vote(lf: Custom | Template | Regex, row: dict[str, Any], ids: dict[str, int]) -> int:
    if isinstance(lf, Template):
        return ids[lf.label] if COMPARE[lf.operator](row[lf.field], lf.value) else -1
    if isinstance(lf, Regex):
        return ids[lf.label] if re.search(lf.pattern, row[lf.field]) else -1
    names: dict[str, Any] = {}
    exec(lf.code(ids), names)
    voted: int = names["labeling_function"](row)
    return voted


@pytest.mark.parametrize("recipe", [DEVICES, VISITORS], ids=lambda recipe: recipe.concept)
def test_every_query_runs_and_gives_each_device_one_row_with_the_columns_promised(
    url: str, recipe: Recipe, simulated: Campus
) -> None:
    devices = simulated.truth.device_types.num_rows
    assert len(rows_of(url, recipe.index.sql)) == devices
    for query in (*recipe.rules, *recipe.features):
        rows = rows_of(url, query.sql)
        assert len(rows) == devices, query.name
        assert {"mac_address", *query.columns} <= set(next(iter(rows.values()))), query.name
    assert all(feature.columns and feature.description for feature in recipe.features)


@pytest.mark.parametrize("recipe", [DEVICES, VISITORS], ids=lambda recipe: recipe.concept)
def test_every_function_votes_on_its_rule_and_only_for_its_values(url: str, recipe: Recipe) -> None:
    ids = {name: 100 + place for place, (name, _) in enumerate(recipe.values)}
    tables = {rule.name: rows_of(url, rule.sql) for rule in recipe.rules}
    kinds = set()
    for lf in recipe.labeling_functions:
        kinds.add(type(lf))
        allowed = lf.values if isinstance(lf, Custom) else (lf.label,)
        votes = {vote(lf, row, ids) for row in tables[lf.rule].values()}
        assert votes <= {-1, *(ids[value] for value in allowed)}, lf.name
    assert kinds == {Custom, Template, Regex}


def test_the_device_labels_are_right_for_19_in_20_and_no_function_alone_is_enough(
    url: str, simulated: Campus
) -> None:
    ids = {name: place for place, (name, _) in enumerate(DEVICES.values)}
    types = dict(
        zip(*(column.to_pylist() for column in simulated.truth.device_types.columns), strict=True)
    )
    truth = np.array([ids[kind] for kind in types.values()])
    tables = {rule.name: rows_of(url, rule.sql) for rule in DEVICES.rules}
    votes = np.array(
        [
            [vote(lf, tables[lf.rule][mac], ids) for lf in DEVICES.labeling_functions]
            for mac in types
        ]
    )
    model = LabelModel(cardinality=3, verbose=False)
    model.fit(votes, n_epochs=200, lr=0.01, seed=42, progress_bar=False)
    labelled = (votes != -1).any(axis=1)
    right = model.predict_proba(votes).argmax(axis=1) == truth
    assert labelled.mean() > 0.9
    assert right[labelled].mean() >= 0.95
    assert all((column == truth).mean() < 0.95 for column in votes.T)


def test_code_carries_the_ids_that_the_values_were_given() -> None:
    lf = Custom("one", "places", ("PHONE",), "def labeling_function(row):\n    return PHONE")
    names: dict[str, Any] = {}
    exec(lf.code({"PHONE": 41, "LAPTOP": 40}), names)
    assert names["labeling_function"]({}) == 41
    assert names["ABSTAIN"] == -1
    assert "LAPTOP" not in names


def test_no_query_or_function_can_see_the_truth() -> None:
    for path in (Path(campus.__file__).parent).glob("*.py"):
        if path.name in ("devices.py", "visitors.py", "recipe.py"):
            assert "truth." not in path.read_text()
            assert "device_type " not in path.read_text()
