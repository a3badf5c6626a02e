"""The operator that the tests share, and others with other flags that take its place for a while."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from dev.controlplane import ControlPlane
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess


class Operators:
    """One operator at a time on one cluster, under its own ServiceAccount. All that they log is kept in ``logs``."""

    def __init__(
        self, cluster: ControlPlane, logs: Path, arguments: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        self.logs = logs
        self.kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
        self._arguments = arguments
        self._environment = dict(environment)
        self._made = 0
        self.shared = self.make()
        self._instead: OperatorProcess | None = None

    def make(self, *flags: str, environment: Mapping[str, str] | None = None) -> OperatorProcess:
        """An operator that is not started. ``flags`` come after the usual ones and so override them."""
        self._made += 1
        return OperatorProcess(
            self.kubeconfig,
            self.logs / f"operator-{self._made}.log",
            arguments=[*self._arguments, *flags],
            environment={**self._environment, **(environment or {})},
        )

    def start(self) -> OperatorProcess:
        """The operator at work, leading: the shared one, or the one that is in its place."""
        if self._instead is not None:
            return self._instead
        if not self.shared.child.running:
            self.shared.start()
            self.shared.wait_leading()
        return self.shared

    @contextlib.contextmanager
    def replaced(self, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[OperatorProcess]:
        """Another operator in place of the shared one, which comes back afterwards."""
        self.shared.stop()
        try:
            with self.make(*flags, environment=environment) as other:
                other.wait_leading()
                self._instead = other
                yield other
        finally:
            self._instead = None
            self.start()

    def logged(self) -> str:
        """Everything that any operator has logged so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.logs.glob("*.log")))
