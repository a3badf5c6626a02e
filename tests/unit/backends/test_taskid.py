"""Ids against the vectors of dfdaemon's and the scheduler's own tests."""

import pytest

from modelswarm.backends.dragonfly.taskid import DEFAULT_FILTERED, canonical_url, digest_task_id, url_task_id

SITE = "https://example.com"
FILE = f"{SITE}/file.txt"
BLOB = "b2c366cce7e68013d5441c6326d5a3e1b12aeb5ed58564d0fd3fa089bc29cb6e"
BLOB512 = (
    "94381a28e8c039fedfa78de025158a068226c3ccd041b22c2c8e73fc993584e9"
    "b167d9ae32bc8b372c66701c808ab134e0768c8f16b9a3e61eec1ccf8faa9db8"
)


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        pytest.param(
            SITE,
            {"tag": "foo", "application": "bar", "revision": "v1.0", "piece_length": 1024, "filtered": ()},
            "5844f27a257287e9b734256bb25603d8005422ced8c0377f15063ec11963b25f",
            id="everything",
        ),
        pytest.param(
            SITE,
            {"tag": "foo", "application": "bar", "filtered": ()},
            "06408fbf247ddaca478f8cb9565fe5591c28efd0994b8fea80a6a87d3203c5ca",
            id="tag and application",
        ),
        pytest.param(
            SITE,
            {"tag": "foo", "filtered": ()},
            "3c3f230ef9f191dd2821510346a7bc138e4894bee9aee184ba250a3040701d2a",
            id="tag",
        ),
        pytest.param(
            SITE,
            {"application": "bar", "filtered": ()},
            "c9f9261b7305c24371244f9f149f5d4589ed601348fdf22d7f6f4b10658fdba2",
            id="application",
        ),
        pytest.param(
            SITE,
            {"piece_length": 1024, "filtered": ()},
            "9f7c9aafbc6f30f8f41a96ca77eeae80c5b60964b3034b0ee43ccf7b2f9e52b8",
            id="piece length",
        ),
        pytest.param(
            SITE,
            {"revision": "v1.0", "filtered": ()},
            "b171331534b80e0bf91da38ebbfcdbf4d177898f4b9beac44f14733e3f004d4e",
            id="revision",
        ),
        pytest.param(
            f"{SITE}?foo=foo&bar=bar",
            {"filtered": ("foo", "bar")},
            "457b4328cde278e422c9e243f7bfd1e97f511fec43a80f535cf6b0ef6b086776",
            id="all parameters filtered",
        ),
        pytest.param(
            f"{FILE}?z=9&b=2&a=1",
            {"tag": "foo", "application": "bar", "filtered": ("z",)},
            "8b3f6e9b9b8fe20903bced565cfd1d0aaef354a4c17573f0c2c1979210443f9d",
            id="one filtered, the others sorted",
        ),
        pytest.param(
            f"{FILE}?b=2&a=1&b=1",
            {"filtered": ("c",)},
            "7c8801d0596be5e8f9449d5c4af23866c72fe5205119c0e5912981f3b16a37aa",
            id="values of one name keep their order",
        ),
        pytest.param(
            f"{FILE}?k=a b&m=x*y&n=c~d",
            {"piece_length": 1024, "filtered": ("none",)},
            "6196a6846023f6d3c1e4d30f6c86f3d4186e4c664a33e5692b0e04e49b26a9af",
            id="values are encoded as Go does",
        ),
        pytest.param(
            f"{FILE}?a=1&b=2",
            {"tag": "foo", "filtered": ("a", "b")},
            "c8f4b41117329d54af920010394f6f607bac707e933ab2f18d372e3dd4c7fcb3",
            id="a path and no parameter left",
        ),
        pytest.param(
            f"{FILE}?b=2&a=1",
            {"filtered": ()},
            "980ee327518ccc5a7c30703e1a2232e8ba9047b39431f940636c85b6146f8b9a",
            id="without a filter the URL is taken as it is",
        ),
    ],
)
def test_ids_of_urls_are_dfdaemons(url: str, options: dict[str, object], expected: str) -> None:
    assert url_task_id(url, **options) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "filtered", "expected"),
    [
        ("https://example.com?foo=foo#size", ["foo"], "https://example.com#size"),
        ("https://user:pass@[::1]:8080?foo=foo&bar=bar", ["foo"], "https://user:pass@[::1]:8080?bar=bar"),
        ("https://example.com/?foo=foo", ["foo"], "https://example.com/"),
        ("http://www.xx.yy/path?u=f&x=y&m=z&x=s#size", ["x", "m"], "http://www.xx.yy/path?u=f#size"),
        ("https://example.com/file.txt?a=1;x&b=2", ["none"], "https://example.com/file.txt?b=2"),
        ("https://Hub.Example:443/a%20b", ["ns"], "https://hub.example/a%20b"),
    ],
)
def test_urls_are_made_canonical_as_dfdaemon_does(url: str, filtered: list[str], expected: str) -> None:
    assert canonical_url(url, filtered) == expected


def test_signatures_of_object_stores_do_not_change_the_id() -> None:
    bare = "https://bucket.s3.amazonaws.com/model.bin"
    assert (
        url_task_id(f"{bare}?X-Amz-Date=1&X-Amz-Signature=2")
        == url_task_id(f"{bare}?X-Amz-Date=3")
        == url_task_id(bare)
    )
    assert len(set(DEFAULT_FILTERED)) == len(DEFAULT_FILTERED) == 30


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(f"http://registry.example.com/v2/library/ubuntu/blobs/sha256:{BLOB}", BLOB, id="sha256"),
        pytest.param(f"https://registry.example.com/v2/org/repo/blobs/sha512:{BLOB512}", BLOB512, id="sha512"),
        pytest.param(
            f"http://localhost:5000/v2/myrepo/blobs/sha256:{BLOB}?ns=docker.io", BLOB, id="a query is ignored"
        ),
        pytest.param(f"http://registry.example.com/v2/library/ubuntu/manifests/sha256:{BLOB}", BLOB, id="manifest"),
        pytest.param("http://registry.example.com/v2/library/ubuntu/manifests/latest", None, id="tag"),
        pytest.param("http://registry.example.com/v2/library/ubuntu/blobs/sha256:abc", None, id="short digest"),
        pytest.param("http://registry.example.com/v2/r/blobs/md5:8a04994a666b4e4b20a2fd9e5a44f44c", None, id="md5"),
        pytest.param("https://example.com/file.txt", None, id="not a registry"),
    ],
)
def test_ids_of_blobs_are_their_digests(url: str, expected: str | None) -> None:
    assert digest_task_id(url) == expected
