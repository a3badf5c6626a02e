"""Object storage for the tests: moto's S3 server with the buckets that the examples name."""

import contextlib
from collections.abc import Iterator

import httpx
from moto.server import ThreadedMotoServer

FOLDERS = (
    ("my-models", "models/Qwen2-7B-Instruct"),
    ("my-models", "models/DeepSeek-R1-Distill-Qwen-1.5B"),
    ("bucket", "modelPath"),
)
FILES = {"config.json": b"{}", "model.safetensors": b"weights in a bucket"}


@contextlib.contextmanager
def serve_object_store() -> Iterator[str]:
    """Run the server; its base URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        with httpx.Client(base_url=url, trust_env=False) as http:
            for bucket in dict.fromkeys(bucket for bucket, _ in FOLDERS):
                http.put(f"/{bucket}").raise_for_status()
            for bucket, folder in FOLDERS:
                for name, content in FILES.items():
                    http.put(f"/{bucket}/{folder}/{name}", content=content).raise_for_status()
        yield url
    finally:
        server.stop()
