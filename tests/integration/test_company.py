"""llmaz's own controllers in the same cluster: two would fight over every Playground, so ours step back."""

from datetime import UTC, datetime

from tests.integration.support import Scene, eventually

LEASE = "fbb36db9.llmaz.io"
LOOK_SECONDS = 20.0
"""The Lease is looked at every few seconds."""


def test_while_llmaz_itself_runs_no_playground_is_touched(scene: Scene) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    scene.api.create(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": "llmaz-system"},
            "spec": {"holderIdentity": "llmaz-controller-manager-0", "renewTime": now, "leaseDurationSeconds": 600},
        }
    )
    try:
        model = scene.model()

        def refused() -> str:
            name = f"pg-{len(scene.all('Playground'))}"
            scene.playground(name, model)
            return name if eventually(lambda: scene.column("pl", name, "STATUS"), 5) == "LlmazIsRunning" else ""

        name = eventually(refused, LOOK_SECONDS, every=1.0)
        condition = scene.conditions("Playground", name)["Progressing"]
        assert condition[:2] == ("False", "AbortProcessing")
        assert "llmaz-controller-manager-0" in condition[2]
        assert "kubectl -n llmaz-system scale deployment" in condition[2], "the message says what to do"
        assert scene.find("Deployment", name) is None
    finally:
        scene.api.delete("Lease", LEASE, "llmaz-system")
    scene.deployment(name, LOOK_SECONDS)
