"""Views as JSON and YAML: field names as in the API (camelCase), numbers as numbers, times in UTC."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime

import yaml
from pydantic import BaseModel, JsonValue
from pydantic.alias_generators import to_camel

from modelswarm.api.meta import format_time


def document(value: object) -> JsonValue:
    """A view (a dataclass, or lists and mappings of such) as plain data."""
    if isinstance(value, BaseModel):
        found: JsonValue = value.model_dump(mode="json", by_alias=True)
        return found
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {to_camel(each.name): document(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): document(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [document(each) for each in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, datetime):
        return format_time(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


def to_json(value: object) -> str:
    return json.dumps(document(value), indent=2, ensure_ascii=False) + "\n"


def to_line(value: object) -> str:
    """One line of JSON: for streams."""
    return json.dumps(document(value), ensure_ascii=False, separators=(",", ":")) + "\n"


def to_yaml(value: object) -> str:
    return yaml.safe_dump(document(value), sort_keys=False, allow_unicode=True, width=1000)
