"""The concept pipeline over HTTP: from a connection to ranked classifiers."""

from dataclasses import dataclass
from typing import Any

from tippers.demo.client import Api, DemoFailed
from tippers.demo.screen import Screen
from tippers.sample.recipe import Custom, Query, Recipe, Regex, Template

CONNECTION = "tippers"


@dataclass(frozen=True)
class Labelled:
    """What the pipeline found. `names` maps concept value ids to names.

    `predictions`: the label model's label by device. `classified`: what the best classifier says of
    each device, as the API has it; none if it could not say.
    """

    c_id: int
    devices: int
    names: dict[int, str]
    snorkel: dict[str, Any]
    functions: list[dict[str, Any]]
    predictions: dict[str, str]
    classifiers: dict[str, Any]
    classified: list[dict[str, Any]]


def run(api: Api, recipe: Recipe, screen: Screen) -> Labelled:
    """Build the recipe's concept and carry it to its classifiers."""
    connection = _connection(api)
    concept = api.post("/concepts", {"name": recipe.concept, "description": recipe.description})
    base = f"/concepts/{concept['c_id']}"
    ids = {
        name: api.post(
            f"{base}/values", {"name": name, "description": words, "display_order": order}
        )["cv_id"]
        for order, (name, words) in enumerate(recipe.values, start=1)
    }

    screen.step(f"Concept {recipe.concept}: index, rules and features")
    index = api.post(
        f"{base}/indexes",
        {"name": recipe.index.name, "conn_id": connection, "sql_query": recipe.index.sql},
    )
    index_id = index["index_id"]
    started = api.post(f"{base}/indexes/{index_id}/materialize")
    screen.follow(api, {f"index {recipe.index.name}": started["dagster_run_id"]})
    rules = {
        rule.name: _create(api, f"{base}/rules", rule, index_id)["r_id"] for rule in recipe.rules
    }
    features = {
        feature.name: _create(api, f"{base}/features", feature, index_id)["feature_id"]
        for feature in recipe.features
    }
    runs = {f"rule {name}": f"{base}/rules/{r_id}" for name, r_id in rules.items()}
    runs |= {f"feature {name}": f"{base}/features/{f_id}" for name, f_id in features.items()}
    screen.follow(
        api,
        {label: api.post(f"{path}/materialize")["dagster_run_id"] for label, path in runs.items()},
    )

    screen.step(f"{len(recipe.labeling_functions)} labeling functions vote, Snorkel weighs them")
    functions = [_function(api, base, lf, rules, ids) for lf in recipe.labeling_functions]
    for function in functions:
        if function["requires_approval"]:
            seen = {"code_sha256": function["code_sha256"]}
            api.post(f"{base}/labeling-functions/{function['lf_id']}/approve", seen)
    job = api.post(
        f"{base}/snorkel/run",
        {
            "selectedIndex": index_id,
            "selectedRules": list(rules.values()),
            "selectedLFs": [function["lf_id"] for function in functions],
            "snorkel": {"epochs": 200, "lr": 0.01, "output_type": "softmax", **recipe.snorkel},
        },
    )
    screen.follow(api, {"label model": job["dagster_run_id"]})
    results = f"{base}/snorkel/jobs/{job['job_id']}/results"

    screen.step("Classifiers learn from the labels")
    trained = api.post(
        f"{base}/classifiers/run",
        {
            "snorkel_job_id": job["job_id"],
            "feature_ids": list(features.values()),
            "config": {"threshold_value": 0.7, "random_state": 42, **recipe.classifiers},
        },
    )
    screen.follow(api, {"classifier bank": trained["dagster_run_id"]})
    bank = f"{base}/classifiers/jobs/{trained['job_id']}"
    return Labelled(
        c_id=concept["c_id"],
        devices=api.get(f"{base}/indexes/{index_id}")["row_count"],
        names={cv_id: name for name, cv_id in ids.items()},
        snorkel=api.get(results, limit=1),
        functions=functions,
        predictions={
            row["sample_id"]: row["predicted_name"]
            for row in api.pages(results, rows="predictions")
            if row["predicted_class"] != -1
        },
        classifiers=api.get(f"{bank}/results"),
        classified=_classified(api, f"{bank}/predictions"),
    )


def _classified(api: Api, path: str) -> list[dict[str, Any]]:
    there = "predictions" in api.get(path, limit=1)
    return list(api.pages(path, rows="predictions")) if there else []


def _connection(api: Api) -> int:
    for connection in api.pages("/database-connections"):
        if connection["name"] == CONNECTION:
            tested = api.post(f"/database-connections/{connection['conn_id']}/test")
            if tested["status"] != "success":
                raise DemoFailed(f"The connection {CONNECTION} does not work: {tested['message']}")
            return int(connection["conn_id"])
    raise DemoFailed(
        f"There is no connection named {CONNECTION}: create one to the database that "
        "TIPPERS_DB_URL names (POST /database-connections), then run the demo again"
    )


def forget(api: Api, name: str) -> None:
    """An earlier demo's concept goes, with all that hangs on it."""
    for concept in list(api.pages("/concepts")):
        if concept["name"] == name:
            api.delete(f"/concepts/{concept['c_id']}")


def _create(api: Api, path: str, query: Query, index_id: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": query.name,
        "index_id": index_id,
        "sql_query": query.sql.strip(),
        "index_column": "mac_address",
    }
    if query.columns:
        body |= {"columns": list(query.columns), "description": query.description, "level": 1}
    created: dict[str, Any] = api.post(path, body)
    return created


def _function(
    api: Api,
    base: str,
    lf: Custom | Template | Regex,
    rules: dict[str, int],
    ids: dict[str, int],
) -> dict[str, Any]:
    body: dict[str, Any] = {"name": lf.name, "rule_id": rules[lf.rule]}
    path = f"{base}/labeling-functions"
    if isinstance(lf, Custom):
        body |= {"applicable_cv_ids": [ids[value] for value in lf.values], "code": lf.code(ids)}
    elif isinstance(lf, Template):
        path += "/template"
        body |= {"field": lf.field, "operator": lf.operator, "value": lf.value}
        body["label"] = ids[lf.label]
    else:
        path += "/regex"
        body |= {"field": lf.field, "pattern": lf.pattern, "label": ids[lf.label]}
    created: dict[str, Any] = api.post(path, body)
    return created
