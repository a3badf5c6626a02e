"""The real image registry on this machine, for tests: as a child process on a loopback port, empty at the start.

with Registry(auth="token") as registry:
    image = registry.push_image("team/app", "v1", platforms=("linux/amd64", "linux/arm64"))
    client = registry.client()          # authenticated httpx client

"""

import secrets
import shutil
import ssl
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypedDict

import httpx
import yaml

from dev.binaries import locate
from dev.oci_image import build_image
from dev.pki import CertificateAuthority
from dev.process import LOOPBACK, Child, StartupFailed, free_port
from dev.registry_access import AccessEntry, read_access_log
from dev.registry_auth import ISSUER, SERVICE, TokenServer
from dev.registry_client import RegistryAuth, push_blob, push_manifest

READY_TIMEOUT = 30.0
PORT_ATTEMPTS = 5

Auth = Literal["none", "basic", "token"]


class PushedPlatform(TypedDict):
    manifest: str
    config: str
    layers: list[str]


class PushedImage(TypedDict):
    """Digests of a pushed image, all as ``sha256:...``."""

    digest: str
    """What the tag points to: the index, or the manifest when there is one platform only."""
    media_type: str
    reference: str
    """``host:port/repository:tag``"""
    platforms: dict[str, PushedPlatform]


class Registry:
    """One registry. ``auth`` is how it wants to be asked: openly, with a password, or with tokens as Docker Hub does.

    ``username`` and ``password`` are the one account that may do everything. With ``anonymous_pull`` (tokens only)
    everybody may pull. With ``tls`` it serves HTTPS with a certificate of the authority in ``ca_file``. ``directory``,
    if given, has to be empty or missing and is kept. ``address`` is where it listens.
    """

    def __init__(
        self,
        *,
        address: str = LOOPBACK,
        auth: Auth = "none",
        anonymous_pull: bool = False,
        tls: bool = False,
        username: str = "swarm",
        password: str | None = None,
        directory: Path | None = None,
    ) -> None:
        if anonymous_pull and auth != "token":
            raise ValueError("anonymous_pull needs auth='token'")
        self.auth = auth
        self.tls = tls
        self._address = address
        self.username = username
        self.password = password or secrets.token_urlsafe(16)
        self.token_server: TokenServer | None = None
        self._anonymous_pull = anonymous_pull
        self._given_directory = directory.absolute() if directory else None
        self._child: Child | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers. Raises StartupFailed or BinaryUnavailable."""
        if self._child is not None:
            raise RuntimeError("this registry is already running")
        programs = locate("registry", "htpasswd") if self.auth == "basic" else locate("registry")
        try:
            self._prepare(programs)
            self._start_on_free_port(programs["registry"])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it at once. Harmless when it does not run."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._resources.close()
        self.token_server = None

    # Access

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def client(self, *, authenticated: bool = True) -> httpx.Client:
        """A client for the registry's HTTP API, to be closed by the caller.

        For anonymous tokens set its ``auth`` to ``RegistryAuth()``.
        """
        auth = RegistryAuth(self.username, self.password) if authenticated else None
        verify = ssl.create_default_context(cafile=str(self.ca_file)) if self.tls else True
        # trust_env off: no proxy of the environment gets between a test and its own loopback.
        return httpx.Client(base_url=self.url, auth=auth, verify=verify, timeout=30, trust_env=False)

    def docker_config(self) -> dict[str, object]:
        """The content of a ``config.json``, and of a ``kubernetes.io/dockerconfigjson`` Secret, for the account."""
        credentials = b64encode(f"{self.username}:{self.password}".encode()).decode()
        return {"auths": {self.host: {"username": self.username, "password": self.password, "auth": credentials}}}

    def push_image(
        self,
        repository: str,
        tag: str,
        *,
        platforms: Sequence[str] = ("linux/amd64",),
        layer_bytes: int | Sequence[int] = 4096,
        seed: int | str = 0,
    ) -> PushedImage:
        """Push a small image made of pseudo-random layers. The same arguments give the same digests.

        ``layer_bytes``: the payload of each layer; a number is one layer. Several platforms make an image index, one
        platform a plain manifest.
        """
        image = build_image(platforms, [layer_bytes] if isinstance(layer_bytes, int) else layer_bytes, seed)
        with self.client() as client:
            for platform in image.platforms:
                for blob in (platform.config, *platform.layers):
                    push_blob(client, repository, blob)
                push_manifest(client, repository, platform.manifest.digest, platform.manifest)
            push_manifest(client, repository, tag, image.root)
        return PushedImage(
            digest=image.root.digest,
            media_type=image.root.media_type,
            reference=f"{self.host}/{repository}:{tag}",
            platforms={
                platform.platform: PushedPlatform(
                    manifest=platform.manifest.digest,
                    config=platform.config.digest,
                    layers=[layer.digest for layer in platform.layers],
                )
                for platform in image.platforms
            },
        )

    def access_log(self) -> Iterator[AccessEntry]:
        """The requests answered so far, oldest first. An entry may appear a moment after its answer: poll."""
        return read_access_log(self.directory / "registry.log")

    # Start-up

    def _prepare(self, programs: dict[str, Path]) -> None:
        if self._given_directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="modelswarm-registry-"))
            self._resources.callback(shutil.rmtree, self.directory, ignore_errors=True)
        else:
            self.directory = self._given_directory
            self.directory.mkdir(parents=True, exist_ok=True)
            if any(self.directory.iterdir()):
                raise ValueError(f"{self.directory} is not empty")
        self.ca_file = self.directory / "ca.crt"
        if self.tls:
            authority = CertificateAuthority()
            self.ca_file.write_bytes(authority.certificate)
            authority.server("registry", (self._address, "localhost")).write(self.directory, "registry")
        if self.auth == "basic":
            command = [str(programs["htpasswd"]), self.username]
            line = subprocess.run(command, input=self.password, capture_output=True, text=True, check=True).stdout
            (self.directory / "htpasswd").write_text(line)
        if self.auth == "token":
            server = TokenServer({self.username: self.password}, anonymous_pull=self._anonymous_pull)
            self.token_server = self._resources.enter_context(server)
            server.write_jwks(self.directory / "jwks.json")

    def _start_on_free_port(self, program: Path) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.host = f"{self._address}:{free_port()}"
            config = self.directory / "config.yml"
            config.write_text(yaml.safe_dump(self._configuration(), sort_keys=False))
            # Without the variable it tries to send traces to a collector.
            environment = {"OTEL_TRACES_EXPORTER": "none"}
            log = self.directory / "registry.log"
            self._child = Child("registry", [program, "serve", config], log=log, cwd=self.directory, env=environment)
            self._child.start()
            try:
                self._wait_ready(self._child)
                return
            except StartupFailed:
                if attempt == PORT_ATTEMPTS or not self._child.lost_port():
                    raise

    def _wait_ready(self, child: Child) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        with self.client(authenticated=False) as client:
            while True:
                try:
                    if client.get("/v2/").status_code == (200 if self.auth == "none" else 401) and child.running:
                        return
                except httpx.TransportError:
                    pass
                if not child.running:
                    raise child.failure("ended during start-up")
                if time.monotonic() > deadline:
                    raise child.failure(f"no answer in {READY_TIMEOUT:.0f} s")
                time.sleep(0.02)

    def _configuration(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": self.host, "secret": secrets.token_hex(16)}
        if self.tls:
            http["tls"] = {"certificate": "registry.crt", "key": "registry.key"}
        configuration: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": "data"}, "delete": {"enabled": True}},
            "http": http,
        }
        if self.token_server is not None:
            token = {"realm": self.token_server.url, "service": SERVICE, "issuer": ISSUER, "jwks": "jwks.json"}
            configuration["auth"] = {"token": token}
        elif self.auth == "basic":
            configuration["auth"] = {"htpasswd": {"realm": SERVICE, "path": "htpasswd"}}
        return configuration
