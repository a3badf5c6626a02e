"""A reader who types the documents' commands: kubectl and helm on the PATH, a clone, and a cluster with things to see.

Nothing runs in the cluster. What waits for pods finds statuses that say they run, and ``kubectl logs`` prints lines
that our own formatter made.
"""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from dev.binaries import locate
from dev.controlplane import ControlPlane
from dev.helm import setting
from dev.installation import ROOT
from dev.manifests import manifests
from modelswarm.logs import JsonFormatter
from tests.documents import Step
from tests.integration.support.api import Manifest
from tests.integration.support.shown import NAME, NOT_OURS, WORDS, available, object_, running, world

MADE = (
    "deployments,daemonsets,services,secrets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,leases,"
    "poddisruptionbudgets,clusterroles,clusterrolebindings,validatingadmissionpolicies,"
    "validatingadmissionpolicybindings,validatingwebhookconfigurations,mutatingwebhookconfigurations,pods,"
    "openmodels,playgrounds,backendruntimes,p2ptasks,nodecaches,services.inference.llmaz.io"
)
"""Kinds of which the commands make objects."""
LOOKS = re.compile(r"kubectl (-n \S+ )?(get|describe|logs|wait|diff|rollout status) ")
"""Commands that change nothing."""
SECONDS = 120
_KUBECTL = """\
#!/bin/sh
case " $* " in
*" logs "*"model-loader"*) exec cat "$LOGS/loader" ;;
*" logs "*"modelswarm-operator"*) exec cat "$LOGS/operator" ;;
*" logs "*) exec cat "$LOGS/agent" ;;
esac
exec "$REAL_KUBECTL" "$@"
"""


class Reader:
    """``directory`` is where the commands are typed: what a clone has, and the files that they write."""

    def __init__(self, cluster: ControlPlane, directory: Path) -> None:
        self._cluster, self._directory = cluster, directory
        programs, logs = directory / "programs", directory / "logs"
        programs.mkdir()
        logs.mkdir()
        for name in ("charts", "config", "examples", ".venv"):
            (directory / name).symlink_to(sys.prefix if name == ".venv" else ROOT / name)
        (directory / "ca-bundle.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        (programs / "helm").symlink_to(locate("helm")["helm"])
        (programs / "kubectl").write_text(_KUBECTL)
        (programs / "kubectl").chmod(0o755)
        _write_logs(logs)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HELM_")},
            **{f"HELM_{kind}_HOME": str(directory / f"helm-{kind.lower()}") for kind in ("CACHE", "CONFIG", "DATA")},
            "PATH": os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"])),
            "KUBECONFIG": str(cluster.kubeconfig),
            "KUBECACHEDIR": str(directory / "kubectl-cache"),
            "KUBERC": "off",
            "LOGS": str(logs),
            "REAL_KUBECTL": str(locate("kubectl")["kubectl"]),
            "OPERATOR": "llmaz-system",
            "AGENTS": "llmaz-system",
        }
        self._before: dict[str, Manifest] = {}
        self._changed = True

    # What is there

    def prepare(self, *objects: Manifest, release: str = "") -> None:
        """Let the world be as before, whatever was typed, with ``objects`` in it and a ``release`` of a small chart."""
        if not (self._changed or objects or release):
            return
        if not self._cluster.kubectl("get", "crd/p2ptasks.llmaz.io", "--ignore-not-found"):
            self._cluster.apply(ROOT / "crds")
        if not self._before:
            self._cluster.apply(yaml.safe_dump_all(NOT_OURS))
            self._before = self._there()
        self.clean()
        shown = [*world(), *objects]
        self._cluster.apply(yaml.safe_dump_all([{k: v for k, v in each.items() if k != "status"} for each in shown]))
        self._report([each for each in shown if "status" in each])
        if release:
            self.type(f"helm install {release} {self._chart(release)} -n llmaz-system")
        self._before, self._changed = self._there(), False

    def clean(self) -> None:
        """Remove what has come since, helm's records of releases too."""
        self._delete([obj for key, obj in self._there().items() if key not in self._before and _is_of_a_user(obj)])

    def install(self, **values: str | int | bool) -> None:
        self.clean()
        chosen = " ".join(setting(image__registry="registry.example.com", **values))
        self.type(f"helm install modelswarm charts/modelswarm -n llmaz-system {chosen}")

    def installed(self) -> bool:
        return "modelswarm" in self.type("helm list -n llmaz-system -q").split()

    def start_everything(self) -> None:
        """Let every workload say that its pods run, and every Playground and P2PTask that it is there."""
        there = self._there().values()
        workloads = [obj | {"status": running(obj)} for obj in there if obj["kind"] in ("Deployment", "DaemonSet")]
        self._report([*workloads, *(available(obj) for obj in there if obj["kind"] in ("Playground", "P2PTask"))])

    # What is typed

    def follow(self, step: Step) -> str:
        """Do what a step says, after what a reader would have done before. Fails if the command does."""
        if step.is_values:
            (self._directory / "values.yaml").write_text(step.text)
            return ""
        command = _filled(step.text)
        if command.startswith("helm install modelswarm"):
            self.clean()
        elif re.match(r"helm (upgrade|rollback|uninstall) modelswarm", command) and not self.installed():
            self.install()
        elif command.startswith("make manifests"):
            self.clean()
            (self._directory / "dist").mkdir(exist_ok=True)
            (self._directory / "dist" / "modelswarm.yaml").write_text(manifests("registry.example.com", "v0.1.0"))
            return ""
        elif "rollout status" in command or command.startswith("kubectl wait"):
            self.start_everything()
        if re.search(r" -w$", command):
            return self.type(f"timeout 20 {command}", code=124)
        if made := re.match(r"kubectl create namespace (\S+)", command):
            # The ServiceAccount is made by a controller elsewhere.
            return self.type(f"{command} && kubectl -n {made[1]} create serviceaccount default")
        if command.startswith("kubectl diff"):
            command += " || test $? = 1"  # there is a difference
        return self.type(command, code=1 if command.startswith("helm get manifest llmaz") else 0)

    def type(self, command: str, code: int = 0) -> str:
        """Standard output of a line for the shell, which is asserted to end with ``code``."""
        self._changed |= not LOOKS.match(command)
        typed = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(
            typed,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == code, f"{command}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    # Objects

    def _chart(self, name: str) -> Path:
        """A chart of somebody else's, of one object."""
        chart = self._directory / name
        (chart / "templates").mkdir(parents=True, exist_ok=True)
        (chart / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": name, "version": "0.0.10"}))
        one = object_("v1", "ConfigMap", f"{name}-release", data={"one": "object"})
        (chart / "templates" / "one.yaml").write_text(yaml.safe_dump(one))
        return chart

    def _there(self) -> dict[str, Manifest]:
        found = json.loads(self._cluster.kubectl("get", MADE, "-A", "-o", "json"))["items"]
        return {_key(obj): obj for obj in found}

    def _delete(self, objects: Sequence[Manifest]) -> None:
        if objects:
            listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
            self._cluster.kubectl(
                "delete", "--ignore-not-found", "--grace-period=0", "--force", "-f", "-", input=listed
            )

    def _report(self, objects: Sequence[Manifest]) -> None:
        said = [
            object_(obj["apiVersion"], obj["kind"], meta["name"], meta.get("namespace", ""), status=obj["status"])
            for obj in objects
            for meta in (obj["metadata"],)
        ]
        command = ("apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-")
        self._cluster.kubectl(*command, input=yaml.safe_dump_all(said))


def _filled(text: str) -> str:
    """With a name for each placeholder, and without the remark at the end."""
    text = re.sub(r"  +# .*$", "", text)
    return re.sub(r"\b[A-Z]+(?:_[A-Z]+)*\b(?!:)", lambda word: WORDS.get(word[0], word[0]), text).rstrip()


def _key(obj: Manifest) -> str:
    meta = obj["metadata"]
    return f"{obj['kind']}/{obj['apiVersion']}/{meta.get('namespace', '')}/{meta['name']}"


def _is_of_a_user(obj: Manifest) -> bool:
    """The API server makes objects of its own, now and then."""
    return not obj["metadata"]["name"].startswith(("system:", "kube", "extension-apiserver"))


def _write_logs(directory: Path) -> None:
    """One line of each program that the documents' filters look for, and one that they leave out."""

    def line(level: int, message: str, **more: str) -> str:
        record = logging.LogRecord("modelswarm", level, "", 0, message, None, None)
        vars(record).update(more)
        return JsonFormatter().format(record) + "\n"

    about = {"controller": "p2ptask", "object": f"default/{NAME}", "reconcile_id": "1"}
    agent = about | {"model": "facebook/opt-125m", "model_hash": "ab"}
    shunned = "P2P facebook/opt-125m: node-2 published bytes that are not the origin's; it is shunned"
    (directory / "operator").write_text(line(logging.INFO, "on") + line(logging.WARNING, "FellBack: stalled", **about))
    (directory / "agent").write_text(line(logging.INFO, "on") + line(logging.ERROR, shunned, **agent))
    (directory / "loader").write_text("model-loader: waiting for its turn at the origin, position 3\n")
