"""The object store leg: ranges of objects through obstore, each bound to the version that was listed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from obstore import exceptions, get_async
from obstore.store import ObjectStore as Store

from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import ContentReason, LoadError
from modelswarm.loader.leg import Stream
from modelswarm.loader.outcome import Reason, Transient

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions

_CHUNK = 1 << 20


class ObjectStore:
    """``key_of`` gives a file's key in the bucket; ``stall`` is how long (seconds) to wait for the next byte."""

    name = "origin"
    splittable = True

    def __init__(self, store: Store, key_of: Callable[[str], str], bucket: str, secret: str, *, stall: float) -> None:
        self._store = store
        self._key_of = key_of
        self._bucket = bucket
        self._secret = secret
        self._stall = stall

    def serves(self, file: ManifestFile) -> bool:
        return True

    async def fetch(self, file: ManifestFile, sink: Stream, start: int, end: int) -> None:
        with self._reasons(file):
            async with asyncio.timeout(self._stall):
                options: GetOptions = {"range": (start, end)}
                if file.version:
                    options["if_match"] = file.version
                result = await get_async(self._store, self._key_of(file.path), options=options)
            if result.meta["size"] != file.size:
                raise LoadError(Reason.SOURCE_CHANGED, f"{file.path}: the object has another size than the one listed")
            await sink.begin()
            async for data in self._chunks(result.stream(min_chunk_size=_CHUNK)):
                await sink.write(data)

    async def _chunks(self, stream: "BytesStream") -> AsyncIterator[memoryview]:
        while True:
            async with asyncio.timeout(self._stall):
                try:
                    chunk = await anext(stream)
                except StopAsyncIteration:
                    return
            yield memoryview(chunk)

    @contextmanager
    def _reasons(self, file: ManifestFile) -> Iterator[None]:
        """obstore's errors as ours; their texts are left out, for they hold URLs."""
        try:
            yield
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise LoadError(
                ContentReason.ACCESS_DENIED,
                f"{file.path}: the bucket {self._bucket} denies access; "
                f"check the Secret {self._secret} of this namespace",
            ) from None
        except (FileNotFoundError, exceptions.NotFoundError):
            raise LoadError(
                ContentReason.SOURCE_NOT_FOUND, f"{file.path}: the bucket {self._bucket} does not have this object"
            ) from None
        except exceptions.PreconditionError:
            raise LoadError(
                Reason.SOURCE_CHANGED,
                f"{file.path}: the object in the bucket {self._bucket} is no longer the one listed",
            ) from None
        except (exceptions.BaseError, TimeoutError):
            raise Transient(
                ContentReason.SOURCE_UNAVAILABLE, f"{file.path}: the bucket {self._bucket} does not answer"
            ) from None
