"""Object stores through the real obstore: S3 and OSS against moto, GCS against a few lines of its XML API."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import boto3  # type: ignore[import-untyped]
import httpx
import pytest
from moto.server import ThreadedMotoServer
from obstore import get_async
from obstore.exceptions import PreconditionError

from modelswarm.content import objectstore
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints, file_url, object_key
from modelswarm.content.manifest import ManifestFile, OriginKind
from modelswarm.content.objectstore import bucket_region, open_store, resolve
from modelswarm.content.source import Provider, StoreSource
from modelswarm.errors import AccessDenied, InvalidReference, NothingMatches, SourceNotFound, SourceUnavailable
from tests.unit.content.conftest import MockClient

KEYS = Credentials(access_key_id="id", access_key_secret="secret")
OBJECTS = {
    "m/Qwen2.5-7B/config.json": b"{}",
    "m/Qwen2.5-7B/sub/a b#c%41?é~.bin": b"odd",
    "m/Qwen2.5-7B/sub/": b"",
    "m/Qwen2.5-7B/": b"",
    "m/Qwen2.5-7B/empty folder/": b"",
    "m/Qwen2.5-7B/empty.txt": b"",
    "m/Qwen2.5-7B-Instruct/other": b"other",
    "m/a.gguf": b"gguf",
    "odd/a//b": b"x",
}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    patch = pytest.MonkeyPatch()
    patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="id", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="bucket")
    for key, body in OBJECTS.items():
        client.put_object(Bucket="bucket", Key=key, Body=body, ACL="public-read")
    for index in range(25):
        client.put_object(Bucket="bucket", Key=f"many/{index:04}.bin", Body=b"x")
    yield url
    server.stop()
    patch.undo()


def store(path: str, provider: Provider = Provider.S3, bucket: str = "bucket") -> StoreSource:
    return StoreSource(provider, bucket, path, "oss-x.example.com" if provider is Provider.OSS else None)


@pytest.mark.parametrize("provider", [Provider.S3, Provider.OSS])
@pytest.mark.parametrize("credentials", [KEYS, None])
async def test_a_prefix(s3: str, http: httpx.AsyncClient, provider: Provider, credentials: Credentials | None) -> None:
    source = store("m/Qwen2.5-7B", provider)
    manifest = await resolve(source, credentials, Endpoints(s3=s3, oss=s3), http)
    assert (manifest.origin.kind, manifest.origin.id, manifest.revision) == (
        OriginKind(provider.lower()),
        "bucket/m/Qwen2.5-7B",
        None,
    )
    assert manifest.origin.endpoint == source.endpoint
    assert [(file.path, file.size, file.digest) for file in manifest.files] == [
        ("config.json", 2, None),
        ("empty.txt", 0, None),
        ("sub/a b#c%41?é~.bin", 3, None),
    ]
    assert all(file.version for file in manifest.files)


async def test_files_are_read_by_key_and_by_url_and_only_as_listed(s3: str, http: httpx.AsyncClient) -> None:
    endpoints, source = Endpoints(s3=s3), store("m/Qwen2.5-7B")
    manifest = await resolve(source, KEYS, endpoints, http)
    bucket = open_store(source, KEYS, endpoints)
    for file in filter(lambda file: file.size, manifest.files):
        _, key = object_key(manifest.origin, file.path)
        got = await get_async(bucket, key, options={"if_match": file.version, "range": (1, file.size)})
        assert bytes(await got.bytes_async()) == OBJECTS[key][1:]
        assert (await http.get(file_url(manifest.origin, None, file.path, endpoints))).content == OBJECTS[key]
        with pytest.raises(PreconditionError):
            await get_async(bucket, key, options={"if_match": '"other"'})


async def test_one_object(s3: str, http: httpx.AsyncClient) -> None:
    manifest = await resolve(store("m/a.gguf"), None, Endpoints(s3=s3), http)
    (file,) = manifest.files
    assert (file.path, file.size) == ("a.gguf", 4)
    assert manifest.origin.id == "bucket/m/a.gguf"
    assert object_key(manifest.origin, file.path) == ("bucket", "m/a.gguf")


async def test_more_objects_than_a_page_has(s3: str, http: httpx.AsyncClient) -> None:
    assert len((await resolve(store("many"), None, Endpoints(s3=s3), http)).files) == 25


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        pytest.param(store("none"), NothingMatches, "nothing under", id="an empty prefix"),
        pytest.param(store("m/Qwen"), NothingMatches, "nothing under", id="half a name is no prefix"),
        pytest.param(store("m/none.gguf"), SourceNotFound, "does not exist", id="no such object"),
        pytest.param(store("m", bucket="none"), SourceNotFound, "bucket 'none'", id="no such bucket"),
        pytest.param(store("a.gguf", bucket="none"), SourceNotFound, "check the bucket", id="no bucket, one object"),
        pytest.param(store("odd"), InvalidReference, "cannot be a file's path", id="a key with an empty part"),
    ],
)
async def test_typed_reasons(
    s3: str, http: httpx.AsyncClient, source: StoreSource, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await resolve(source, KEYS, Endpoints(s3=s3), http)


async def test_a_store_that_is_down(http: httpx.AsyncClient) -> None:
    with pytest.raises(SourceUnavailable, match="cannot be listed now"):
        await resolve(store("m"), KEYS, Endpoints(s3="http://127.0.0.1:9"), http)
    with pytest.raises(SourceUnavailable, match="cannot be listed now"):
        await resolve(store("a.gguf"), KEYS, Endpoints(s3="http://127.0.0.1:9"), http)


class Stub:
    """A store that answers every request the same, or lists ``objects`` as GCS does."""

    def __init__(self, status: int = 200, objects: dict[str, bytes] | None = None) -> None:
        self.status = status
        self.objects = objects or {}
        self.requests: list[tuple[str, str, str | None]] = []

    def answer(self, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        if self.status != 200:
            return self.status, {}, b"<Error><Code>Whatever</Code></Error>"
        url = urlsplit(target)
        query = parse_qs(url.query)
        if "list-type" in query:
            prefix = query.get("prefix", [""])[0]
            contents = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(body)}</Size><ETag>&quot;{len(key)}&quot;</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key, body in self.objects.items()
                if key.startswith(prefix)
            )
            return 200, {}, f"<ListBucketResult>{contents}</ListBucketResult>".encode()
        key = unquote(url.path).split("/", 2)[2]
        if key not in self.objects:
            return 404, {}, b""
        body = self.objects[key]
        headers = {"ETag": f'"{len(key)}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return 200, headers, body


Serve = Callable[[Stub], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ThreadingHTTPServer] = []

    def start(stub: Stub) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.requests.append((self.command, self.path, self.headers.get("Authorization")))
                status, headers, body = stub.answer(self.command, self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    # Who has read enough may leave; nothing is worth a traceback.
                    with contextlib.suppress(ConnectionError):
                        self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", ["m", "a.gguf"])
async def test_access_denied(serve: Serve, http: httpx.AsyncClient, provider: Provider, status: int, path: str) -> None:
    url = serve(Stub(status))
    with pytest.raises(AccessDenied, match="Secret") as raised:
        await resolve(store(path, provider), None, Endpoints(s3=url, gcs=url, oss=url), http)
    assert url not in raised.value.message


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_store_in_trouble(serve: Serve, http: httpx.AsyncClient, status: int) -> None:
    with pytest.raises(SourceUnavailable):
        await resolve(store("m"), None, Endpoints(s3=serve(Stub(status))), http)


async def test_a_passing_failure_of_a_listing_is_not_a_missing_bucket(serve: Serve, http: httpx.AsyncClient) -> None:
    stub = Stub(objects={"m/a": b"1"})
    listings = 0
    plain = stub.answer

    def answer(method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        nonlocal listings
        listings += "list-type" in target
        if "list-type" in target and listings <= 3:
            return 500, {}, b""
        return plain(method, target)

    stub.answer = answer  # type: ignore[method-assign]
    assert (await resolve(store("m"), None, Endpoints(s3=serve(stub)), http)).files


async def test_a_store_that_hangs(serve: Serve, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    stub = Stub()

    def answer(method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        release.wait(20)
        return 500, {}, b""

    stub.answer = answer  # type: ignore[method-assign]
    monkeypatch.setattr(objectstore, "TOTAL_SECONDS", 0.2)
    with pytest.raises(SourceUnavailable, match="in time"):
        await resolve(store("m"), None, Endpoints(s3=serve(stub)), http)
    release.set()


async def test_gcs(serve: Serve, http: httpx.AsyncClient) -> None:
    stub = Stub(objects={"m/x/config.json": b"{}", "m/x/sub/": b"", "m/x/w.bin": b"123", "m/a.gguf": b"gguf"})
    endpoints = Endpoints(gcs=serve(stub))
    manifest = await resolve(store("m/x", Provider.GCS), None, endpoints, http)
    assert manifest.files == (ManifestFile("config.json", 2, None, '"15"'), ManifestFile("w.bin", 3, None, '"9"'))
    assert manifest.origin.id == "bucket/m/x"
    (single,) = (await resolve(store("m/a.gguf", Provider.GCS), None, endpoints, http)).files
    assert (single.path, single.size) == ("a.gguf", 4)
    bucket = open_store(store("m/x", Provider.GCS), None, endpoints)
    assert bytes(await (await get_async(bucket, "m/x/w.bin")).bytes_async()) == b"123"
    assert {authorization for _, _, authorization in stub.requests} == {None}


@pytest.mark.parametrize(
    ("provider", "credentials", "signed"),
    [
        pytest.param(Provider.S3, None, "", id="S3 without keys"),
        pytest.param(Provider.S3, Credentials(access_key_id="id"), "", id="S3 with half a key"),
        pytest.param(Provider.S3, KEYS, "AWS4-HMAC-SHA256 Credential=id/", id="S3 with keys"),
        pytest.param(Provider.OSS, None, "", id="OSS without keys"),
        pytest.param(Provider.OSS, KEYS, "AWS4-HMAC-SHA256 Credential=id/", id="OSS with keys"),
        pytest.param(Provider.GCS, KEYS, "", id="GCS: keys of AWS are not for Google"),
        pytest.param(
            Provider.GCS,
            Credentials(access_key_id="GOOG1E", access_key_secret="s"),
            "AWS4-HMAC-SHA256 Credential=GOOG1E/",
            id="GCS with interoperable keys",
        ),
    ],
)
async def test_who_asks(
    serve: Serve, http: httpx.AsyncClient, provider: Provider, credentials: Credentials, signed: str
) -> None:
    stub = Stub(objects={"m/a": b"1"})
    url = serve(stub)
    await resolve(store("m", provider), credentials, Endpoints(s3=url, gcs=url, oss=url), http)
    assert all((authorization or "").startswith(signed) for _, _, authorization in stub.requests)
    assert all(bool(authorization) == bool(signed) for _, _, authorization in stub.requests)


def test_an_identity_of_the_platform_is_used() -> None:
    ambient = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"}
    assert "skip_signature" not in dict(open_store(store("m"), None, Endpoints(), environ=ambient).config)
    assert dict(open_store(store("m"), None, Endpoints(), environ={}).config)["skip_signature"]
    # A role is for AWS, not for another provider that speaks the same protocol.
    assert dict(open_store(store("m", Provider.OSS), None, Endpoints(), environ=ambient).config)["skip_signature"]
    google = open_store(store("m", Provider.GCS), None, Endpoints(), environ={})
    assert dict(google.config)["skip_signature"]


def test_oss_is_addressed_by_host_name() -> None:
    source = StoreSource(Provider.OSS, "bkt", "m", "oss-cn-hangzhou-internal.aliyuncs.com")
    config = dict(open_store(source, KEYS, Endpoints(), environ={}).config)
    assert config["endpoint"] == "https://bkt.oss-cn-hangzhou-internal.aliyuncs.com"
    assert config["virtual_hosted_style_request"]
    assert config["region"] == "cn-hangzhou"


def test_http_is_spoken_only_where_the_endpoint_says_so() -> None:
    def allows_http(endpoints: Endpoints) -> str:
        options = open_store(store("m"), KEYS, endpoints, environ={}).client_options
        assert options is not None
        return str(options["allow_http"])

    assert allows_http(Endpoints(s3="http://minio:9000")) == "true"
    assert allows_http(Endpoints(s3="https://minio:9000")) == "false"
    assert allows_http(Endpoints()) == "false"


async def test_the_region_of_a_bucket(mock_client: MockClient) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url}")
        return httpx.Response(403, headers={"x-amz-bucket-region": "eu-central-1"})

    http = mock_client(answer)
    assert await bucket_region(http, store("m"), Endpoints(), {}) == "eu-central-1"
    assert seen == ["HEAD https://s3.amazonaws.com/bucket"]
    assert await bucket_region(http, store("m"), Endpoints(), {"AWS_REGION": "x"}) is None
    assert await bucket_region(http, store("m"), Endpoints(s3="http://minio"), {}) is None
    assert await bucket_region(http, store("m", Provider.GCS), Endpoints(), {}) is None
    assert len(seen) == 1
    down = mock_client(lambda _: httpx.Response(500))
    assert await bucket_region(down, store("m"), Endpoints(), {}) is None
