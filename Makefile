# The names that people and CI call. `make demo` and `make test` are all a newcomer needs.
SHELL := bash
SEEDS ?= 4000
EVENTS ?= 2000000
DURATION ?= 60s
SECONDS_EACH ?= 60
PROFILE := debug

.PHONY: demo test unit sim conformance e2e chaos bench fuzz lint fmt deny secrets image certificates deployment rules setup

demo: setup ## the clicks stream on an embedded broker; Ctrl-C stops
	cargo build --workspace --bins
	target/$(PROFILE)/tidegate dev

test: setup ## unit, property, simulation, conformance, end to end on both brokers
	cargo build --workspace --bins
	SEEDS=$(SEEDS) cargo test --workspace --no-fail-fast

unit: setup
	cargo test --workspace --lib --bins

sim: setup ## make sim SEEDS=10000, or SEED=17 to replay one
	SEEDS=$(SEEDS) SEED=$(SEED) cargo test -p tidegate-tests --test sim -- --nocapture

conformance: setup
	cargo test -p tidegate-tests --test conformance

e2e: setup
	cargo build --workspace --bins
	cargo test -p tidegate-tests --test e2e -- --nocapture

chaos: setup ## processes on Apache Kafka under faults of processes, broker and network, then the batch oracle; make chaos DURATION=60s SEED=1
	cargo build --workspace --bins
	target/$(PROFILE)/chaos --duration $(DURATION) --seed $(if $(SEED),$(SEED),1)

bench: setup ## CPU and latency against Apache Kafka; make bench EVENTS=5000000
	cargo build --release --workspace --bins
	cargo run --release -p tidegate-tests --bin with-kafka -- target/release/tidegate bench --events $(EVENTS)

fuzz: ## frames, changelog blocks, job files and records against libFuzzer; make fuzz SECONDS_EACH=600; needs cargo-fuzz and a nightly compiler
	@command -v cargo-fuzz >/dev/null || { echo "missing: cargo-fuzz (cargo install cargo-fuzz)" >&2; exit 1; }
	@for target in frame block job record; do \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=$(SECONDS_EACH) -max_len=65536 || exit 1; done

lint: fmt
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all --check

deny:
	cargo deny check bans licenses sources

secrets: setup ## looks for passwords, keys and tokens in all that was ever committed
	.ci/tools
	target/tools/bin/gitleaks git --no-banner --redact --log-level warn .

image: ## needs a container engine
	docker build -f docker/Dockerfile -t tidegate:dev .

certificates: ## docker/secrets, for docker/compose.tls.yaml: certificates and a password, made anew; needs openssl
	docker/certificates.sh docker/secrets

deployment: setup ## image, compose file, Kubernetes manifests: resolved, validated, held against the programs; no engine, no cluster
	.ci/tools
	cargo build --workspace --bins
	target/tools/python/bin/pytest --disable-plugin-autoload tests/deployment

rules: ## monitoring/prometheus-rule.yaml from monitoring/alerts.yaml
	@{ printf '%s\n' 'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: tidegate' 'spec:'; \
		sed 's/^./  &/' monitoring/alerts.yaml; } > monitoring/prometheus-rule.yaml

setup:
	@.ci/setup
