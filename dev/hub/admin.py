"""Control over HTTP, for a server that runs in another process. These requests are not counted and never fail."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from dev.hub.answers import JsonValue

if TYPE_CHECKING:
    from dev.hub.server import Hub


class _Move(BaseModel):
    """A branch to point at a commit; with `files`, at a new one that lays them over `revision`."""

    model_config = ConfigDict(extra="forbid")

    repository: str
    branch: str = "main"
    revision: str
    files: dict[str, str] | None = None
    message: str = "Update model"


class Admin:
    """`/_faults` (GET, POST, DELETE), `/_stats` (GET), `/_reset` (POST), `/_move` (POST), `/_links` (DELETE)."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    async def respond(self, request: web.BaseRequest) -> web.Response:
        try:
            value = await self._value(request)
        except (ValidationError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        except KeyError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.json_response(value)

    async def _value(self, request: web.BaseRequest) -> JsonValue:
        match request.method, request.path:
            case "GET", "/_faults":
                return {"faults": self._hub.faults.to_json()}
            case "POST", "/_faults":
                self._hub.faults.add_json(await request.read())
                return {"faults": self._hub.faults.to_json()}
            case "DELETE", "/_faults":
                self._hub.faults.clear()
                return {"faults": []}
            case "GET", "/_stats":
                return {**self._hub.counters.to_json(), "leaked_tokens": len(self._hub.leaked_tokens)}
            case "POST", "/_reset":
                self._hub.reset()
                return {}
            case "POST", "/_move":
                return self._move(_Move.model_validate_json(await request.read()))
            case "DELETE", "/_links":
                self._hub.revoke_links()
                return {}
            case "GET", "/_repositories":
                return self.repositories()
        raise KeyError(f"{request.method} {request.path}")

    def repositories(self) -> dict[str, JsonValue]:
        """Every repository with its branches."""
        return {id: dict(repository.branches) for id, repository in self._hub.repositories.items()}

    def _move(self, move: _Move) -> dict[str, JsonValue]:
        repository = self._hub.repositories[move.repository]
        commit = repository.get(move.revision).id
        if move.files is not None:
            content = {path: text.encode() for path, text in move.files.items()}
            commit = repository.commit(content, base=commit, message=move.message)
        repository.move(move.branch, commit)
        names: Sequence[str] = sorted(repository.branches)
        return {"repository": repository.id, "branch": move.branch, "commit": commit, "branches": names}
