"""mTLS from files, on both sides, with the bridge."""

import socket
import ssl
import threading

import pytest

from authority import Authority
from harness import free_port, get, rule, service, wait_until
from wire import Dubbo, Peer, Thrift

HOST = "echo.test"


def tls_server(authority, wire):
    """A server that demands a certificate of this authority; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        try:
            peer = Peer(context.wrap_socket(connection, server_side=True))
            while True:
                peer.send(wire.answer(peer.frame(), b"secret"))
        except (OSError, EOFError):
            pass

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


@pytest.mark.feature("mutual TLS on both sides")
@pytest.mark.parametrize("mode", ["request", "connection"])
@pytest.mark.parametrize("wire", [Thrift, Dubbo], ids=lambda wire: wire.name)
def test_mtls_on_both_sides(world, tmp_path, wire, mode):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    listener_certificate, listener_key = map(str, authority.issue("proxy"))
    certificate, key = map(str, authority.issue("client-of-server"))
    port = free_port()

    def objects(server_port, **tls):
        yield service(HOST, port, {server_port: "v1"}, wire.name, **{
            "meltemi.dev/tls-certificate": listener_certificate, "meltemi.dev/tls-private-key": listener_key,
            "meltemi.dev/tls-client-ca": str(authority.path), f"meltemi.dev/mode.{port}": mode})
        yield rule(HOST, tls={"mode": "MUTUAL", "clientCertificate": certificate, "privateKey": key,
                              "caCertificates": str(authority.path), **tls})
    world.write("all", *objects(tls_server(authority, wire), subjectAltNames=["localhost"]))
    world.serve()
    world.envoy(wait_for=[port])

    def connect(issuer):
        context = ssl.create_default_context(cafile=authority.path)
        context.load_cert_chain(*issuer.issue("client"))
        connection = socket.create_connection(("127.0.0.1", port), 10)
        return Peer(context.wrap_socket(connection, server_hostname="localhost"))
    peer = connect(authority)
    for number in range(20):
        peer.send(wire.call(number, "hello", b"x" * number * 1000))
        frame = peer.frame()
        got = wire.parse(frame)
        assert (got["ok"], got["id"], wire.value(frame)) == (True, number, b"secret")
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        other = connect(stranger)
        other.send(wire.call(1, "hello"))
        other.frame()
    # Servers of a stranger are not trusted.
    world.changed("all", *objects(tls_server(stranger, wire)))

    def refused():
        """In connection mode, nobody can say so to a new connection."""
        try:
            asked = connect(authority) if mode == "connection" else peer
            asked.send(wire.call(1, "hello"))
            return not wire.parse(asked.frame())["ok"]
        except (OSError, EOFError):
            return mode == "connection"
    wait_until(refused, "calls to fail")
    assert sum(world.stats(rf"^cluster\..*{HOST}\.ssl\.fail_verify_error$").values()) > 0


def test_the_control_plane_itself(world, tmp_path):
    """Envoy by the bootstrap that we print; one without a certificate learns nothing."""
    authority, port = Authority(tmp_path), free_port()
    cert, key = authority.issue("control-plane")
    mine = authority.issue("proxy")
    backend = tls_server(authority, Thrift)
    world.write("all", service(HOST, port, {backend: "v1"}))
    world.serve("--xds-cert", cert, "--xds-key", key, "--xds-client-ca", authority.path)
    world.envoy("--xds-ca", authority.path)
    refused = "refused: it shows no certificate"
    wait_until(lambda: refused in world.log("serve"), "the refusal", 30)
    assert get(world.admin, "/proxies").strip() == "[]"
    world.stop("envoy")
    world.envoy("--xds-ca", authority.path, "--xds-cert", mine[0], "--xds-key", mine[1], wait_for=[port])
    assert "WITHOUT TLS" not in world.log("serve") and "meltemi_xds_tls 1" in get(world.admin, "/metrics")
    # Another one from now on; Envoy needs no new root for it.
    serial = authority.issue("control-plane")
    wait_until(lambda: "new connections get what" in world.log("serve"), "the new certificate", 20)
    assert serial == (cert, key)
    world.stop("envoy")
    world.envoy("--xds-ca", authority.path, "--xds-cert", mine[0], "--xds-key", mine[1], wait_for=[port])
