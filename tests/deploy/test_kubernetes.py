"""The Kubernetes manifests: valid for the API, and in agreement with each other and with the server's settings."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from bidtrie.settings import Settings, load_settings
from deploy.dockerfile import final_stages, read_dockerfile

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
DEFAULTS = Settings()
#: `bidtrie serve` waits this long for the last responses to leave, and some seconds for its threads.
AFTER_DRAIN_SECONDS = 5

Manifest = dict[str, Any]


def load(name: str) -> Manifest:
    manifest: Manifest = yaml.safe_load((FOLDER / name).read_text())
    return manifest


KUSTOMIZATION = load("kustomization.yaml")
RESOURCES: dict[str, Manifest] = {name: load(name) for name in KUSTOMIZATION["resources"]}
DEPLOYMENT = RESOURCES["deployment.yaml"]
POD = DEPLOYMENT["spec"]["template"]
SERVICE = RESOURCES["service.yaml"]
METRICS_SERVICE = RESOURCES["metrics_service.yaml"]


def validate(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def container(pod: Manifest = POD) -> Manifest:
    (only,) = pod["spec"]["containers"]
    found: Manifest = only
    return found


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_manifests_are_valid(name: str) -> None:
    validate(RESOURCES[name])


def _misspell(manifest: Manifest) -> None:
    container(manifest["spec"]["template"])["readinesProbe"] = {}


def _text_for_a_number(manifest: Manifest) -> None:
    manifest["spec"]["replicas"] = "three"


def _no_selector(manifest: Manifest) -> None:
    del manifest["spec"]["selector"]


@pytest.mark.parametrize("damage", [_misspell, _text_for_a_number, _no_selector])
def test_a_broken_manifest_is_refused(damage: Callable[[Manifest], None]) -> None:
    broken = deepcopy(DEPLOYMENT)
    damage(broken)
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(broken)


def test_kustomization_names_every_file_of_the_folder() -> None:
    named = {"kustomization.yaml", *KUSTOMIZATION["resources"]}
    for generator in KUSTOMIZATION["configMapGenerator"]:
        named |= set(generator["files"])
    assert named == {path.name for path in FOLDER.iterdir()}
    (image,) = KUSTOMIZATION["images"]
    assert container()["image"] == image["name"]


def settings() -> Settings:
    return load_settings(FOLDER / "bidtrie.toml", environment={})


def test_the_settings_file_is_mounted_where_the_server_reads_it() -> None:
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    (volume,) = (each for each in POD["spec"]["volumes"] if "configMap" in each)
    assert volume["configMap"]["name"] == generator["name"]
    (mount,) = (each for each in container()["volumeMounts"] if each["name"] == volume["name"])
    (file,) = generator["files"]
    assert container()["args"] == ["serve", "--config", f"{mount['mountPath']}/{file}"]
    assert settings().catalogs == ("iab-content",)


def test_the_arguments_and_paths_are_those_of_the_image() -> None:
    for stage in final_stages(read_dockerfile(ROOT / "Dockerfile")):
        assert stage.json_argument("ENTRYPOINT") == ["bidtrie"]
        # The manifests are of the image for CPUs; that for GPUs names its engine behind the same arguments.
        arguments = container()["args"] + (["--engine", "vllm"] if stage.name == "gpu" else [])
        assert stage.json_argument("CMD") == arguments
        home = stage.environment()["BIDTRIE_HOME"]
        assert [each["mountPath"] for each in container()["volumeMounts"]][1] == f"{home}/costs"
        user, group = stage.argument("USER").split(":")
        assert POD["spec"]["securityContext"]["runAsUser"] == int(user)
        assert POD["spec"]["securityContext"]["runAsGroup"] == int(group)


def test_ports_are_those_of_the_settings() -> None:
    ports = {each["name"]: each["containerPort"] for each in container()["ports"]}
    assert ports == {"grpc": settings().grpc_port, "http": settings().http_port}
    assert ports == {"grpc": DEFAULTS.grpc_port, "http": DEFAULTS.http_port}
    for service, name in ((SERVICE, "grpc"), (METRICS_SERVICE, "http")):
        (port,) = service["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (ports[name], name)


def test_selectors_match_the_pods_labels() -> None:
    labels = POD["metadata"]["labels"].items()
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        SERVICE["spec"]["selector"],
        METRICS_SERVICE["spec"]["selector"],
        RESOURCES["pod_disruption_budget.yaml"]["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in POD["spec"]["topologySpreadConstraints"]),
    ]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


@pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_the_health_service_on_the_grpc_port(kind: str) -> None:
    from bidtrie.v1 import targeting_pb2

    probe = container()[kind]["grpc"]
    assert probe["port"] in {each["containerPort"] for each in container()["ports"] if each["name"] == "grpc"}
    known = {service.full_name for service in targeting_pb2.DESCRIPTOR.services_by_name.values()}
    assert probe.get("service", "") in {"", *known}


def test_the_grace_period_covers_endpoint_removal_and_drain() -> None:
    removal = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert removal > 0
    assert POD["spec"]["terminationGracePeriodSeconds"] >= (
        removal + settings().drain_seconds + AFTER_DRAIN_SECONDS
    )


def test_a_rollout_never_lowers_capacity() -> None:
    strategy = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    assert strategy["maxSurge"] >= 1
    assert DEPLOYMENT["spec"]["replicas"] > RESOURCES["pod_disruption_budget.yaml"]["spec"]["maxUnavailable"]


def test_the_pod_passes_the_restricted_standard_and_writes_to_one_folder() -> None:
    pod = POD["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    (writable,) = (each for each in pod["volumes"] if "emptyDir" in each)
    assert [each["name"] for each in container()["volumeMounts"] if not each.get("readOnly")] == [
        writable["name"]
    ]


def test_threads_are_the_requested_cores() -> None:
    resources = container()["resources"]
    assert settings().threads == int(resources["requests"]["cpu"])
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_service_variables_cannot_reach_the_servers_settings() -> None:
    assert POD["spec"]["enableServiceLinks"] is False


def test_clients_see_every_ready_pod_and_prometheus_every_pod() -> None:
    assert SERVICE["spec"]["clusterIP"] == METRICS_SERVICE["spec"]["clusterIP"] == "None"
    assert not SERVICE["spec"].get("publishNotReadyAddresses", False)
    assert METRICS_SERVICE["spec"]["publishNotReadyAddresses"] is True


def test_prometheus_looks_for_the_service_that_there_is() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    (name,) = discovery["names"]
    assert name.split(".")[0] == METRICS_SERVICE["metadata"]["name"]
    assert discovery["port"] == METRICS_SERVICE["spec"]["ports"][0]["port"]
