"""S3, Google Cloud Storage and Alibaba OSS (by its S3 interface): a prefix or an object becomes a list of files.

The stores' listings have no sha256 (S3 shows its checksums only to requests that obstore does not make), so digests
are None and the first reader's stand (``digest_source`` says ``FirstRead``); ``version`` is the ETag, with which every
later read is conditional (``If-Match``).
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
from obstore import head_async
from obstore import list as list_objects
from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore, S3Store

from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.fetch import fetch
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.content.source import Provider, StoreSource, is_single_object
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    InvalidReference,
    NothingMatches,
    SourceNotFound,
    SourceUnavailable,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

Store = S3Store | GCSStore

_RETRY: "RetryConfig" = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
}
_GCS_HMAC_PREFIX = "GOOG"
_S3_AMBIENT = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_GCS_AMBIENT = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY")
TOTAL_SECONDS = 120.0
"""For listing one prefix, with its retries."""
DEFAULT_REGION = "us-east-1"


def open_store(
    source: StoreSource,
    credentials: Credentials | None,
    endpoints: Endpoints,
    *,
    region: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Store:
    """The bucket of ``source``, for reading: ``get_async(store, key)`` with keys from ``object_key``.

    Without keys the access is anonymous, unless the platform gives this process an identity of its own (the variables
    of IAM roles for service accounts, or ``GOOGLE_APPLICATION_CREDENTIALS``). ``region`` is S3's (``bucket_region``);
    else ``AWS_REGION``, ``AWS_DEFAULT_REGION``. Keys of Google's interoperable kind (``GOOG...``) read GCS through its
    S3 interface. Plain HTTP is spoken only to an endpoint that is given as ``http://``. No request is made here.
    """
    environ = os.environ if environ is None else environ
    has_keys = credentials is not None and bool(credentials.access_key_id and credentials.access_key_secret)
    match source.provider:
        case Provider.GCS:
            if credentials is None or not (credentials.access_key_id or "").startswith(_GCS_HMAC_PREFIX):
                anonymous = not any(environ.get(name) for name in _GCS_AMBIENT)
                return _gcs(source.bucket, endpoints.gcs, anonymous)
            url, virtual, region = endpoints.gcs or "https://storage.googleapis.com", False, "auto"
        case Provider.OSS:
            # OSS refuses S3 requests with the bucket in the path; obstore then wants it in the endpoint.
            url = endpoints.oss or f"https://{source.bucket}.{source.endpoint}"
            virtual, region = endpoints.oss is None, _oss_region(source.endpoint or "")
        case Provider.S3:
            region = region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
            url, virtual = endpoints.s3 or "", False
    keys: dict[str, str | bool] = {}
    if has_keys and credentials is not None:
        keys = {
            "access_key_id": credentials.access_key_id or "",
            "secret_access_key": credentials.access_key_secret or "",
        }
    elif source.provider is not Provider.S3 or not any(environ.get(name) for name in _S3_AMBIENT):
        keys = {"skip_signature": True}
    return S3Store(
        source.bucket,
        region=region,
        virtual_hosted_style_request=virtual,
        client_options=_client(url),
        retry_config=_RETRY,
        **({"endpoint": url} if url else {}),  # type: ignore[arg-type]
        **keys,  # type: ignore[arg-type]
    )


def _oss_region(endpoint: str) -> str:
    """``cn-hangzhou`` of ``oss-cn-hangzhou[-internal].aliyuncs.com``; signatures name it."""
    label = endpoint.removeprefix("s3.").partition(".")[0]
    return label.removeprefix("oss-").removesuffix("-internal") or DEFAULT_REGION


def _gcs(bucket: str, base_url: str | None, anonymous: bool) -> GCSStore:
    options = _client(base_url or "")
    if base_url:
        return GCSStore(
            bucket, base_url=base_url, skip_signature=anonymous, client_options=options, retry_config=_RETRY
        )
    return GCSStore(bucket, skip_signature=anonymous, client_options=options, retry_config=_RETRY)


def _client(url: str) -> "ClientConfig":
    # No limit on a whole request: the loader streams gigabytes through one. A stalled read ends it.
    return {
        "allow_http": url.startswith("http://"),
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(days=1),
    }


async def bucket_region(
    http: httpx.AsyncClient, source: StoreSource, endpoints: Endpoints, environ: Mapping[str, str] | None = None
) -> str | None:
    """The region of an S3 bucket, or None where it does not matter, is configured, or cannot be told.

    S3 says it in a header of every answer about a bucket, also of refusals, so this needs no credentials. Asked
    elsewhere than in its region, a bucket answers 301.
    """
    environ = os.environ if environ is None else environ
    configured = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if source.provider is not Provider.S3 or endpoints.s3 or configured:
        return None
    try:
        reply = await fetch(http, "HEAD", f"https://s3.amazonaws.com/{source.bucket}", follow_redirects=False)
    except ContentError:
        return None
    region: str | None = reply.headers.get("x-amz-bucket-region")
    return region


async def resolve(
    source: StoreSource, credentials: Credentials | None, endpoints: Endpoints, http: httpx.AsyncClient
) -> Manifest:
    """Everything under the prefix, or the one object (``is_single_object``), with sizes and ETags.

    ``revision`` is None: a store has none. Directory markers (keys that end in ``/``) are left out.

    Raises ``SourceNotFound`` (no such bucket or object), ``AccessDenied``, ``NothingMatches`` (nothing under the
    prefix), ``InvalidReference`` (a key that cannot be a file's path) and ``SourceUnavailable``.
    """
    region = await bucket_region(http, source, endpoints)
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            return await _resolve(source, open_store(source, credentials, endpoints, region=region))
    except TimeoutError:
        raise SourceUnavailable(f"{source.uri} cannot be listed: the store does not answer in time") from None


async def _resolve(source: StoreSource, store: Store) -> Manifest:
    origin = Origin(OriginKind(source.provider.lower()), f"{source.bucket}/{source.path}", source.endpoint)
    if is_single_object(source):
        meta = await _head(store, source)
        name = source.path.rpartition("/")[2]
        return Manifest(origin, None, (ManifestFile(name, meta["size"], None, _version(meta)),))
    prefix = f"{source.path}/"
    listed = {
        meta["path"].removeprefix(prefix): meta
        for meta in await _list(store, source)
        if meta["path"].startswith(prefix)
    }
    folders = {path[:at] for path in listed for at, letter in enumerate(path) if letter == "/"}
    files = [
        ManifestFile(path, meta["size"], None, _version(meta))
        for path, meta in listed.items()
        if meta["size"] or not (path in folders or await _is_marker(store, meta["path"]))
    ]
    if not files:
        raise NothingMatches(f"there is nothing under {source.uri}/; check the bucket and the path")
    return Manifest(origin, None, tuple(sorted(files)))


async def _is_marker(store: Store, key: str) -> bool:
    """Whether an empty object stands for a folder: obstore lists ``folder/`` as ``folder``, which then is not there."""
    try:
        await head_async(store, key)
    except FileNotFoundError:
        return True
    except BaseError:
        return False
    return False


def _version(meta: "ObjectMeta") -> str | None:
    return meta["e_tag"] or meta["version"]


async def _head(store: Store, source: StoreSource) -> "ObjectMeta":
    try:
        return await head_async(store, source.path)
    except FileNotFoundError:
        raise SourceNotFound(f"{source.uri} does not exist; check the bucket and the path") from None
    except BaseError as error:
        raise _refused(error, source) from None


async def _list(store: Store, source: StoreSource) -> "Sequence[ObjectMeta]":
    try:
        return await list_objects(store, source.path).collect_async()
    except FileNotFoundError:
        raise _no_bucket(source) from None
    except BaseError as error:
        refusal = _refused(error, source)
        if not isinstance(refusal, SourceUnavailable) or not await _answers_not_found(store, source):
            raise refusal from None
    # obstore has no class of its own for a listing's 404. A store that says of an object that it is not there is well,
    # so the bucket is missing; unless the first failure was a passing one, which the second listing then shows.
    try:
        return await list_objects(store, source.path).collect_async()
    except BaseError:
        raise _no_bucket(source) from None


async def _answers_not_found(store: Store, source: StoreSource) -> bool:
    try:
        await head_async(store, source.path)
    except FileNotFoundError:
        return True
    except BaseError as error:
        if isinstance(refusal := _refused(error, source), AccessDenied):
            raise refusal from None
    return False


def _no_bucket(source: StoreSource) -> SourceNotFound:
    return SourceNotFound(f"the bucket {source.bucket!r} of {source.uri} does not exist; check the URI")


def _refused(error: BaseError, source: StoreSource) -> ContentError:
    """By class only; obstore's texts hold URLs and times, and are not kept."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return AccessDenied(
            f"access to {source.uri} is denied; "
            f"check the keys in the Secret {_SECRETS[source.provider]}, or allow anonymous reading"
        )
    if isinstance(error, InvalidPathError):
        return InvalidReference(f"{source.uri} has a key that cannot be a file's path (an empty part, '.' or '..')")
    return SourceUnavailable(f"{source.uri} cannot be listed now: the store does not answer, or answers with an error")


_SECRETS = {
    Provider.OSS: "oss-access-secret",
    Provider.S3: "aws-access-secret",
    Provider.GCS: "aws-access-secret (interoperable keys, GOOG...)",
}
