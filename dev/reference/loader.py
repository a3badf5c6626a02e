"""What the environment of the loader may say.

The loader reads its variables where it needs them, so that it starts quickly; a test looks for those in its code and
compares. Mirrors are told once for all programs (``settings``).
"""

from collections.abc import Mapping

VARIABLES: Mapping[str, tuple[str, str]] = {
    "MODEL_SOURCE_TYPE": ("required", "`modelhub` or `objstore`"),
    "MODEL_ID": ("required for a hub", "the model at the hub, `ORGANISATION/NAME`"),
    "MODEL_HUB_NAME": ("Huggingface", "`Huggingface` or `ModelScope`"),
    "REVISION": ("main", "hub: branch, tag or commit"),
    "MODEL_FILENAME": ("", "hub: this file alone"),
    "MODEL_ALLOW_PATTERNS": ("", "hub: patterns of files, comma-separated, as `huggingface_hub` understands them"),
    "MODEL_IGNORE_PATTERNS": ("", "hub: patterns of files that are left out"),
    "HF_TOKEN": ("", "token for Hugging Face; sent to the hub's own host only"),
    "HUGGING_FACE_HUB_TOKEN": ("", "the same, where `HF_TOKEN` is not set"),
    "MODELSCOPE_API_TOKEN": ("", "token for ModelScope"),
    "PROVIDER": ("required for a store", "`OSS`, `S3` or `GCS`"),
    "BUCKET": ("required for a store", "the bucket"),
    "MODEL_PATH": ("required for a store", "an object (`.gguf`), or a prefix: everything below it"),
    "ENDPOINT": ("required for OSS", "OSS's endpoint, without the bucket"),
    "OSS_ACCESS_KEY_ID": ("", "key for OSS"),
    "OSS_ACCESS_KEY_SECRET": ("", "its secret"),
    "AWS_ACCESS_KEY_ID": ("", "key for S3 and GCS"),
    "AWS_SECRET_ACCESS_KEY": ("", "its secret"),
    "MODELSWARM_MANIFEST_DIR": ("", "default of `--manifest-dir`"),
    "MODELSWARM_LOAD_PARALLEL": ("4", "default of `--parallel`"),
    "MODELSWARM_TERMINATION_LOG": ("/dev/termination-log", "default of `--termination-log`"),
    "MODELSWARM_LOG_FORMAT": ("text", "`json`: each line is an object, as those of the operator"),
    "MODELSWARM_NODE_MODEL": (
        "",
        "directory in which the node's agent keeps this model, or will; the operator sets it",
    ),
    "MODELSWARM_CONTENT_PUBLIC": (
        "false",
        "`true`: anybody may read the model, so its files may come from Dragonfly although there is a token",
    ),
    "MODELSWARM_ORIGIN_TURNSTILE": ("", "URL of the operator's turnstile; without it the origin is read at any time"),
    "MODELSWARM_DFDAEMON_SOCKET": ("", "socket of the node's Dragonfly daemon; without it the origin is read"),
    "MODELSWARM_DFDAEMON_STALL_SECONDS": ("120", "a file is given up after so many seconds without a byte from there"),
    "MODELSWARM_DFDAEMON_SLOWEST_MIB": ("8", "the slowest rate of one file, in MiB/s, that is worth waiting for"),
    "MODELSWARM_DFGET": ("dfget", "Dragonfly's program, looked for in `PATH`"),
    "MODELSWARM_DRAGONFLY_TAG": ("", "as the files were preheated; part of Dragonfly's task id"),
    "MODELSWARM_DRAGONFLY_APPLICATION": ("", "the same"),
    "MODELSWARM_DRAGONFLY_ALLOW_GATED": ("false", "`true`: files that need the token may come from Dragonfly"),
}
"""Default and meaning by name, in the order of the page."""
