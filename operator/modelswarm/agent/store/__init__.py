"""What a node holds: content-addressed blobs, and directories of contents that link to them.

::

    <root>/blobs/<key>              a whole, verified file, read-only
    <root>/partial/<key>            a file that is being filled, with a journal beside it
    <root>/models/<content id>/     hard links to blobs, and .complete, which is written last
    <root>/.modelswarm/             lock, records, and what is being put together or thrown away

``Store`` opens it; ``Store.begin`` gives a ``Filling`` for one content, whose ``Partial`` files are written by whoever
brings the bytes. Decisions are in ``capacity`` and ``eviction``, without IO; ``shelf`` and what it calls blocks.
"""

from modelswarm.agent.store.capacity import Capacity, Disk, human
from modelswarm.agent.store.eviction import Protection
from modelswarm.agent.store.filling import Filling
from modelswarm.agent.store.held import ContentState, Held
from modelswarm.agent.store.keys import COMPLETE, blob_key, content_id
from modelswarm.agent.store.partial import Partial, Pieces
from modelswarm.agent.store.settings import StoreSettings
from modelswarm.agent.store.store import Store
from modelswarm.agent.store.verify import Verified

__all__ = [
    "COMPLETE",
    "Capacity",
    "ContentState",
    "Disk",
    "Filling",
    "Held",
    "Partial",
    "Pieces",
    "Protection",
    "Store",
    "StoreSettings",
    "Verified",
    "blob_key",
    "content_id",
    "human",
]
