"""Admission rules in CEL: what the API server checks beyond types, with the message that the user reads.

Where llmaz's webhooks have the rule, the first words of the message are theirs. Rules that are ours alone are marked
as such. What CEL cannot see (other objects, owners, the world outside) the controllers report as conditions:
docs/reference/api-bounds.md has the whole list.
"""

from dataclasses import dataclass
from typing import Literal

Reason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of ``x-kubernetes-validations``. ``path`` is the field that the error names, relative to the rule's."""

    rule: str
    message: str
    path: str | None = None
    reason: Reason = "FieldValueInvalid"


NAME_IS_LABEL = Rule(
    rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    message="metadata.name must be a DNS-1123 label: at most 63 lower case letters, digits and '-', no dots",
    path=".metadata.name",
)
"""On kinds whose name becomes the value of a label."""

NAME_FITS_LABEL = Rule(
    rule="self.metadata.name.size() <= 63",
    message="metadata.name must have at most 63 characters: it becomes the value of a label",
    path=".metadata.name",
)
"""Ours, for P2PTask."""

FAMILY_NAME = (
    # llmaz's webhook puts the family name on a label, and the API server then refuses one that does not fit.
    Rule(
        rule="self.size() <= 63 && self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
        message="familyName must be the value of a label: at most 63 letters, digits, '-', '_' and '.'",
    ),
)

SOURCE = (
    Rule(
        rule="has(self.modelHub) || has(self.uri)",
        message="Source can't be all null: set modelHub or uri",
        reason="FieldValueForbidden",
    ),
)

URI = (
    Rule(
        rule="self.split('://').size() == 2",
        message="URI with wrong format: write PROTOCOL://ADDRESS",
    ),
    Rule(
        rule=(
            "self.split('://').size() != 2"
            " || self.split('://')[0].upperAscii() in ['GCS', 'OSS', 'S3', 'OLLAMA', 'HOST']"
        ),
        message="URI with unsupported protocol: use oss, s3, gcs, ollama or host",
    ),
    Rule(
        rule="!self.matches('^[oO][sS][sS]://') || self.matches('^...://[^/.]+[.][^/]+/.+$')",
        message="URI with wrong address: write oss://BUCKET.ENDPOINT/PATH",
    ),
    Rule(
        rule="!self.matches('^([sS]3|[gG][cC][sS])://') || self.matches('^[^:]+://[^/]+/.+$')",
        message="URI with wrong address: write s3://BUCKET/PATH or gcs://BUCKET/PATH",
    ),
    Rule(
        rule="!self.matches('^([oO][lL][lL][aA][mM][aA]|[hH][oO][sS][tT])://$')",
        message="URI with wrong address: write ollama://MODEL or host:///PATH",
    ),
)

MODEL_HUB = (
    # Ours: llmaz accepts an empty modelHub and then waits for ever.
    Rule(
        rule="has(self.modelID) && self.modelID != ''",
        message="modelID is required when modelHub is set",
        path=".modelID",
        reason="FieldValueRequired",
    ),
    Rule(
        rule="!has(self.filename) || self.name == 'Huggingface'",
        message="Filename can only set once modelHub is Huggingface",
        path=".filename",
    ),
    Rule(
        rule="!has(self.filename) || !has(self.allowPatterns)",
        message="filename and allowPatterns can't be set at once",
        path=".filename",
    ),
    Rule(
        rule="!has(self.filename) || !has(self.ignorePatterns)",
        message="filename and ignorePatterns can't be set at once",
        path=".filename",
    ),
)

CLAIM = (
    Rule(
        rule="has(self.modelClaim) || has(self.modelClaims)",
        message="modelClaim and modelClaims couldn't be both nil",
        reason="FieldValueForbidden",
    ),
    Rule(
        rule="!(has(self.modelClaim) && has(self.modelClaims))",
        message="modelClaim and modelClaims couldn't be both not nil: use modelClaims for several models",
        reason="FieldValueForbidden",
    ),
)

MODEL_NAME = (
    # Ours: llmaz waits for ever for a model without a name.
    Rule(
        rule="has(self.modelName) && self.modelName != ''",
        message="modelName is required when modelClaim is set",
        path=".modelName",
        reason="FieldValueRequired",
    ),
)

MODEL_CLAIMS = (
    # Ours: llmaz's controller panics.
    Rule(
        rule="has(self.models) && self.models.size() > 0",
        message="modelClaims must name at least one model",
        path=".models",
        reason="FieldValueRequired",
    ),
    Rule(
        rule="!has(self.models) || !self.models.exists(m, m.role == 'draft') || self.models.size() == 2",
        message="only two models are allowed in speculativeDecoding mode: one main and one draft",
        path=".models",
        reason="FieldValueForbidden",
    ),
    # llmaz has this rule but it never fires: it counts models that are called "main".
    Rule(
        rule="!has(self.models) || self.models.filter(m, m.role == 'main').size() <= 1",
        message="only one main model is allowed",
        path=".models",
        reason="FieldValueForbidden",
    ),
    Rule(
        rule="!has(self.models) || self.models.size() == 0 || self.models.exists(m, m.role == 'main')",
        message="main model is required",
        path=".models",
        reason="FieldValueForbidden",
    ),
)

RESOURCES = (
    Rule(
        rule=(
            "!has(self.limits) || !has(self.requests) || self.requests.all(k, !(k in self.limits)"
            " || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)"
        ),
        message="limits must be greater than or equal to requests",
        reason="FieldValueForbidden",
    ),
)

ELASTIC = (
    Rule(
        rule="self.minReplicas >= 1",
        message="minReplicas couldn't be 0: at least 1",
        path=".minReplicas",
        reason="FieldValueForbidden",
    ),
    Rule(
        rule="self.minReplicas < self.maxReplicas",
        message="minReplicas must be less than maxReplicas",
        path=".minReplicas",
    ),
    Rule(
        rule="!has(self.scaleTrigger) || has(self.scaleTrigger.hpa)",
        message="hpa couldn't be nil when scaleTrigger is set",
        path=".scaleTrigger",
        reason="FieldValueForbidden",
    ),
)

TASK = (
    Rule(
        rule="has(self.model) != has(self.image)",
        message="set exactly one of model and image",
    ),
    Rule(
        rule=("has(self.model) == has(oldSelf.model) && (!has(self.model) || self.model == oldSelf.model)"),
        message="model is immutable: create another P2PTask",
        path=".model",
        reason="FieldValueForbidden",
    ),
    Rule(
        # Pull secrets may change: they say how to ask for the image, not which one.
        rule=(
            "has(self.image) == has(oldSelf.image) && (!has(self.image)"
            " || self.image.reference == oldSelf.image.reference"
            " && has(self.image.platforms) == has(oldSelf.image.platforms)"
            " && (!has(self.image.platforms) || self.image.platforms == oldSelf.image.platforms))"
        ),
        message="image is immutable, but for its pullSecrets: create another P2PTask",
        path=".image",
        reason="FieldValueForbidden",
    ),
)

COPIES = (
    Rule(
        rule="type(self) == int ? int(self) >= 1 : string(self) == 'All'",
        message="copies must be a number of nodes (1 or more) or All",
    ),
)

PLACEMENT = (
    Rule(
        rule="type(self.copies) != int || self.minReady <= int(self.copies)",
        message="minReady must not be greater than copies",
        path=".minReady",
    ),
)
