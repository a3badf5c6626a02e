"""The model-loader: an init container that puts a model's files in place, verified. Imports ``content`` and ``errors``.

::

    command     arguments, exit code, signals, termination message
      settings  environment -> Settings
      load      pin the content, check the disk, bring every file, summarise
        pin       manifest from the pod's volume, else resolved at the origin
        bring     one file: present? else part -> verified -> renamed
          part      what is on disk of it so far; the sink of a leg
            ahead     what another program has written of it
          digests   following the part with a hash
          leg       the protocol of a source of bytes
            dfdaemon  the node's Dragonfly daemon
              dfget     asked by Dragonfly's program
              dfstream  asked by gRPC, with a token
            origin    the hub, over HTTP
            objects   an object store
          detours   why a leg was passed over

Start-up counts (every pod waits for it), so this module and ``command`` import nothing that ``--help`` does not need.
"""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """``modelswarm load ARGV``; returns the exit code (``docs/reference/loader.md``)."""
    from modelswarm.loader.command import run

    return run(argv)
