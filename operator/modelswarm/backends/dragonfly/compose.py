"""The job that a submission becomes. Pure."""

from modelswarm.backends.dragonfly.images import Login
from modelswarm.backends.dragonfly.ledger import Submission
from modelswarm.backends.dragonfly.plan import Plan
from modelswarm.backends.dragonfly.requests import SECOND, Preheat, PreheatArgs
from modelswarm.backends.dragonfly.settings import DragonflySettings


def compose(plan: Plan, submission: Submission, marker: str, login: Login, settings: DragonflySettings) -> Preheat:
    """One URL per file; of an image the manifest's, because the manager lists the layers of a platform by itself.

    Tag and application are for models only: containerd sends neither.
    """
    entries = [plan.entries[number] for number in sorted(submission.items)]
    image = plan.manifest_url is not None
    args = PreheatArgs(
        type="image" if image else "file",
        urls=None if image else tuple(entry.url for entry in entries),
        url=plan.manifest_url,
        platform=entries[0].platform if image else None,
        count=settings.seed_count,
        tag="" if image else settings.tag,
        application="" if image else settings.application,
        headers=dict(login.headers) if login.headers else None,
        username=login.username,
        password=login.password,
        timeout=int(settings.job_seconds) * SECOND,
        concurrent_task_count=settings.concurrency,
        enable_task_id_based_blob_digest=settings.digest_ids if image else None,
    )
    return Preheat(bio=marker, scheduler_cluster_ids=(submission.cluster,), args=args)
