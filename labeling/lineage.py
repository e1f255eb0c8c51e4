"""A concept's lineage to its end: from indexes by rules and functions to labels and classifiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import F

from concepts.catalog import catalog
from concepts.lineage import Lineage, Node, State, node_id, of_assets, state
from concepts.models import Concept, Feature, SqlAsset
from labeling.models import ClassifierJob, LabelingFunction, SnorkelJob, TrainingJob

FUNCTION, LABELS, CLASSIFIERS = KIND_NAMES = ("labeling_function", "snorkel_job", "classifier_job")
KINDS = ("index", "rule", "feature", *KIND_NAMES)


def of_concept(concept: Concept) -> Lineage:
    """The graph of everything the concept has, in a fixed number of queries."""
    assets = [asset for kind in catalog(concept).values() for asset in kind]
    functions = LabelingFunction.objects.filter(c=concept).select_related("rule")
    labels = SnorkelJob.objects.filter(c=concept).select_related("run", "index", "truth_rule")
    rows = F("report__summary__total_samples")
    classifiers = ClassifierJob.objects.filter(c=concept).select_related("run")
    return of_all(
        assets,
        functions.order_by("lf_id"),
        labels.defer("report").annotate(rows=rows).order_by("job_id"),
        classifiers.order_by("job_id"),
    )


def of_all(
    assets: Sequence[SqlAsset],
    functions: Iterable[LabelingFunction],
    label_jobs: Iterable[Any],
    classifier_jobs: Iterable[ClassifierJob],
) -> Lineage:
    """The graph of loaded rows. Functions come with their rule, label jobs with index, truth rule
    and `rows`.

    A function has no product: it is current while it is active, and otherwise missing. One that a
    newer version replaced is shown only where a job used it.
    """
    found = of_assets(assets)
    features = {asset.pk: asset for asset in assets if isinstance(asset, Feature)}
    by_id = {lf.lf_id: lf for lf in functions}
    jobs: dict[int, SnorkelJob] = {job.job_id: job for job in label_jobs}
    used = {lf_id for job in jobs.values() for lf_id in job.lf_ids}
    for lf in by_id.values():
        if lf.deprecated_at is None or lf.lf_id in used:
            standing = State.CURRENT if lf.is_active else State.MISSING
            node = Node(node_id(FUNCTION, lf.lf_id), FUNCTION, lf.name, standing)
            found.add(node, [node_id("rule", lf.rule_id)])

    reasons: dict[int, str | None] = {}
    for job in jobs.values():
        voters = [by_id[lf_id] for lf_id in job.lf_ids if lf_id in by_id]
        names = {"index": f"the index {job.index.name}"}
        names |= {f"rule {lf.rule_id}": f"the rule {lf.rule.name}" for lf in voters}
        names |= {f"labeling function {lf.lf_id}": f"the function {lf.name}" for lf in voters}
        if truth := job.truth_rule:
            names[f"rule {truth.r_id}"] = f"the rule {truth.name}"
        reasons[job.job_id] = why = _stale_reason(job, job.inputs_from(voters), names)
        above = [node_id(FUNCTION, lf.lf_id) for lf in voters]
        above += [node_id("rule", truth.r_id)] if truth else []
        rows = job.rows  # type: ignore[attr-defined]  # annotated by who loads the jobs
        found.add(
            _node(LABELS, f"Snorkel job {job.job_id}", job, why, rows),
            [node_id("index", job.index_id), *above],
        )

    for bank in classifier_jobs:
        bank.snorkel_job = jobs[bank.snorkel_job_id]
        learned = [features[pk] for pk in bank.feature_ids if pk in features]
        names = {"labels": f"the labels of Snorkel job {bank.snorkel_job_id}"}
        names |= {f"feature {feature.pk}": f"the feature {feature.name}" for feature in learned}
        why = _stale_reason(bank, bank.inputs_from(learned), names)
        if why is None and bank.inputs is not None and reasons[bank.snorkel_job_id]:
            why = f"Its labels, of Snorkel job {bank.snorkel_job_id}, are stale."
        found.add(
            _node(CLASSIFIERS, f"classifier job {bank.job_id}", bank, why),
            [
                node_id(LABELS, bank.snorkel_job_id),
                *(node_id("feature", feature.pk) for feature in learned),
            ],
        )
    return found


def _node(
    kind: str, name: str, job: TrainingJob, stale_reason: str | None, rows: int | None = None
) -> Node:
    return Node(
        id=node_id(kind, job.job_id),
        kind=kind,
        name=name,
        state=state(
            job.run,
            has_product=job.is_completed,
            is_stale=stale_reason is not None,
            is_of_now=True,  # a job's definition never changes
        ),
        stale_reason=stale_reason,
        run_id=job.run_id,
        row_count=rows,
        materialized_at=job.completed_at if job.is_completed else None,
    )


def _stale_reason(
    job: TrainingJob, now: dict[str, str | None], names: dict[str, str]
) -> str | None:
    """What the result was made from that is no longer so; `names` says it in words."""
    then = job.inputs
    if then is None or then == now:
        return None
    changed = [name for name in then | now if then.get(name) != now.get(name)]
    return f"Since it ran, {' and '.join(names.get(name, name) for name in changed)} changed."
