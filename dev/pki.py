"""A private certificate authority for one test cluster or registry, and the kubeconfig files that go with it.

TLS verification stays on in every test: code that is only ever run with verification off fails on the first real
cluster. Keys are EC P-256, because making one takes microseconds and RSA would add a noticeable time to each start.
"""

import ipaddress
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = timedelta(days=30)
# Certificates start in the past, so that a container or VM with a clock slightly behind accepts them.
CLOCK_SKEW = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and the certificate for it, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.crt and NAME.key (readable by the owner only) and return both paths."""
        certificate = directory / f"{name}.crt"
        certificate.write_bytes(self.certificate)
        return certificate, write_private(directory / f"{name}.key", self.key)


class CertificateAuthority:
    """Signs certificates for one cluster. Two clusters have different authorities and refuse each other's clients."""

    def __init__(self, common_name: str = "modelswarm-test-ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(name, name, self._key.public_key(), self._key.public_key())
        self._certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """The CA certificate, PEM: what clients have to trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pair(self) -> KeyPair:
        """The CA itself, for the controller that signs CertificateSigningRequests."""
        return KeyPair(self.certificate, private_pem(self._key))

    def client(self, common_name: str, groups: Sequence[str] = ()) -> KeyPair:
        """A client certificate. To Kubernetes the common name is the user and each organization is a group."""
        return self._issue(common_name, groups, (), (ExtendedKeyUsageOID.CLIENT_AUTH,))

    def server(self, common_name: str, hosts: Sequence[str]) -> KeyPair:
        """A serving certificate for ``hosts``, each a DNS name or an IP address.

        It is valid as a client certificate too, because etcd connects to itself with its serving certificate.
        """
        return self._issue(common_name, (), hosts, (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))

    def _issue(
        self, common_name: str, groups: Sequence[str], hosts: Sequence[str], usages: Sequence[x509.ObjectIdentifier]
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        builder = (
            _builder(x509.Name(attributes), self._certificate.subject, key.public_key(), self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), private_pem(key))


def signing_key() -> tuple[bytes, bytes]:
    """A new private key and its public key, both PEM, without a certificate: what ServiceAccount tokens need."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private_pem(key), public


def write_private(path: Path, content: bytes) -> Path:
    """Write a secret that nobody but the owner may read, not even for the moment between creation and chmod."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def write_kubeconfig(
    path: Path, *, server: str, ca: bytes | Path, client: KeyPair | None = None, token: str | None = None
) -> Path:
    """Write a kubeconfig for one user of one cluster. It refers to no other file, unless ``ca`` is one.

    A Python client copies embedded certificates to temporary files, and one that is killed leaves them behind.
    """
    authority = (
        {"certificate-authority": str(ca)}
        if isinstance(ca, Path)
        else {"certificate-authority-data": b64encode(ca).decode()}
    )
    user: dict[str, str] = {}
    if client is not None:
        user["client-certificate-data"] = b64encode(client.certificate).decode()
        user["client-key-data"] = b64encode(client.key).decode()
    if token is not None:
        user["token"] = token
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "test",
                "cluster": {"server": server, **authority},
            }
        ],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    return write_private(path, yaml.safe_dump(content, sort_keys=False).encode())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The traditional encoding: Kubernetes' ServiceAccount key loader knows "EC PRIVATE KEY" blocks in every version.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALIDITY)
        # Both identifiers are required by clients that verify strictly, which is Python's default since 3.13.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
