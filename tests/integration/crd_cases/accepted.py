"""What the API server must let in. The first cases of each kind are llmaz's own."""

import pytest

from tests.integration.crd_cases import (
    HUB,
    configured,
    elastic,
    hub,
    image,
    models,
    openmodel,
    playground,
    resources,
    runtime,
    task,
    uri,
)

CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}

OPENMODELS = [
    pytest.param(openmodel(), id="a model of Hugging Face"),
    pytest.param(hub(name="ModelScope"), id="a model of ModelScope"),
    pytest.param(uri("oss://bucket.endpoint/modelPath/subPath"), id="an OSS URI"),
    pytest.param(uri("host:///models/meta-llama-3-8B"), id="a path on the node"),
    pytest.param(hub(filename="model.q4.gguf"), id="one file of a repository on Hugging Face"),
    pytest.param(hub(allowPatterns=["*.json"], ignorePatterns=["*.bin"]), id="allow and ignore patterns together"),
    pytest.param(uri("s3://bucket/path/to/model"), id="an S3 URI"),
    pytest.param(uri("gcs://bucket/path"), id="a GCS URI"),
    pytest.param(uri("ollama://qwen2:0.5b"), id="a model that Ollama pulls"),
    pytest.param(uri("OSS://bucket.oss-cn-hangzhou.aliyuncs.com/m"), id="a protocol in upper case"),
    pytest.param(openmodel({**HUB, "uri": "s3://bucket/path"}), id="modelHub and uri together (modelHub wins)"),
    pytest.param(
        openmodel(inferenceConfig={"flavors": [{"name": f"f{n}", "limits": {"gpu": n}} for n in range(8)]}),
        id="eight flavors",
    ),
    pytest.param(openmodel(name="m" * 63), id="a name of 63 characters"),
    pytest.param(openmodel(familyName="Llama_3.1-x"), id="a family name with everything that a label may have"),
]

PLAYGROUNDS = [
    pytest.param(playground(), id="one model"),
    pytest.param(configured(resources=resources(limits={"cpu": "10"})), id="a limit without a request"),
    pytest.param(configured(backendName="no-such-backend"), id="a backend that does not exist"),
    pytest.param(models("main", "draft"), id="a main model and a draft"),
    pytest.param(models("draft", "main"), id="a draft before its main model"),
    pytest.param(models(None), id="one model without a role"),
    pytest.param(models(None, "draft"), id="a model without a role and a draft"),
    pytest.param(
        configured(resources=resources({"cpu": 1, "memory": "1Gi"}, {"cpu": "1000m", "memory": "1024Mi"})),
        id="request and limit equal, written differently",
    ),
    pytest.param(configured(resources=resources({"cpu": 1}, {"memory": "1Gi"})), id="limits and requests disjoint"),
    pytest.param(configured(sharedMemorySize="2Gi", envs=[{"name": "FOO", "value": "BAR"}]), id="memory and variables"),
    pytest.param(elastic(maxReplicas=3), id="elastic without a trigger"),
    pytest.param(
        elastic(
            minReplicas=1,
            maxReplicas=3,
            scaleTrigger={"hpa": {"metrics": [CPU], "behavior": {"scaleUp": {"stabilizationWindowSeconds": 60}}}},
        ),
        id="elastic with metrics and behavior",
    ),
    pytest.param(playground(replicas=0), id="no replicas"),
]

BACKENDRUNTIMES = [
    pytest.param(runtime({"name": "default", "args": ["--model"]}), id="a normal one"),
    pytest.param(runtime({"name": "default", "args": ["{{ .NoSuchName }}"]}), id="an unknown argument name"),
    pytest.param(runtime({"name": "default"}), id="no resources"),
    pytest.param(runtime(name="engine.v2"), id="a name with a dot"),
    pytest.param(runtime(*({"name": f"c{n}"} for n in range(32))), id="32 configurations"),
    pytest.param(
        runtime(
            *(
                {
                    "name": f"c{n}",
                    "resources": resources(
                        {f"example.com/device-{i}": f"{i + 1}Gi" for i in range(32)},
                        {f"example.com/device-{i}": "1048576Ki" for i in range(32)},
                    ),
                }
                for n in range(32)
            )
        ),
        id="as many amounts as the bounds allow, within the budget of the rules",
    ),
    pytest.param(
        runtime(
            lifecycle={"preStop": {"exec": {"command": ["true"]}}, "postStart": {"sleep": {"seconds": 1}}},
            readinessProbe={"httpGet": {"port": "http", "path": "/health"}, "periodSeconds": 5},
            startupProbe={"grpc": {"port": 8080}},
            livenessProbe={"tcpSocket": {"port": 8080}},
        ),
        id="probes and hooks of every form",
    ),
]

P2PTASKS = [
    pytest.param(task(), id="a model"),
    pytest.param(task(image=image()), id="an image"),
    pytest.param(
        task(image=image(platforms=["linux/amd64", "linux/arm/v7"], pullSecrets=[{"name": "regcred"}])),
        id="an image with platforms and pull secrets",
    ),
    pytest.param(task(placement={"copies": "All"}), id="a copy on all nodes"),
    pytest.param(task(placement={"copies": 3, "minReady": 3}), id="Ready when all three copies are there"),
    pytest.param(task(placement={"copies": "All", "minReady": 7}), id="all nodes, Ready with seven"),
    pytest.param(task(credentialsSecretRef={"name": "modelhub-secret"}), id="credentials"),
    pytest.param(task(name="t" * 63), id="a name of 63 characters"),
    pytest.param(
        task(backoffLimit=0, activeDeadlineSeconds=1, ttlSecondsAfterFinished=0, pin=True, suspend=True),
        id="every limit at its smallest",
    ),
]

ACCEPTED = [*OPENMODELS, *PLAYGROUNDS, *BACKENDRUNTIMES, *P2PTASKS]
