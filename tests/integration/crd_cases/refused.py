"""What the API server must refuse, and words of the answer: the field, then llmaz's own message where it has one."""

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

LABEL = "metadata.name must be a DNS-1123 label"
ADDRESS = "spec.source.uri: .*URI with wrong address"

OPENMODELS = [
    pytest.param(openmodel(name="qwen-2-0.5b"), LABEL, id="a name with a dot"),
    pytest.param(uri("unknown://bucket/path"), "spec.source.uri: .*URI with unsupported protocol", id="unknown://"),
    pytest.param(uri("oss://endpoint/models/meta-llama-3-8B"), ADDRESS, id="an OSS URI without a bucket"),
    pytest.param(hub(name="unknown"), "spec.source.modelHub.name: Unsupported value", id="an unknown hub"),
    pytest.param(openmodel({}), "spec.source: Forbidden: Source can't be all null", id="a source without anything"),
    pytest.param(hub(filename="a", allowPatterns=["*"]), "modelHub.filename: .*allowPatterns", id="filename, allow"),
    pytest.param(hub(filename="a", ignorePatterns=["*"]), "modelHub.filename: .*ignorePatterns", id="filename, ignore"),
    pytest.param(
        hub(name="ModelScope", filename="a"),
        "modelHub.filename: .*Filename can only set once modelHub is Huggingface",
        id="filename with ModelScope",
    ),
    pytest.param(openmodel({"modelHub": {}}), "modelHub.modelID: Required value", id="a hub without a model"),
    pytest.param(hub(modelID=""), "modelHub.modelID: Required value", id="a hub with an empty model id"),
    pytest.param(openmodel({**HUB, "uri": "hf://a/b"}), "unsupported protocol", id="a wrong uri next to a hub"),
    pytest.param(uri("bucket/path"), "URI with wrong format", id="a URI without a protocol"),
    pytest.param(uri("s3://bucket/s3://bucket"), "URI with wrong format", id="a URI with two protocols"),
    pytest.param(uri(""), "URI with wrong format", id="an empty URI"),
    pytest.param(uri("gs://bucket/path"), "use oss, s3, gcs, ollama or host", id="gs:// (it is gcs://)"),
    pytest.param(uri("https://example.com/model"), "unsupported protocol", id="https://"),
    pytest.param(uri("oss://bucket.endpoint"), ADDRESS, id="an OSS URI without a path"),
    pytest.param(uri("s3://bucket"), ADDRESS, id="an S3 URI without a path"),
    pytest.param(uri("gcs:///path"), ADDRESS, id="a GCS URI without a bucket"),
    pytest.param(uri("ollama://"), ADDRESS, id="an Ollama URI without a model"),
    pytest.param(uri("s3://bucket/" + "x" * 2048), "spec.source.uri: Too long", id="a URI of over 2,048 characters"),
    pytest.param(openmodel(name="m" * 64), LABEL, id="a name of 64 characters"),
    pytest.param(openmodel(familyName="two words"), "familyName must be the value of a label", id="a family no label"),
    pytest.param(openmodel(familyName=None), "spec.familyName: Required value", id="no family name"),
    pytest.param(
        openmodel(inferenceConfig={"flavors": [{"name": f"f{n}"} for n in range(9)]}), "Too many: 9", id="nine flavors"
    ),
    pytest.param(
        openmodel(inferenceConfig={"flavors": [{"name": "a", "limits": {"gpu": "one"}}]}),
        r"limits.gpu: Invalid value",
        id="a limit that is no amount",
    ),
]

PLAYGROUNDS = [
    pytest.param(playground(name="playground-0.5b"), LABEL, id="a name with a dot"),
    pytest.param(
        configured(resources=resources({"cpu": 1}, {"cpu": 4})),
        "spec.backendRuntimeConfig.resources: Forbidden: limits must be greater than or equal to requests",
        id="a limit below its request",
    ),
    pytest.param(
        configured(resources=resources({"memory": "1Gi"}, {"memory": "1025Mi"})), "limits must be", id="other units"
    ),
    pytest.param(playground(modelClaim=None), "modelClaim and modelClaims couldn't be both nil", id="no claim"),
    pytest.param(
        playground(modelClaim={"modelName": "a"}, modelClaims={"models": [{"name": "a"}]}),
        "modelClaim and modelClaims couldn't be both not nil",
        id="both claims",
    ),
    pytest.param(
        models("main", "draft", "draft"),
        "only two models are allowed in speculativeDecoding mode",
        id="three models for speculative decoding",
    ),
    pytest.param(models("draft"), "main model is required", id="a single draft"),
    pytest.param(
        elastic(maxReplicas=3, scaleTrigger={}), "scaleTrigger: Forbidden: hpa couldn't be nil", id="a trigger of none"
    ),
    pytest.param(
        elastic(minReplicas=0, maxReplicas=3), "minReplicas: Forbidden: minReplicas couldn't be 0", id="minimum 0"
    ),
    pytest.param(
        elastic(minReplicas=4, maxReplicas=3), "minReplicas must be less than maxReplicas", id="minimum over maximum"
    ),
    pytest.param(
        elastic(minReplicas=3, maxReplicas=3), "minReplicas must be less than maxReplicas", id="minimum equals maximum"
    ),
    pytest.param(elastic(maxReplicas=1), "minReplicas must be less than", id="maximum 1 with the default minimum"),
    pytest.param(elastic(minReplicas=1), "elasticConfig.maxReplicas: Required value", id="no maximum"),
    pytest.param(models("main", "main"), "only one main model is allowed", id="two main models"),
    pytest.param(models(None, None), "only one main model is allowed", id="two models without roles"),
    pytest.param(models("draft", "draft"), "main model is required", id="two drafts"),
    pytest.param(models("main", "lora"), r"role: Unsupported value", id="a role that does not exist"),
    pytest.param(models(), "modelClaims.models.* should have at least 1 items", id="an empty list of models"),
    pytest.param(playground(modelClaims={}), "must name at least one model", id="claims without models"),
    pytest.param(playground(modelClaim={}), "modelClaim.modelName: Required value", id="a claim without a model"),
    pytest.param(playground(replicas=-1), "spec.replicas: Invalid value", id="fewer replicas than none"),
    pytest.param(configured(envs=[{"value": "x"}]), r"envs\[0\].name: Required value", id="a variable without a name"),
    pytest.param(configured(envs=[{"name": "A", "value": 1}]), r"envs\[0\].value", id="a variable that is a number"),
    pytest.param(configured(sharedMemorySize="much"), "sharedMemorySize: Invalid value", id="memory of no amount"),
    pytest.param(
        elastic(maxReplicas=2, scaleTrigger={"hpa": {"metrics": [{"resource": {"name": "cpu"}}]}}),
        r"metrics\[0\].type: Required value",
        id="a metric without a type",
    ),
]

BACKENDRUNTIMES = [
    pytest.param(
        runtime({"name": "default", "resources": resources({"cpu": 1}, {"cpu": 4})}),
        r"recommendedConfigs\[0\].resources: Forbidden: limits must be greater than or equal to requests",
        id="a limit below its request",
    ),
    pytest.param(
        runtime({"name": "default"}, {"name": "default"}),
        r"recommendedConfigs\[1\]: Duplicate value",
        id="two configurations of one name",
    ),
    pytest.param(runtime({"args": []}), r"recommendedConfigs\[0\].name: Required value", id="a configuration unnamed"),
    pytest.param(runtime(image=None), "spec.image: Required value", id="no image"),
    pytest.param(runtime(version=None), "spec.version: Required value", id="no version"),
    pytest.param(
        runtime(readinessProbe={"httpGet": {"port": 8080}, "periodSeconds": "often"}),
        "readinessProbe.periodSeconds: Invalid value",
        id="a probe whose period is a word",
    ),
    pytest.param(
        runtime(livenessProbe={"httpGet": {"path": "/health"}}),
        "livenessProbe.httpGet.port: Required value",
        id="a probe without a port",
    ),
    pytest.param(runtime(startupProbe={"httpGet": {"port": True}}), "httpGet.port", id="a probe whose port is true"),
    pytest.param(
        runtime(lifecycle={"preStop": {"exec": {"command": "sleep 5"}}}),
        "preStop.exec.command: Invalid value",
        id="a hook whose command is a string",
    ),
]

P2PTASKS = [
    pytest.param(task(model=None), "spec: Invalid value: set exactly one of model and image", id="nothing"),
    pytest.param(task(model={"source": HUB}, image=image()), "set exactly one of model and image", id="both"),
    pytest.param(task(model={"source": {}}), "Source can't be all null", id="a source without anything"),
    pytest.param(task(model={"source": {"uri": "hf://a/b"}}), "unsupported protocol", id="an unsupported protocol"),
    pytest.param(task(image=image("")), "image.reference: Invalid value", id="an empty image reference"),
    pytest.param(task(image=image(platforms=["amd64"])), r"platforms\[0\]: Invalid value", id="a platform without OS"),
    pytest.param(task(image=image(pullSecrets=[{}])), r"pullSecrets\[0\].name: Required value", id="a secret unnamed"),
    pytest.param(task(placement={"copies": 0}), "copies must be a number of nodes", id="no copies"),
    pytest.param(task(placement={"copies": "Some"}), "copies must be a number of nodes", id="some copies"),
    pytest.param(task(placement={"copies": True}), "placement.copies", id="copies that are true"),
    pytest.param(task(placement={"copies": 1.5}), "placement.copies", id="one and a half copies"),
    pytest.param(
        task(placement={"copies": 2, "minReady": 3}),
        "placement.minReady: .*minReady must not be greater than copies",
        id="Ready with more nodes than copies",
    ),
    pytest.param(task(placement={"minReady": 3}), "must not be greater than copies", id="the same with default copies"),
    pytest.param(task(placement={"minReady": 0}), "placement.minReady: Invalid value", id="Ready with no node"),
    pytest.param(task(engine="Torrent"), "spec.engine: Unsupported value", id="an engine that does not exist"),
    pytest.param(task(fallback="Maybe"), "spec.fallback: Unsupported value", id="a fallback that does not exist"),
    pytest.param(task(backoffLimit=-1), "spec.backoffLimit: Invalid value", id="a negative back-off limit"),
    pytest.param(task(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds: Invalid value", id="a deadline of 0 s"),
    pytest.param(task(name="t" * 64), "metadata.name must have at most 63 characters", id="a name of 64 characters"),
]

REFUSED = [*OPENMODELS, *PLAYGROUNDS, *BACKENDRUNTIMES, *P2PTASKS]
