"""The Kubernetes manifests."""

import copy

import kubernetes_validate
import pytest
from cloudcoil.models import prometheus_operator

from conftest import OVERLAYS, ROOT, SERVICES, accepted, kustomize, load, seconds, size

# The oldest and the newest API that they are for.
VERSIONS = ["1.30", "1.37"]
POD = "app.kubernetes.io/name"


def of_kind(resources, *kinds):
    return [resource for resource in resources if resource["kind"] in kinds]


def workloads(resources):
    return of_kind(resources, "Deployment", "StatefulSet")


def pod(workload):
    return workload["spec"]["template"]


def name_of(workload):
    return workload["metadata"]["name"]


def ours(resources):
    return {name_of(workload): workload for workload in workloads(resources) if name_of(workload) in SERVICES}


def command(workload, resources):
    """The command line of the first container, variables put in as the kubelet does."""
    container = pod(workload)["spec"]["containers"][0]
    variables = {"POD_NAME": f"{name_of(workload)}-0"}
    maps = {resource["metadata"]["name"]: resource.get("data", {}) for resource in of_kind(resources, "ConfigMap")}
    for source in container.get("envFrom", []):
        variables |= maps[source["configMapRef"]["name"]]
    words = container["command"] + container["args"]
    for variable, value in variables.items():
        words = [word.replace(f"$({variable})", value) for word in words]
    assert not any("$(" in word for word in words), words
    return words


def matches(selector, labels):
    wanted = selector.get("matchLabels", {})
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_resource_is_valid_for_its_api(overlays, overlay):
    assert len(overlays[overlay]) > 15
    for resource in overlays[overlay]:
        if resource["apiVersion"].startswith("monitoring.coreos.com/"):
            model = getattr(prometheus_operator.v1, resource["kind"])
            read = model.model_validate(resource).model_dump(by_alias=True, exclude_unset=True, mode="json")
            assert read == resource, "a key that the resource does not have"
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(copy.deepcopy(resource), version, strict=True)


def test_the_validators_refuse_what_is_wrong(overlays):
    wrong = copy.deepcopy(of_kind(overlays["dev"], "StatefulSet")[0])
    wrong["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)
    wrong = copy.deepcopy(of_kind(overlays["production"], "PodMonitor")[0])
    wrong["spec"]["podMetricsEndpoints"][0]["intervall"] = "1s"
    read = prometheus_operator.v1.PodMonitor.model_validate(wrong)
    assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") != wrong


def violations(template):
    """What the rules of the house forbid in a pod."""
    spec, found = template["spec"], []
    rule = lambda broken, text: found.append(text) if broken else None
    rule(spec.get("automountServiceAccountToken") is not False, "token mounted")
    rule(any(spec.get(key) for key in ["hostNetwork", "hostPID", "hostIPC"]), "namespace of the host")
    rule(any("hostPath" in volume for volume in spec.get("volumes", [])), "path of the host")
    rule(spec.get("securityContext", {}).get("runAsNonRoot") is not True, "root")
    rule(spec.get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}, "no seccomp")
    for container in spec["containers"] + spec.get("initContainers", []):
        security, resources = container.get("securityContext", {}), container.get("resources", {})
        rule(security.get("privileged"), "privileged")
        rule(security.get("allowPrivilegeEscalation") is not False, "escalation")
        rule(security.get("capabilities") != {"drop": ["ALL"]}, "capabilities")
        rule(security.get("readOnlyRootFilesystem") is not True, "writable root")
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        rule(tag in ["", "latest"], "no fixed tag")
        rule(not {"cpu", "memory"} <= resources.get("requests", {}).keys(), "no requests")
        rule("memory" not in resources.get("limits", {}), "no limit")
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_pod_keeps_the_rules(overlays, overlay):
    for workload in workloads(overlays[overlay]):
        # Kafka's image writes its configuration into itself.
        allowed = ["writable root"] if name_of(workload) == "kafka" else []
        assert violations(pod(workload)) == allowed, name_of(workload)


def test_the_rules_find_what_they_forbid():
    bare = {"spec": {"hostNetwork": True, "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
                     "containers": [{"image": "registry:5000/x", "securityContext": {"privileged": True}}]}}
    assert sorted(violations(bare)) == sorted([
        "token mounted", "namespace of the host", "path of the host", "root", "no seccomp", "privileged", "escalation",
        "capabilities", "writable root", "no fixed tag", "no requests", "no limit"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_programs_take_the_flags_and_their_ports_are_those_of_the_manifests(overlays, overlay):
    resources = overlays[overlay]
    assert sorted(ours(resources)) == sorted(SERVICES)
    for name, workload in ours(resources).items():
        spec = pod(workload)["spec"]
        container = spec["containers"][0]
        config = accepted(command(workload, resources), ROOT / "docs/jobs/clicks.yaml")
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert config["metrics"] == f"0.0.0.0:{ports['metrics']}"
        if name != "ingest":
            assert config["listen"] == f"0.0.0.0:{ports['grpc']}"
        if name != "watermark-coordinator":
            coordinator = ours(resources)["watermark-coordinator"]
            service = coordinator["spec"]["serviceName"]
            stable = [f"{service}-{number}.{service}:7400" for number in range(coordinator["spec"]["replicas"])]
            assert config["coordinator"] == stable
        if name == "window-worker":
            assert config["name"] == f"{name}-0"
            assert config["advertise"] == f"{name}-0.{workload['spec']['serviceName']}:{ports['grpc']}"
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert config["state"] == mounts["state"]
        assert spec["terminationGracePeriodSeconds"] >= seconds(config["drain"]) + 5, "killed while it drains"
    if clicks := [workload for workload in workloads(resources) if name_of(workload) == "clicks"]:
        accepted(command(clicks[0], resources), None)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_they_are_for(overlays, overlay):
    for workload in ours(overlays[overlay]).values():
        container = pod(workload)["spec"]["containers"][0]
        paths = {probe: container[probe]["httpGet"] for probe in ["startupProbe", "livenessProbe", "readinessProbe"]}
        assert paths == {"startupProbe": {"path": "/healthz", "port": "metrics"},
                         "livenessProbe": {"path": "/healthz", "port": "metrics"},
                         "readinessProbe": {"path": "/readyz", "port": "metrics"}}
        assert workload["spec"]["minReadySeconds"] >= 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_select_the_pods_they_mean(overlays, overlay):
    resources = overlays[overlay]
    pods = {name_of(workload): pod(workload)["metadata"]["labels"] for workload in workloads(resources)}
    chosen = lambda selector: [name for name, labels in pods.items() if matches(selector, labels)]
    for budget in of_kind(resources, "PodDisruptionBudget"):
        assert chosen(budget["spec"]["selector"]) == [name_of(budget)]
    assert {name_of(budget) for budget in of_kind(resources, "PodDisruptionBudget")} == set(SERVICES)
    for service in of_kind(resources, "Service"):
        assert chosen({"matchLabels": service["spec"]["selector"]}) == [name_of(service)]
    for monitor in of_kind(resources, "PodMonitor"):
        assert sorted(chosen(monitor["spec"]["selector"])) == sorted(SERVICES)
        assert "tidegate" in name_of(monitor), "TidegateProcessDown looks for scrape jobs of this name"
    for name, workload in ours(resources).items():
        assert chosen(workload["spec"]["selector"]) == [name]
        for spread in pod(workload)["spec"]["topologySpreadConstraints"]:
            assert chosen(spread["labelSelector"]) == [name]


def test_in_production_secrets_are_files_of_secrets_and_what_is_spoken_is_encrypted(overlays):
    resources = overlays["production"]
    assert not of_kind(resources, "Secret"), "a secret in the manifests is none"
    for workload in ours(resources).values():
        spec = pod(workload)["spec"]
        config = accepted(command(workload, resources), ROOT / "docs/jobs/clicks.yaml")
        mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
        files = {key: config[key] for key in ["tls_cert", "tls_key", "tls_ca", "kafka_tls_ca", "kafka_sasl_password_file"]}
        for key, path in files.items():
            folder, _, _ = path.rpartition("/")
            wanted = "tidegate-kafka" if key.startswith("kafka") else "tidegate-tls"
            assert secrets[mounts[folder]] == wanted, key
        assert (config["kafka_security_protocol"], config["kafka_sasl_username"]) == ("sasl_ssl", "tidegate")
    assert not any("appProtocol" in port for service in of_kind(resources, "Service") for port in service["spec"]["ports"])


def flows(resources):
    """(from, to, port) for every connection between pods that the network policies let through."""
    policies = of_kind(resources, "NetworkPolicy")
    pods = {name_of(workload): pod(workload) for workload in workloads(resources)}

    def rules(name, direction):
        """The rules for a pod; None where no policy selects it, and all is allowed."""
        labels, kind = pods[name]["metadata"]["labels"], direction.capitalize()
        chosen = [policy["spec"] for policy in policies
                  if matches(policy["spec"]["podSelector"], labels) and kind in policy["spec"]["policyTypes"]]
        return [rule for spec in chosen for rule in spec.get(direction, [])] if chosen else None

    def lets(rule, peer, side, port):
        number, name = port
        if not any(entry["port"] in (number, name) for entry in rule["ports"]):
            return False
        peers = rule.get(side)
        # Peers in other namespaces are not these pods.
        return peers is None or any("namespaceSelector" not in entry
                                    and matches(entry["podSelector"], pods[peer]["metadata"]["labels"]) for entry in peers)

    found = set()
    for target in pods:
        for port in pods[target]["spec"]["containers"][0].get("ports", []):
            port = (port["containerPort"], port["name"])
            for source in pods:
                out, into = rules(source, "egress"), rules(target, "ingress")
                if (out is None or any(lets(rule, target, "to", port) for rule in out)) and \
                        (into is None or any(lets(rule, source, "from", port) for rule in into)):
                    found.add((source, target, port[0]))
    return found


def test_the_network_lets_through_the_flows_that_exist_and_no_others(overlays):
    assert flows(overlays["production"]) == {
        ("ingest", "watermark-coordinator", 7400),
        ("window-worker", "watermark-coordinator", 7400),
        ("watermark-coordinator", "watermark-coordinator", 7400),
        ("ingest", "window-worker", 7500),
        ("watermark-coordinator", "window-worker", 7500),
    }
    to_kafka = {source for source, target, _ in flows(overlays["dev"]) if target == "kafka"}
    assert {*SERVICES, "clicks"} <= to_kafka


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_reference_is_there(overlays, overlay):
    resources = overlays[overlay]
    maps = {name_of(resource) for resource in of_kind(resources, "ConfigMap")}
    for workload in workloads(resources):
        spec = pod(workload)["spec"]
        volumes = spec.get("volumes", []) + [{"name": claim["metadata"]["name"]}
                                             for claim in workload["spec"].get("volumeClaimTemplates", [])]
        for volume in volumes:
            assert volume.get("configMap", {"name": None})["name"] in maps | {None}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} == {volume["name"] for volume in volumes}
    services = {name_of(service) for service in of_kind(resources, "Service")}
    for workload in of_kind(resources, "StatefulSet"):
        assert workload["spec"]["serviceName"] in services
    for scaler in of_kind(resources, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        [workload] = [w for w in workloads(resources) if (w["kind"], name_of(w)) == (target["kind"], target["name"])]
        assert "replicas" not in workload["spec"], "each apply would undo the autoscaler"


def test_autoscaling_asks_for_figures_that_are_there_and_goes_no_further_than_helps(overlays):
    adapter = load("k8s/components/autoscaling/prometheus-adapter.yaml")["rules"]["external"]
    offered = {rule["name"]["as"]: rule["seriesQuery"] for rule in adapter}
    groups = load("monitoring/alerts.yaml")["groups"]
    recorded = {rule.get("record") for group in groups for rule in group["rules"]}
    for query in offered.values():
        assert query.removeprefix('{__name__="').removesuffix('"}') in recorded, query
    job = load("k8s/overlays/production/job.yaml")
    most = {"window-worker": job["state"]["shards"], "ingest": job["source"]["partitions"]}
    scalers = of_kind(overlays["production"], "HorizontalPodAutoscaler")
    assert {name_of(scaler) for scaler in scalers} == set(most)
    for scaler in scalers:
        assert scaler["spec"]["maxReplicas"] <= most[name_of(scaler)]
        for metric in scaler["spec"]["metrics"]:
            assert metric["external"]["metric"]["name"] in offered
            assert metric["external"]["metric"]["selector"]["matchLabels"] == {"tidegate_job": job["name"]}


@pytest.mark.parametrize("folder", ["k8s/base", "k8s/overlays/production"])
def test_the_job_files_are_the_documented_one(folder):
    assert (ROOT / folder / "job.yaml").read_text() == (ROOT / "docs/jobs/clicks.yaml").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_has_room_for_its_state_and_half_as_much(overlays, overlay):
    limit = pod(ours(overlays[overlay])["window-worker"])["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert size(limit) >= 1.5 * size(load("k8s/base/job.yaml")["state"]["memory"])


def test_tracing_reaches_the_services_through_the_network(tmp_path):
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [{relative(tmp_path, 'k8s/base')}]\ncomponents: [{relative(tmp_path, 'k8s/components/tracing')}]\n")
    resources = kustomize(tmp_path)
    for name, workload in ours(resources).items():
        config = accepted(command(workload, resources), ROOT / "docs/jobs/clicks.yaml")
        collector = None if name == "watermark-coordinator" else "http://otel-collector.observability:4317"
        assert config.get("otlp") == collector
    for resource in resources:
        kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)


def relative(start, path):
    return "../" * (len(start.parts) - 1) + str(ROOT / path).lstrip("/")
