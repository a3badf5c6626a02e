"""A client whose API server takes server-side applies, and refuses to change what a P2PTask distributes."""

from modelswarm.api.meta import ApiModel, JsonObject
from modelswarm.controllers.world import World
from modelswarm.errors import Invalid
from modelswarm.kube.kinds import P2PTASK, Kind, kind_of
from modelswarm.kube.objects import key_of, metadata
from tests.unit.controllers.fake_kube import FakeKube, watch


class StrictKube(FakeKube):
    """What is applied replaces what was applied before; the status stays, and so does what metadata is not named."""

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        await self._enter("apply", key_of(obj).name)
        live = self.objects.get((kind_of(obj), key_of(obj)), {})
        if kind_of(obj) is P2PTASK and live:
            _refuse_other_content(obj, live)
        return self.put({**live, **obj, "metadata": {**(metadata(live) if live else {}), **metadata(obj)}})

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        await self._enter("apply_status", key_of(obj).name)
        return self.put({**self.objects[kind_of(obj), key_of(obj)], "status": obj["status"]})

    def only(self, kind: Kind) -> JsonObject:
        [found] = [obj for (each, _), obj in self.objects.items() if each is kind]
        return found

    def has_applied(self, name: str) -> int:
        return self.calls.count(("apply", name))


def of_kind(api_version: str, kind: str, found: ApiModel) -> JsonObject:
    return {"apiVersion": api_version, "kind": kind, **found.to_json()}


def see(given: World, *kinds: Kind) -> None:
    for kind in kinds:
        watch(given, kind)


def _refuse_other_content(obj: JsonObject, live: JsonObject) -> None:
    """The rules of P2PTask, as api/rules.py has them."""
    spec, before = obj["spec"], live["spec"]
    assert isinstance(spec, dict)
    assert isinstance(before, dict)
    if spec.get("model") != before.get("model"):
        raise Invalid("model is immutable: create another P2PTask", status=422)
    image, old = spec.get("image") or {}, before.get("image") or {}
    assert isinstance(image, dict)
    assert isinstance(old, dict)
    if any(image.get(field) != old.get(field) for field in ("reference", "platforms")):
        raise Invalid("image is immutable, but for its pullSecrets: create another P2PTask", status=422)
