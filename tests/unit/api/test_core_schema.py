"""The schemas of Kubernetes' own types: complete, and cut down to what a CRD may carry."""

import json
import re

import pytest

from dev.core_schema import OUTPUT, embedded_types, extract, first_sentence
from modelswarm.api.meta import JsonObject


def test_every_embedded_type_is_there_with_all_that_it_refers_to() -> None:
    definitions: dict[str, JsonObject] = json.loads(OUTPUT.read_text())
    references = re.findall(r'"\$ref": "([^"]+)"', json.dumps(definitions))
    assert set(embedded_types()) <= set(definitions)
    assert set(references) <= set(definitions)
    assert set(definitions) == set(references) | set(embedded_types())


def test_extraction_follows_references_and_drops_what_is_not_structural() -> None:
    definitions: dict[str, JsonObject] = {
        "Probe": {
            "type": "object",
            "description": "First. Second.",
            "x-kubernetes-group-version-kind": [],
            "properties": {"ports": {"type": "array", "items": {"$ref": "#/definitions/Port"}}},
        },
        "Port": {"type": "integer", "x-kubernetes-patch-strategy": "merge"},
        "Other": {"type": "string"},
    }
    assert extract(definitions, ["Probe"]) == {
        "Port": {"type": "integer"},
        "Probe": {
            "type": "object",
            "description": "First.",
            "properties": {"ports": {"type": "array", "items": {"$ref": "Port"}}},
        },
    }


def test_amounts_may_be_numbers_or_strings_of_their_pattern() -> None:
    name = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    (schema,) = extract({name: {"type": "string"}}, [name]).values()
    pattern = str(schema.pop("pattern"))
    assert schema == {"x-kubernetes-int-or-string": True}
    for text in ("1", "0.5", "100m", "16Gi", "1e3", "-2"):
        assert re.search(pattern, text)
    for text in ("", "Gi", "1 Gi", "one", "1GiB"):
        assert not re.search(pattern, text)


SENTENCES = [
    ("One. Two.", "One."),
    ("No stop", "No stop"),
    ("Up to v1.2 of it. Two.", "Up to v1.2 of it."),
    ("Shares, i.e. Parts of it. Two.", "Shares, i.e. Parts of it."),
    ("One\n\nTwo. Three.", "One"),
]


@pytest.mark.parametrize(("text", "sentence"), SENTENCES)
def test_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence
