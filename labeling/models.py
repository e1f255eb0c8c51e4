"""Labeling functions, and the jobs that turn their votes into labels and ranked classifiers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from concepts.models import Concept, ConceptValue, Feature, Index, Rule
from tippers.errors import CannotBeDone, NotPossibleNow
from tippers.runs.models import ACTIVE, Run, RunStatus

ABSTAIN = -1
NOT_APPROVED: dict[str, Any] = {
    "is_active": False,
    "requires_approval": True,
    "approved_sha256": None,
    "approved_by_id": None,
    "approved_at": None,
    "approval_trial": None,
}
NOT_REJECTED: dict[str, Any] = {
    "rejected_by_id": None,
    "rejected_at": None,
    "rejection_reason": None,
}


class OwnCode(CannotBeDone):
    """Nobody approves what they wrote themselves (HTTP 403)."""

    status = 403
    code = "own_code"


class LFType(models.TextChoices):
    """Template and regex functions are data; only custom ones run user code."""

    CUSTOM = "custom"
    TEMPLATE = "template"
    REGEX = "regex"


class LabelingFunction(models.Model):
    """A vote on concept values, cast on the rows of one rule.

    A custom function's states; "approved" means that `approved_sha256` is its code's hash:

        created, or its lf_config edited -> inactive, requires approval
        approved by another person       -> active
        rejected, approved or not        -> inactive, requires approval, says why; it may be
                                            approved later, and an edit clears the rejection
        toggled                          -> inactive or active, still approved
        replaced by a new version        -> deprecated and inactive, for good

    Template and regex functions run no user code: they start active and need no approval.
    """

    lf_id = models.BigAutoField(primary_key=True)
    c = models.ForeignKey(Concept, on_delete=models.CASCADE, related_name="labeling_functions")
    rule = models.ForeignKey(Rule, on_delete=models.RESTRICT, related_name="labeling_functions")
    cv = models.ForeignKey(
        ConceptValue, null=True, blank=True, on_delete=models.RESTRICT, related_name="+"
    )
    applicable = models.ManyToManyField(
        ConceptValue, through="ApplicableValue", related_name="labeling_functions"
    )
    name = models.CharField(max_length=255)
    lf_type = models.CharField(max_length=50, choices=LFType.choices, default=LFType.CUSTOM)
    lf_config: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField()
    is_active = models.BooleanField(default=False)
    requires_approval = models.BooleanField(default=True)
    approved_sha256 = models.CharField(max_length=64, null=True, editable=False)
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    approved_at = models.DateTimeField(null=True, editable=False)
    # What running it before the approval showed, or why it could not be run.
    approval_trial = models.TextField(null=True, editable=False)
    rejected_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    rejected_at = models.DateTimeField(null=True, editable=False)
    rejection_reason = models.TextField(null=True, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    # Who wrote the code as it stands: an editor may not approve what they made of another's code.
    edited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    edited_at = models.DateTimeField(default=timezone.now, editable=False)

    version = models.PositiveIntegerField(default=1)
    parent_lf = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.RESTRICT, related_name="child"
    )
    deprecated_at = models.DateTimeField(null=True, editable=False)
    deprecated_by_lf = models.ForeignKey(
        "self", null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )

    # Written by the last finished Snorkel job that used it; cleared by an edit.
    estimated_accuracy = models.FloatField(null=True, editable=False)
    coverage = models.FloatField(null=True, editable=False)
    conflicts = models.BigIntegerField(null=True, editable=False)

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "labeling_functions"
        ordering = ["lf_id"]
        verbose_name = "labeling function"
        permissions = [("approve_labelingfunction", "Can approve labeling functions")]
        constraints = [models.UniqueConstraint(fields=["c", "name"], name="unique_lf_name")]
        indexes = [models.Index(fields=["is_active"], name="idx_lf_active")]

    def __str__(self) -> str:
        return self.name

    @property
    def applicable_cv_ids(self) -> list[int]:
        """The ids of the values it may vote, ascending. Prefetch `applicable` for lists."""
        return sorted(value.cv_id for value in self.applicable.all())

    @property
    def runs_user_code(self) -> bool:
        """Whether its votes come from code that somebody wrote."""
        return self.lf_type == LFType.CUSTOM

    @property
    def code(self) -> str:
        """A custom function's source; empty for the others."""
        return str(self.lf_config.get("code", ""))

    @property
    def code_sha256(self) -> str:
        """What an approval is bound to (hex)."""
        return hashlib.sha256(self.code.encode()).hexdigest()

    @property
    def config_sha256(self) -> str:
        """What a result depends on (hex); the order of the config's keys does not matter."""
        return hashlib.sha256(json.dumps(self.lf_config, sort_keys=True).encode()).hexdigest()

    @property
    def is_approved(self) -> bool:
        """Nobody needs to approve it, or somebody approved exactly this code."""
        return not self.runs_user_code or self.approved_sha256 == self.code_sha256

    # Mutators: conditional updates, so that none undoes another's.

    def check_approval(
        self, user: AbstractBaseUser | AnonymousUser, *, code_sha256: str | None
    ) -> None:
        """Whether `user` may approve this code, before it is run for that.

        `code_sha256` names the code that the reviewer has read; it may be None where four eyes are
        not asked for, which means the code as `self` holds it. OwnCode for its author while four
        eyes are asked for; NotPossibleNow when it is approved or deprecated, or when the code is
        another by now.
        """
        self._check_current()
        if self.is_approved and not self.requires_approval:
            raise NotPossibleNow(f"{self.name} needs no approval; toggle it to activate it.")
        if settings.FOUR_EYES and user.pk in {self.created_by_id, self.edited_by_id}:
            raise OwnCode("Somebody other than its author must approve the code.")
        if settings.FOUR_EYES and code_sha256 is None:
            raise CannotBeDone(
                "Say which code you approve: the code_sha256 that the function showed.",
                field="code_sha256",
            )
        if code_sha256 is not None:
            self._check_seen(code_sha256)

    def approve(self, user: AbstractBaseUser | AnonymousUser, *, trial: str) -> None:
        """Bind the approval to the code as `self` holds it, and activate the function.

        `trial` says what running it showed. Call `check_approval` first.
        """
        self._update(
            {
                "lf_config": self.lf_config,
                "deprecated_at": None,
                "approved_sha256": self.approved_sha256,
                "rejected_at": self.rejected_at,
            },
            **NOT_REJECTED,
            is_active=True,
            requires_approval=False,
            approved_sha256=self.code_sha256,
            approved_by_id=user.pk,
            approved_at=timezone.now(),
            approval_trial=trial,
        )

    def reject(
        self, user: AbstractBaseUser | AnonymousUser, *, reason: str, code_sha256: str
    ) -> None:
        """Switch the code that the reviewer has read off and say why; an approval goes with it."""
        self._check_current()
        if not self.runs_user_code:
            raise NotPossibleNow(f"{self.name} runs no code; toggle it to switch it off.")
        self._check_seen(code_sha256)
        self._update(
            {"lf_config": self.lf_config, "deprecated_at": None},
            **NOT_APPROVED,
            rejected_at=timezone.now(),
            rejected_by_id=user.pk,
            rejection_reason=reason,
        )

    def _check_current(self) -> None:
        if self.deprecated_at is not None:
            raise NotPossibleNow(f"{self.name} is deprecated: a newer version replaced it.")

    def _check_seen(self, code_sha256: str) -> None:
        if code_sha256 != self.code_sha256:
            raise NotPossibleNow(
                f"The code of {self.name} is not the one you saw; look at it again."
            )

    def set_active(self, active: bool) -> None:
        """Switch it on or off; NotPossibleNow to switch on what is unapproved or deprecated."""
        if active:
            self._check_current()
        if active and not self.is_approved:
            raise NotPossibleNow(f"{self.name} must be approved before it can be active.")
        unchanged = {
            "approved_sha256": self.approved_sha256,
            "lf_config": self.lf_config,
            "deprecated_at": None,
        }
        self._update(unchanged if active else {}, is_active=active)

    def edit(
        self, config: dict[str, Any], *, applicable: Iterable[ConceptValue], user: Any
    ) -> None:
        """Put another lf_config in place; what was known of the old one goes with it."""
        self._check_current()
        if config == self.lf_config:
            return
        judgement = NOT_APPROVED | NOT_REJECTED if self.runs_user_code else {}
        with transaction.atomic():
            self._update(
                {"deprecated_at": None},
                lf_config=config,
                edited_by_id=getattr(user, "pk", None),
                edited_at=timezone.now(),
                estimated_accuracy=None,
                coverage=None,
                conflicts=None,
                **judgement,
            )
            self.set_applicable(applicable)

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._update({}, name=name)

    def set_applicable(self, values: Iterable[ConceptValue]) -> None:
        """Say what it may vote."""
        self.applicable.set(values)
        getattr(self, "_prefetched_objects_cache", {}).pop("applicable", None)

    def _update(self, unless_changed: dict[str, Any], /, **fields: Any) -> None:
        """One UPDATE of `fields`, refused when what the decision rests on is no longer so."""
        rows = LabelingFunction.objects.filter(
            pk=self.pk,
            **{
                (f"{name}__isnull" if value is None else name): (True if value is None else value)
                for name, value in unless_changed.items()
            },
        )
        if not rows.update(updated_at=timezone.now(), **fields):
            raise NotPossibleNow(f"{self.name} was changed by somebody else; look at it again.")
        self.refresh_from_db()


class ApplicableValue(models.Model):
    """A value that a function may vote; a value in use cannot be deleted."""

    lf = models.ForeignKey(LabelingFunction, on_delete=models.CASCADE, related_name="+")
    value = models.ForeignKey(ConceptValue, on_delete=models.RESTRICT, related_name="+")

    class Meta:
        db_table = "labeling_function_values"
        verbose_name = "vote of labeling function"
        constraints = [models.UniqueConstraint(fields=["lf", "value"], name="unique_lf_value")]

    def __str__(self) -> str:
        return str(self.lf)


class TrainingJob(models.Model):
    """What a launch of training asked for, and its result; its status is its run's."""

    job_id = models.BigAutoField(primary_key=True)
    c = models.ForeignKey(Concept, on_delete=models.CASCADE, related_name="+")
    config: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField(default=dict)
    # Null only inside the transaction that launches: the run's arguments hold the job's id.
    run = models.ForeignKey(
        Run, null=True, on_delete=models.RESTRICT, related_name="+", db_column="dagster_run_id"
    )
    result_path = models.CharField(max_length=500, null=True)
    # Hashes of what the result was made from, by name of input.
    inputs: models.JSONField[dict[str, Any] | None, dict[str, Any] | None] = models.JSONField(
        null=True
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        abstract = True
        ordering = ["-created_at", "-job_id"]

    def __str__(self) -> str:
        return str(self.job_id)

    @property
    def status(self) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED or CANCELLED."""
        return self.run.domain_status if self.run else "PENDING"

    @property
    def error_message(self) -> str | None:
        """Why the run failed."""
        return self.run.error_message if self.run else None

    @property
    def completed_at(self) -> datetime | None:
        """When the run ended, however it did."""
        return self.run.ended_at if self.run else None

    @property
    def is_active(self) -> bool:
        """Whether the run waits or works."""
        return self.run is None or self.run.status in ACTIVE

    @property
    def is_completed(self) -> bool:
        """Whether there is a result."""
        return self.run is not None and self.run.status == RunStatus.SUCCESS

    def stored_objects(self) -> list[str]:
        """The URIs of what it has in storage, which goes when it is deleted."""
        return [] if self.result_path is None else [self.result_path]


class OutputType(models.TextChoices):
    """Probabilities of every class, or the most probable class alone."""

    SOFTMAX = "softmax"
    HARD_LABELS = "hard_labels"


class SnorkelJob(TrainingJob):
    """Votes of the chosen functions on an index, combined by the label model."""

    index = models.ForeignKey(Index, on_delete=models.RESTRICT, related_name="snorkel_jobs")
    rule_ids = ArrayField(models.BigIntegerField(), default=list)
    lf_ids = ArrayField(models.BigIntegerField())
    output_type = models.CharField(
        max_length=50, choices=OutputType.choices, default=OutputType.SOFTMAX
    )
    # Knows the value of some entities: labels are compared with it and never made from it.
    truth_rule = models.ForeignKey(Rule, null=True, on_delete=models.RESTRICT, related_name="+")
    # class_cv_ids, summary, lf_analysis, notes: what the results show beside the predictions.
    report: models.JSONField[dict[str, Any] | None, dict[str, Any] | None] = models.JSONField(
        null=True
    )

    class Meta(TrainingJob.Meta):
        db_table = "snorkel_jobs"
        verbose_name = "Snorkel job"

    def inputs_now(self) -> dict[str, str | None]:
        """What a result computed now would be made from."""
        functions = LabelingFunction.objects.filter(lf_id__in=self.lf_ids)
        return self.inputs_from(functions.select_related("rule"))

    def inputs_from(self, functions: Iterable[LabelingFunction]) -> dict[str, str | None]:
        """The same from its functions as they were loaded, each with its rule."""
        now: dict[str, str | None] = {"index": self.index.identity()}
        for lf in functions:
            now[f"labeling function {lf.lf_id}"] = lf.config_sha256
            now[f"rule {lf.rule_id}"] = lf.rule.content_sha256
        if self.truth_rule is not None:
            now[f"rule {self.truth_rule.r_id}"] = self.truth_rule.content_sha256
        return now

    @property
    def is_stale(self) -> bool:
        """The index, a rule or a labeling function is not what it was."""
        return self.inputs is not None and self.inputs != self.inputs_now()


class ClassifierJob(TrainingJob):
    """A bank of classifiers trained on a Snorkel job's labels and some features."""

    snorkel_job = models.ForeignKey(
        SnorkelJob, on_delete=models.RESTRICT, related_name="classifier_jobs"
    )
    feature_ids = ArrayField(models.BigIntegerField())
    # What the best model says of every entity; null also when it could not say.
    predictions_path = models.CharField(max_length=500, null=True)

    class Meta(TrainingJob.Meta):
        db_table = "classifier_jobs"
        verbose_name = "classifier job"

    def inputs_now(self) -> dict[str, str | None]:
        """What a result computed now would be made from."""
        return self.inputs_from(Feature.objects.filter(feature_id__in=self.feature_ids))

    def inputs_from(self, features: Iterable[Feature]) -> dict[str, str | None]:
        """The same from its features as they were loaded."""
        now = {"labels": self.snorkel_job.result_path}
        for feature in features:
            now[f"feature {feature.feature_id}"] = feature.content_sha256
        return now

    @property
    def is_stale(self) -> bool:
        """The labels or a feature have other content now, or the labels are stale themselves."""
        if self.inputs is None:
            return False
        return self.inputs != self.inputs_now() or self.snorkel_job.is_stale

    def stored_objects(self) -> list[str]:
        return [
            *super().stored_objects(),
            *([] if self.predictions_path is None else [self.predictions_path]),
            *self.models.values_list("storage_path", flat=True),
        ]


class Model(models.Model):
    """A fitted classifier in storage, and what is needed to ask it for labels later.

    `features`: the columns that it takes, in order, as `labeling.classifiers.Column` has them.
    `classes`: what its answers 0, 1, ... stand for. `versions`: of the libraries it was fitted with.
    """

    model_id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(ClassifierJob, on_delete=models.CASCADE, related_name="models")
    rank = models.PositiveIntegerField()
    name = models.CharField(max_length=255)
    storage_path = models.CharField(max_length=500)
    byte_size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    # Binds the object's content and place to SECRET_KEY: only what we stored is ever unpickled.
    signature = models.CharField(max_length=64)
    features: models.JSONField[list[dict[str, Any]], list[dict[str, Any]]] = models.JSONField()
    classes: models.JSONField[list[dict[str, Any]], list[dict[str, Any]]] = models.JSONField()
    versions: models.JSONField[dict[str, str], dict[str, str]] = models.JSONField()
    scores: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "models"
        ordering = ["job_id", "rank"]
        constraints = [models.UniqueConstraint(fields=["job", "rank"], name="unique_model_rank")]

    def __str__(self) -> str:
        return self.name
