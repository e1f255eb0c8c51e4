"""Snorkel jobs: launch one, do its work, show its result."""

from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from concepts.models import Concept, ConceptValue, Index, Rule
from labeling import result_pages
from labeling.functions import judge
from labeling.models import ABSTAIN, LabelingFunction, OutputType, SnorkelJob
from labeling.policy import CodeRefused
from labeling.result_pages import Choice, as_parquet, page, predictions
from tippers import storage
from tippers.errors import CannotBeDone, NotPossibleNow
from tippers.runs import engine
from tippers.runs.claims import LostLease
from tippers.runs.engine import RunHandle, Stopped

if TYPE_CHECKING:
    import pyarrow as pa

    from labeling.label_model import FunctionAnalysis, Ints, Labels
    from labeling.votes import Cast, LabelMatrix

SEED = 42


def launch(
    concept: Concept,
    *,
    index: Index,
    rules: Sequence[Rule],
    functions: Sequence[LabelingFunction],
    config: dict[str, Any],
    output_type: str,
    truth_rule: Rule | None,
    user: AbstractBaseUser | AnonymousUser | None,
) -> SnorkelJob:
    """Start a job. CannotBeDone names what is not ready: the index, a rule, a function.

    `truth_rule` knows the value of some entities; labels are compared with it and never made from
    it.
    """
    if not index.is_materialized:
        raise CannotBeDone(
            f"The index {index.name} is not materialized; materialize it first.",
            field="selectedIndex",
        )
    for rule in rules:
        _require_materialized(rule, "selectedRules")
    for lf in functions:
        _require_ready(lf)
        _require_materialized(lf.rule, "selectedLFs")
    _classes(functions)
    if truth_rule is not None:
        _truth_column(truth_rule)
    with transaction.atomic():
        job = SnorkelJob.objects.create(
            c=concept,
            index=index,
            rule_ids=[rule.r_id for rule in rules],
            lf_ids=[lf.lf_id for lf in functions],
            config=config,
            output_type=output_type,
            truth_rule=truth_rule,
        )
        job.run = engine.launch(
            "snorkel_training",
            key=f"snorkel_training:{job.job_id}",
            args={"job_id": job.job_id},
            created_by=user,
        )
        job.save(update_fields=["run"])
    return job


def train(job: SnorkelJob, run: RunHandle) -> None:
    """The work of a run: votes, label model, Parquet; current only once the run has finished."""
    from labeling.label_model import analyse, distinct_rows, label
    from labeling.votes import distinct_keys, label_matrix

    functions = _functions(job)
    classes = _classes(functions)
    inputs = job.inputs_now()
    keys = distinct_keys(job.index.table([job.index.key_column]), job.index.key_column)
    run.log(f"{len(keys)} entities, {len(functions)} labeling functions, {len(classes)} classes")
    truth = None if job.truth_rule is None else _truth(job.truth_rule, keys, run)
    layers = _sandbox_layers(functions, run)
    matrix = label_matrix(keys, [_definition(lf) for lf in functions], _rule_tables(functions), run)
    for cast in matrix.casts:
        if cast.faults:
            run.log(
                f"{cast.name} failed on {cast.faults} of {cast.rows} rows: {cast.first_fault}",
                "WARNING",
            )
    run.progress(len(functions), len(functions), "labeling functions", "training the label model")
    patterns = distinct_rows(matrix.votes, classes)
    labels = label(
        patterns,
        epochs=job.config["epochs"],
        lr=job.config["lr"],
        seed=job.config["seed"],
        sample_size=job.config["sample_size"],
    )
    for note in labels.notes:
        run.log(note, "WARNING")
    analysis = analyse(patterns, labels.weights, truth)
    table = _result_table(matrix, labels, job.output_type)
    key = f"snorkel_results/job_{job.job_id}/{run.token}.parquet"
    storage.put_bytes(key, as_parquet(table))
    try:
        with run.finishing():
            SnorkelJob.objects.filter(pk=job.pk).update(
                result_path=storage.uri(key),
                inputs=inputs,
                report={
                    **_report(table, matrix, labels, analysis, truth),
                    "sandbox_layers": layers,
                },
            )
            for lf, found in zip(functions, analysis, strict=True):
                # An edit made meanwhile is another function: these are not its numbers.
                LabelingFunction.objects.filter(pk=lf.pk, lf_config=lf.lf_config).update(
                    estimated_accuracy=found.learned_weight,
                    coverage=found.coverage,
                    conflicts=found.conflict_rows,
                )
    except (CannotBeDone, LostLease, Stopped):
        storage.delete(key)
        raise


def results(
    job: SnorkelJob, choice: Choice, *, skip: int, limit: int
) -> tuple[dict[str, Any], int]:
    """What the results endpoint answers, and how many predictions were chosen in all.

    At most `limit` of them are shown, from `skip`. CannotBeDone for a class that the job has not.
    """
    if not job.is_completed or job.result_path is None or job.report is None:
        return not_yet(job.job_id, job.status, job.error_message), 0
    report = job.report
    classes = report["class_cv_ids"]
    choice.check(classes)
    found = page(storage.key_of(job.result_path), choice, skip=skip, limit=limit)
    names = dict(zip(classes, report["class_names"], strict=True))
    answer = {
        "job_id": job.job_id,
        "status": job.status,
        "output_type": job.output_type,
        "result_path": job.result_path,
        "is_stale": job.is_stale,
        **report,
        "predictions": predictions(found.rows, names),
    }
    return answer, found.total


def download(job: SnorkelJob, file_format: str) -> "IO[bytes] | Generator[bytes]":
    """The whole result: the stored Parquet file, or its rows as CSV. NotPossibleNow without one."""
    if not job.is_completed or job.result_path is None:
        raise NotPossibleNow(str(not_yet(job.job_id, job.status, job.error_message)["message"]))
    key = storage.key_of(job.result_path)
    return result_pages.download(key, file_format)


def not_yet(job_id: int, status: str, error: str | None) -> dict[str, Any]:
    """The results endpoint's answer for a job without a result."""
    why = f"Job is {status}. Results not available yet."
    if status in {"FAILED", "CANCELLED"}:
        why = f"Job is {status}; it has no results." + (f" {error}" if error else "")
    return {"job_id": job_id, "status": status, "message": why}


def _require_materialized(rule: Rule, field: str) -> None:
    if not rule.is_materialized:
        raise CannotBeDone(
            f"The rule {rule.name} is not materialized; materialize it first.", field=field
        )


def _truth_column(rule: Rule) -> str:
    """The one column that says what an entity is: the rule has it beside its key and no other."""
    field = "truth_rule_id"
    _require_materialized(rule, field)
    there, key = rule.columns_of_product, rule.key_column
    others = [name for name in there if name != key]
    if key not in there:
        raise CannotBeDone(
            f"The rule {rule.name} has no column {key}; it has: {', '.join(there)}.", field=field
        )
    if len(others) != 1:
        raise CannotBeDone(
            f"A rule that tells the truth has one column beside {key}, with ids or names of "
            f"concept values; {rule.name} has: {', '.join(others) or 'none'}.",
            field=field,
        )
    return others[0]


def _truth(rule: Rule, keys: "pa.Array", run: RunHandle) -> "Ints":
    """What is known of the entities, as `known_values` has it; computed before any vote is cast."""
    from labeling.truth import known_values
    from labeling.votes import RuleTable

    column = _truth_column(rule)
    names = dict(ConceptValue.objects.filter(c_id=rule.c_id).values_list("cv_id", "name"))
    table = RuleTable(rule.name, rule.table([rule.key_column, column]), rule.key_column)
    known = known_values(keys, table, column, names)
    run.log(f"the truth is known of {int((known != ABSTAIN).sum())} of {len(keys)} entities")
    return known


def _require_ready(lf: LabelingFunction) -> None:
    if not lf.is_approved:
        raise CannotBeDone(f"{lf.name} is not approved.", field="selectedLFs")
    if not lf.is_active:
        raise CannotBeDone(f"{lf.name} is not active.", field="selectedLFs")


def _classes(functions: Sequence[LabelingFunction]) -> list[int]:
    """The classes in their order: every value that one of the functions may vote, by id."""
    classes = sorted({cv_id for lf in functions for cv_id in lf.applicable_cv_ids})
    if len(classes) < 2:
        raise CannotBeDone(
            "The labeling functions can vote for one concept value only; a label model needs at "
            "least two to choose from.",
            field="selectedLFs",
        )
    return classes


def _functions(job: SnorkelJob) -> list[LabelingFunction]:
    """The job's functions in its order, as they are now: still approved, active and acceptable."""
    there = LabelingFunction.objects.select_related("rule__index").prefetch_related("applicable")
    by_id = {lf.lf_id: lf for lf in there.filter(lf_id__in=job.lf_ids)}
    for lf_id in job.lf_ids:
        if lf_id not in by_id:
            raise CannotBeDone(f"The labeling function {lf_id} was deleted.")
        _require_ready(by_id[lf_id])
        _require_materialized(by_id[lf_id].rule, "selectedLFs")
    return [by_id[lf_id] for lf_id in job.lf_ids]


def _definition(lf: LabelingFunction) -> Any:
    """The function for voting. Its code is judged again: the policy may have become stricter."""
    from labeling.votes import Function

    try:
        columns = judge(lf.c, lf.lf_type, lf.lf_config)
    except CodeRefused as refused:
        raise CannotBeDone(f"{lf.name}: {refused.detail}") from refused
    return Function(
        lf.lf_id, lf.name, lf.lf_type, lf.lf_config, lf.applicable_cv_ids, lf.rule_id, columns
    )


def _sandbox_layers(functions: Sequence[LabelingFunction], run: RunHandle) -> list[str] | None:
    """What holds the users' code while this run lasts, logged; None if it runs none."""
    from labeling.sandbox.host import layers_here
    from labeling.sandbox.locks import LAYERS

    if not any(lf.runs_user_code for lf in functions):
        return None
    layers = layers_here()
    missing = [layer for layer in LAYERS if layer not in layers]
    said = f"labeling code is held by: {', '.join(layers)}"
    if missing:
        run.log(f"{said}; this machine does not offer: {', '.join(missing)}", "WARNING")
    else:
        run.log(said)
    return list(layers)


def _rule_tables(functions: Sequence[LabelingFunction]) -> dict[int, Any]:
    from labeling.votes import RuleTable

    rules = {lf.rule_id: lf.rule for lf in functions}
    return {
        r_id: RuleTable(rule.name, rule.table(), rule.key_column) for r_id, rule in rules.items()
    }


def _result_table(matrix: "LabelMatrix", labels: "Labels", output_type: str) -> "pa.Table":
    """sample_id, predicted_label (cv_id or -1), confidence, and prob_class_0... for softmax."""
    import numpy as np
    import pyarrow as pa

    confidence = labels.confidence
    if output_type == OutputType.HARD_LABELS:
        confidence = np.where(np.isnan(confidence), np.nan, 1.0)
    columns = {
        "sample_id": matrix.keys,
        "predicted_label": pa.array(labels.labels, pa.int64()),
        "confidence": pa.array(confidence, pa.float64(), from_pandas=True),
    }
    if output_type == OutputType.SOFTMAX:
        for number in range(len(labels.classes)):
            columns[f"prob_class_{number}"] = pa.array(
                labels.probabilities[:, number], pa.float64(), from_pandas=True
            )
    return pa.table(columns)


def _report(
    table: "pa.Table",
    matrix: "LabelMatrix",
    labels: "Labels",
    analysis: "Sequence[FunctionAnalysis]",
    truth: "Ints | None",
) -> dict[str, Any]:
    import numpy as np
    import pyarrow.compute as pc

    from labeling.label_model import accuracy

    names = dict(ConceptValue.objects.filter(cv_id__in=labels.classes).values_list("cv_id", "name"))
    labelled = int((labels.labels != -1).sum())
    average = pc.mean(table.column("confidence")).as_py()
    return {
        "class_cv_ids": labels.classes,
        "class_names": [names[cv_id] for cv_id in labels.classes],
        "summary": {
            "total_samples": table.num_rows,
            "labelled": labelled,
            "abstained": table.num_rows - labelled,
            "avg_confidence": average,
            "class_balance": {
                names[cv_id]: int(np.sum(labels.labels == cv_id)) / labelled if labelled else 0.0
                for cv_id in labels.classes
            },
            "truth_rows": None if truth is None else int((truth != ABSTAIN).sum()),
            "label_model_accuracy": None if truth is None else accuracy(labels, truth),
        },
        "lf_analysis": [
            _analysis(cast, found) for cast, found in zip(matrix.casts, analysis, strict=True)
        ],
        "notes": labels.notes,
    }


def _analysis(cast: "Cast", found: "FunctionAnalysis") -> dict[str, Any]:
    return {
        "lf_id": cast.lf_id,
        "name": cast.name,
        **asdict(found),
        "rows": cast.rows,
        "faults": cast.faults,
        "first_fault": cast.first_fault or None,
    }
