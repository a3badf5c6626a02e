"""Labels, annotations and names that other programs and users rely on. The ``llmaz`` ones are llmaz's own."""

MODEL_NAME = "llmaz.io/model-name"
MODEL_FAMILY = "llmaz.io/model-family-name"
PLAYGROUND = "llmaz.io/playground"
"""On everything that a Playground makes; the Deployment's and the ``-lb`` Service's selector."""

SKIP_MODEL_LOADER = "llmaz.io/skip-model-loader"
INFERENCE_FLAVORS = "llmaz.io/inference-service-flavors"
ACTIVATOR_MODEL_NAME = "activator.llmaz.io/model-name"

GATE_TIMEOUT = "modelswarm.io/gate-timeout"
"""On a Playground: how long its gate may go without progress before it opens (``30m``, ``90s``, ``0``: never opens)."""
TEMPLATE_HASH = "modelswarm.io/template-hash"
"""On a Deployment: hash of the user's part of its template. It changes only when a user's input does."""
TASKS = "modelswarm.io/p2ptasks"
"""On a Deployment: comma-separated names of the model tasks that its template came from; they are kept meanwhile."""
TASK = "modelswarm.io/p2ptask"
"""On what a P2PTask owns (manifest shards): the task's name."""
CONTENTS = "modelswarm.io/contents"
"""On pods of a Playground: comma-separated digests of the models that a node's agent should have for them."""
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "modelswarm"
"""Field manager of every write, and value of the managed-by label."""

FINALIZER = "modelswarm.io/engine"
"""On a P2PTask while its engine holds something that must be given back (a job with credentials)."""

RUNNER_CONTAINER = "model-runner"
LOADER_CONTAINER = "model-loader"
MODEL_VOLUME = "model-volume"
MODEL_PATH = "/workspace/models/"
SERVING_PORT = 8080

GLOBAL_CONFIG = "llmaz-global-config"
"""ConfigMap in the operator's namespace; key ``config.data`` is YAML with scheduler-name and init-container-image."""
GLOBAL_CONFIG_KEY = "config.data"

HUB_SECRET = "modelhub-secret"
HUB_SECRET_KEY = "HF_TOKEN"
MODELSCOPE_SECRET_KEY = "MODELSCOPE_API_TOKEN"
"""Beside ``HF_TOKEN`` in the same Secret; one hub's token is never sent to the other."""
OSS_SECRET = "oss-access-secret"
OSS_SECRET_KEYS = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET")
AWS_SECRET = "aws-access-secret"
AWS_SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def content_label(digest: str) -> str:
    """On a Node while its agent has the content with this manifest digest, complete; the value is ``Ready``."""
    return f"content.modelswarm.io/{digest.removeprefix('sha256:')[:16]}"
