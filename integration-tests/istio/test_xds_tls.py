"""Shape `tcp` with TLS between sidecars and our xDS server: a certificate of istiod's CA, and identities of the mesh."""

import pytest

import controller as control
from authority import Authority
from calls import call, eventually
from echo import BOTH, of_tcp_shape
from harness import wait_until
from objects import destination_rule, meta_router, to

PORT = 9190
CALLS = "calls.log"


class Secure:
    """Our control plane with the certificate that istiod's CA has signed for a pod."""

    def __init__(self, bed, space):
        self.bed, self.space = bed, space
        self.folder = space.pod("identity", account="meltemi", module=None, certificates=True).folder / "etc/istio/pod"
        self.cert, self.key, self.root = (self.folder / name for name in ("cert-chain.pem", "key.pem", "root-cert.pem"))
        wait_until(lambda: all(path.exists() for path in (self.cert, self.key, self.root)), "the agent's certificates", 30)
        self.controller = control.Controller(bed, "secure")

    def start(self, clients: str, server="meltemi"):
        return self.run(clients, self.cert, self.key, "istio", "--xds-service-san", f"spiffe://cluster.local/ns/{self.space.name}/sa/{server}")

    def run(self, clients: str, cert, key, *trust):
        self.controller.options = (
            "--stock-envoy", "--access-log", CALLS, "--xds-cert", cert, "--xds-key", key, "--xds-client-ca", self.root,
            "--xds-client-id", clients, "--xds-service-tls", *trust)
        self.controller.start()
        return self

    def stop(self):
        self.controller.stop()

    def proxies(self) -> str:
        return self.controller.get("/proxies")

    def log(self) -> str:
        return self.controller.process.log()


@pytest.fixture(scope="module")
def secure(bed, space):
    reason = control.obstacle()
    if reason:
        pytest.skip(f"SKIPPED: {reason}")
    control.prepare(bed)
    secure = Secure(bed, space).start(f"spiffe://cluster.local/ns/{space.name}/*")
    yield secure
    secure.stop()


@pytest.fixture(scope="module")
def echo(secure, space):
    service = of_tcp_shape(space, PORT)
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    return service


def test_routes_come_by_mutual_tls(space, secure, echo, applied):
    me = space.pods["client"]
    applied(meta_router("echo", echo.host, {"name": "pinned", "route": [to(echo.host, "v2")]}))
    eventually(me, echo.ip, PORT, {"v2: hello x"}, count=20)
    assert "meltemi_xds_tls 1" in secure.controller.get("/metrics")
    assert "WITHOUT TLS" not in secure.log()
    assert f"client.{space.name}" in secure.proxies()
    assert "tls_certificate_sds_secret_configs" in str(me.cluster("meltemi_xds")["transport_socket"])
    assert "meltemi_xds_refused_connections_total 0" in secure.controller.get("/metrics")
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}


def test_each_call_is_in_the_access_log(space, echo):
    me = space.pods["client"]
    call(me, echo.ip, PORT, method="slow", argument=1)

    def lines(pod):
        path = pod.folder / CALLS
        return [line for line in (path.read_text().splitlines() if path.exists() else []) if "slow" in line]
    wait_until(lambda: lines(me) and any(lines(space.pods[name]) for name in ("v1", "v2")), "a line on both sides", 30)
    fields = lines(me)[0].split()
    assert fields[1] == "thrift" and fields[2].endswith("slow") and fields[3] == "200", fields


def test_a_sidecar_of_another_namespace_is_not_served(space, secure, echo):
    secure.stop()
    secure.start("spiffe://cluster.local/ns/elsewhere/*")
    try:
        refused = f"`spiffe://cluster.local/ns/{space.name}/sa/default` is none of the identities that may call"
        wait_until(lambda: refused in secure.log(), "the refusal", 60)
        assert secure.proxies().strip() == "[]"
        assert set(call(space.pods["client"], echo.ip, PORT, count=10)) <= BOTH, "with what the sidecar has"
    finally:
        secure.stop()
        secure.start(f"spiffe://cluster.local/ns/{space.name}/*")
    wait_until(lambda: f"client.{space.name}" in secure.proxies(), "the sidecar to come back", 60)


def test_a_server_with_another_identity_is_not_believed(space, secure, echo):
    secure.stop()
    secure.start("spiffe://cluster.local/*", server="somebody-else")
    try:
        space.pods["client"].has(f"spiffe://cluster.local/ns/{space.name}/sa/somebody-else")
        wait_until(lambda: f"connection of {space.pods['client'].ip}" in secure.log() and "does not take our certificate" in secure.log(),
                   "the refusal", 60)
        assert f"client.{space.name}" not in secure.proxies()
        assert set(call(space.pods["client"], echo.ip, PORT, count=10)) <= BOTH
    finally:
        secure.stop()
        secure.start(f"spiffe://cluster.local/ns/{space.name}/*")


def test_our_certificate_may_be_of_another_ca(space, secure, echo, tmp_path):
    authority = Authority(tmp_path, "others")
    secure.stop()
    secure.run("spiffe://cluster.local/*", *authority.issue("control-plane"), "ca", "--xds-service-ca", authority.path,
               "--xds-service-san", "localhost")
    try:
        wait_until(lambda: f"client.{space.name}" in secure.proxies(), "the sidecar", 60)
        assert set(call(space.pods["client"], echo.ip, PORT, count=10)) <= BOTH
    finally:
        secure.stop()
        secure.start(f"spiffe://cluster.local/ns/{space.name}/*")
