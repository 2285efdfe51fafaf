"""docker/compose.yaml, resolved as `docker compose config` does, and what it mounts."""

import pathlib
import re

from conftest import ROOT, accepted, composed, load, run, seconds

TIDEGATE = {"coordinator-0", "coordinator-1", "ingest-0", "ingest-1", "worker-0", "worker-1", "worker-2"}
AROUND = {"kafka", "clicks", "otel-collector", "jaeger", "prometheus", "grafana"}


def job(compose):
    return compose["configs"]["job"]["file"]


def test_the_topology_is_whole(compose):
    assert set(compose["services"]) == TIDEGATE | AROUND
    for name in TIDEGATE | {"clicks"}:
        assert compose["services"][name]["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_whichever_coordinator_leads_can_be_asked_from_outside(compose):
    published = [compose["services"][f"coordinator-{number}"]["ports"] for number in range(2)]
    assert [(port["host_ip"], port["published"], port["target"]) for [port] in published] == [
        ("127.0.0.1", "7400", 7400),
        ("127.0.0.1", "7401", 7400),
    ]


def test_each_service_is_held_within_bounds(compose):
    for name, service in compose["services"].items():
        tag = service["image"].rpartition("/")[2].partition(":")[2]
        assert tag not in ["", "latest"], f"{name} has no fixed tag"
        assert service.get("mem_limit"), f"{name} may take all memory"
        assert not service.get("privileged") and "cap_add" not in service and "pid" not in service, name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", f"{name} is open to the network"
        if name != "kafka":
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
        if name in TIDEGATE | {"clicks", "prometheus", "otel-collector", "jaeger"}:
            assert service["read_only"] is True, name


def test_what_is_mounted_is_there(compose):
    for name, config in compose["configs"].items():
        assert pathlib.Path(config["file"]).is_file(), name
    for service in compose["services"].values():
        for mount in service.get("configs", None) or []:
            assert mount["source"] in compose["configs"]
    volumes = [compose["services"][name]["volumes"][0]["source"] for name in ["worker-0", "worker-1", "worker-2"]]
    assert len(set(volumes)) == 3, "each worker needs a store of its own"


def test_the_programs_take_the_flags_and_find_each_other(compose):
    listening = {}
    for name in TIDEGATE:
        service = compose["services"][name]
        config = accepted(service["command"], job(compose))
        assert config["metrics"] == "0.0.0.0:9100", "the image's health check asks there"
        assert config["kafka"] == "kafka:9092"
        assert config.get("otlp") == (None if name.startswith("coordinator") else "http://otel-collector:4317")
        assert seconds(service["stop_grace_period"]) >= seconds(config["drain"]) + 5, "killed while it drains"
        if "listen" in config:
            listening[name] = config["listen"].rpartition(":")[2]
        if name.startswith("worker"):
            assert (config["name"], config["advertise"]) == (name, f"{name}:{listening[name]}")
    coordinators = [f"{name}:{listening[name]}" for name in sorted(listening) if name.startswith("coordinator")]
    for name in TIDEGATE:
        if not name.startswith("coordinator"):
            assert accepted(compose["services"][name]["command"], job(compose))["coordinator"] == coordinators
    accepted(compose["services"]["clicks"]["command"], None)


def test_prometheus_scrapes_every_process(compose):
    run("promtool", "check", "config", "--syntax-only", ROOT / "docker/prometheus.yaml")
    config = load("docker/prometheus.yaml")
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    ours = {target for name, targets in jobs.items() if "tidegate" in name for target in targets}
    assert ours == {f"{name}:9100" for name in TIDEGATE}
    mounted = {mount["target"] for mount in compose["services"]["prometheus"]["configs"]}
    assert set(config["rule_files"]) < mounted
    assert f"--config.file={(mounted - set(config['rule_files'])).pop()}" in compose["services"]["prometheus"]["command"]


def test_grafana_finds_its_data_and_its_dashboard(compose):
    mounted = {mount["target"] for mount in compose["services"]["grafana"]["configs"]}
    [folder] = [provider["options"]["path"] for provider in load("docker/grafana/dashboards/tidegate.yaml")["providers"]]
    assert any(target.startswith(folder + "/") for target in mounted)
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounted
    for source in load("docker/grafana/datasources/tidegate.yaml")["datasources"]:
        assert source["url"].removeprefix("http://").partition(":")[0] in compose["services"]


def test_the_collector_hands_on_what_it_takes(compose):
    config = load("docker/otel-collector.yaml")
    [traces] = config["service"]["pipelines"].values()
    for kind in ["receivers", "processors", "exporters"]:
        assert traces[kind] and set(traces[kind]) == set(config[kind])
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317")
    assert config["exporters"]["otlp/jaeger"]["endpoint"].partition(":")[0] in compose["services"]


def test_with_tls_everybody_has_what_the_certificates_and_the_password_need(compose, tmp_path):
    secured = composed("compose.yaml", "compose.tls.yaml")
    assert set(secured["services"]) == set(compose["services"])
    run(ROOT / "docker/certificates.sh", tmp_path)
    assert tmp_path.stat().st_mode & 0o077 == 0, "others on the machine can read the keys"
    files = {pathlib.Path(secret["file"]).name for secret in secured["secrets"].values()}
    assert all((tmp_path / name).is_file() for name in files | {"kafka.env"})
    for name in TIDEGATE | {"clicks"}:
        service = secured["services"][name]
        mounted = {f"/run/secrets/{secret['source']}" for secret in service["secrets"]}
        assert set(service["environment"].values()) <= mounted, name
        assert service["command"] == compose["services"][name]["command"]
    config = accepted(compose["services"]["worker-0"]["command"], job(compose), secured["services"]["worker-0"]["environment"])
    assert config["tls_cert"] == "/run/secrets/services.crt" and config["kafka_config"] == "/run/secrets/kafka.properties"
    assert "/run/secrets/kafka-ca.crt" in (tmp_path / "kafka.properties").read_text()

    for name, hosts in [("services", TIDEGATE - {"ingest-0", "ingest-1"}), ("kafka", {"kafka"})]:
        run("openssl", "verify", "-CAfile", tmp_path / f"{name}-ca.crt", tmp_path / f"{name}.crt")
        for host in hosts | {"localhost"}:
            said = run("openssl", "x509", "-in", tmp_path / f"{name}.crt", "-noout", "-checkhost", host)
            assert "does match" in said, f"{name}.crt is not for {host}"
    broker = dict(line.split("=", 1) for line in secured["services"]["kafka"]["environment"])
    assert broker["KAFKA_ADVERTISED_LISTENERS"].startswith("SECURE://kafka:9092,")
    assert "SECURE:SASL_SSL,OUTSIDE:SASL_SSL" in broker["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
    [password] = re.findall(r"^sasl.password=(.+)$", (tmp_path / "kafka.properties").read_text(), re.MULTILINE)
    assert (tmp_path / "kafka.env").read_text().count(f'user_tidegate="{password}"') == 2
