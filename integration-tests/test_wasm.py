"""What only plugins in Wasm do: end and come again, come over HTTP, leave clients that do not read to Envoy. Runs in the suite of Wasm
alone."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import pytest

from by_hand import cluster, listener, manager, ours, route, start, tcp
from harness import DIST, FILTER_HOST, ROOT, WASM, free_port, get, router, service, to, wait_until
from servers import Server, per_frame
from wire import Peer, Thrift, reply

pytestmark = pytest.mark.skipif(FILTER_HOST != "wasm", reason="a test of the plugins in Wasm")
HOST = "echo.test"
OUTSIDE = pathlib.Path(__file__).resolve().parent / "peers" / "fragile"
CORPUS = sorted(path for path in (ROOT / "codecs" / "corpus").rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def fragile(tmp_path_factory):
    """A user's codec, in a crate outside of the workspace, as a plugin: it has a bug."""
    place = tmp_path_factory.mktemp("fragile") / "fragile.wasm"
    subprocess.run([sys.executable, ROOT / "wasm-build" / "build.py", "--crate", OUTSIDE / "Cargo.toml", "--output", place], check=True)
    return place


def talk(port: int, line: bytes) -> bytes:
    """Sends a line; gives what comes back, nothing if the connection ends."""
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.settimeout(10)
        peer.sendall(line)
        try:
            return peer.makefile("rb").readline()
        except ConnectionResetError:
            return b""


def lines(peer):
    for line in peer.socket.makefile("rb"):
        peer.send(b"+" + line)


@pytest.mark.timeout(600)
def test_a_trap_costs_its_own_plugin_until_it_is_loaded_again(world, fragile):
    """A bug ends the VM of one worker: other plugins do not notice, and new connections work after the back-off."""
    one, other = free_port(), free_port()
    server, thrift = Server(lines), Server(per_frame(Thrift.answer))
    plugin = functools.partial(ours, wasm=fragile)
    start(world, [listener(one, plugin("inlet", codec={"name": "fragile"}), manager(route())),
                  listener(other, ours("inlet", codec={"name": "thrift"}), manager(route("thrift")))],
          [cluster(server.port, "fragile", wasm=fragile), cluster(thrift.port, "thrift", name="thrift")], concurrency=1)
    peer = Peer.connect(other)

    def works(number):
        peer.send(Thrift.call(number, "hello"))
        return Thrift.parse(peer.frame())["ok"]
    assert talk(one, b"a.hello you\n") == b"+a.hello you\n" and works(1)
    assert talk(one, b"bug\n") == b""
    wait_until(lambda: "panicked" in world.log("envoy"), "Envoy to say so")
    assert works(2), "on the connection that it had"
    wait_until(lambda: talk(one, b"a.hello again\n") == b"+a.hello again\n", "the plugin to be loaded again")
    assert works(3)
    assert world.stats("vm_reload_success"), "Envoy counts it"
    world.expects_crash = True


def test_the_first_plugin_may_come_to_a_running_envoy(world):
    """On processors with protection keys V8 is found by no worker that is older: those with `meltemi bootstrap --wasm` are not."""
    port, server = free_port(), Server(per_frame(Thrift.answer))
    world.serve()
    world.envoy()
    wait_until(lambda: get(world.envoy_admin, "/ready"), "Envoy to start its workers")
    world.published(lambda: world.write("echo", service(HOST, port, {server.port: "v1"})))
    wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True, "the listener")
    peer = Peer.connect(port)
    peer.send(Thrift.call(1, "hello"))
    assert Thrift.parse(peer.frame())["ok"]


def test_no_bytes_of_the_fuzz_corpus_end_the_vm(world):
    """Each as a client's first bytes and as a server's reply, in both modes."""
    for protocol in ("thrift", "dubbo"):
        corpus = [path.read_bytes() for path in CORPUS if protocol in path.parts and path.suffix != ".java" and path.suffix != ".md"]
        assert corpus, protocol
        turn = iter(corpus * 3)

        def behave(peer, turn=turn):
            peer.socket.recv(65536)
            peer.send(next(turn, b"x"))
        server, request, relay = Server(behave), free_port(), free_port()
        routes = [{"name": "all", "clusters": [{"name": "plain", "weight": 1}]}]
        start(world, [listener(request, ours("inlet", codec={"name": protocol}), manager(route())),
                      listener(relay, ours("relay", codec={"name": protocol}, routes=routes), tcp("plain"))],
              [cluster(server.port, protocol), cluster(server.port, name="plain")])
        for port in (request, relay):
            for seed in corpus:
                with socket.create_connection(("127.0.0.1", port), 10) as peer:
                    peer.settimeout(0.05)
                    peer.sendall(seed)
                    try:
                        while peer.recv(65536):
                            pass
                    except (TimeoutError, ConnectionResetError):
                        pass
        wait_until(lambda: world.counter(f"meltemi.{protocol}.decode_errors") > 0, "statistics")
        assert world.processes["envoy"].poll() is None
        assert "Function: proxy_on" not in world.log("envoy")
        world.stop("envoy")


@pytest.mark.timeout(600)
def test_the_same_sources_give_the_same_bytes(tmp_path):
    """Wherever they, their dependencies and what is built of them lie."""
    def build(root, **environment):
        done = subprocess.run([sys.executable, root / "wasm-build" / "build.py", "--codec", "thrift"], text=True, capture_output=True,
                              env=os.environ | environment)
        if done.returncode == 3:
            pytest.skip("SKIPPED two builds: no compiler for Wasm")
        assert done.returncode == 0, done.stdout + done.stderr
        return (root / "dist" / "meltemi-thrift.wasm").read_bytes()
    copy, home = tmp_path / "elsewhere", tmp_path / "cargo"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("target", ".cache", ".git", "dist"), symlinks=True)
    home.symlink_to(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    if (toolchain := ROOT / ".cache" / "wasm-toolchain").exists():
        (copy / ".cache").mkdir()
        (copy / ".cache" / "wasm-toolchain").symlink_to(toolchain.resolve())
    assert build(copy, CARGO_HOME=str(home)) == build(ROOT)


@contextlib.contextmanager
def page():
    """The URL of the plugin on a web server."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=DIST)
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{web.server_address[1]}/{WASM.name}"
    finally:
        web.shutdown()


def over_http(world, url: str, digest: str, answer=Thrift.answer) -> int:
    """A service behind plugins that come from there; gives its port."""
    server, port = Server(per_frame(answer)), free_port()
    world.write("all", service(HOST, port, {server.port: "v1"}), router(HOST, {"route": [to(HOST)]}))
    world.serve(wasm=["--wasm", url, "--wasm-sha256", digest])
    world.envoy(wait_for=[port])
    return port


def works(port: int) -> bool:
    peer = Peer.connect(port)
    peer.socket.settimeout(5)
    try:
        peer.send(Thrift.call(1, "hello"))
        return Thrift.parse(peer.frame())["ok"]
    except (EOFError, ConnectionResetError):
        return False
    finally:
        peer.close()


@pytest.mark.feature("code over HTTP, with its hash", why="a shared object is a file")
def test_code_over_http(world):
    """Envoys fetch the plugin themselves."""
    with page() as url:
        port = over_http(world, url, hashlib.sha256(WASM.read_bytes()).hexdigest())
        wait_until(lambda: works(port), "the plugin to be fetched")


def test_code_with_another_hash(world):
    """It is not run. Listeners are there, but connections are closed, and nothing goes to the server past the plugin."""
    asked = []
    with page() as url:
        port = over_http(world, url, "0" * 64, lambda frame: asked.append(frame) or Thrift.answer(frame))
        wait_until(lambda: "Plugin configured to fail closed failed to load" in world.log("envoy"), "Envoy to say so")
        assert "Retry limit exceeded for fetching data from remote data source" in world.log("envoy")
        assert [works(port) for _ in range(3)] == [False] * 3 and asked == []
        assert world.processes["envoy"].poll() is None


def test_a_wrong_configuration_names_its_place(world):
    """Envoy does not start with it, and its log says why."""
    bad = listener(free_port(), ours("inlet", codec={"name": "none"}), manager(route()))
    with pytest.raises(TimeoutError):
        start(world, [bad], [cluster(1, "thrift")], seconds=3)
    wait_until(lambda: "meltemi: field `codec.name`: this module has no codec `none`" in world.log("envoy"), "the reason")
    world.processes.pop("envoy").wait(10)


@pytest.mark.parametrize("mode", ["request", "connection"])
def test_a_client_that_reads_nothing_is_let_go(world, envoy_version, mode):
    """By Envoy, and from 1.38 on: what is written is for it to look at, and a plugin is not told. We ask for a minute."""
    port = free_port()
    server = Server(per_frame(lambda frame: reply(frame, b"y" * 100_000)))
    world.write("all", service(HOST, port, {server.port: "v1"}, **{f"meltemi.dev/mode.{port}": mode}))
    world.serve()
    shown, = json.loads(get(world.admin, f"/resources?type=listener&name={HOST}:{port}"))["Listener"]
    assert shown["content"]["per_connection_buffer_high_watermark_timeout"] == "60s"
    routes = [{"name": "all", "clusters": [{"name": "servers", "weight": 1}]}]
    filters = {"request": [ours("inlet", codec={"name": "thrift"}), manager(route())],
               "connection": [ours("relay", codec={"name": "thrift"}, routes=routes), tcp()]}[mode]
    impatient = listener(port, *filters, per_connection_buffer_high_watermark_timeout="0.5s")
    servers = cluster(server.port, "thrift" if mode == "request" else None)
    if envoy_version.startswith("1.37."):
        with pytest.raises(TimeoutError):
            start(world, [impatient], [servers], seconds=3)
        wait_until(lambda: "per_connection_buffer_high_watermark_timeout" in world.log("envoy"), "Envoy to refuse the field")
        world.processes.pop("envoy").wait(10)
        return
    start(world, [impatient], [servers])
    rude = Peer.connect(port)
    rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for number in range(100):
            rude.send(Thrift.call(number, "hello"))
    active = f"listener.127.0.0.1_{port}.downstream_cx_active"
    wait_until(lambda: world.stats(active) == {active: 0}, "Envoy to let the client go")
    world.counted("thrift", {"in_flight": 0})


def test_of_a_gauge_there_is_one_for_all_workers(world):
    """Every worker has a VM of its own; what they count is added up, once."""
    release = threading.Event()
    server, port = Server(per_frame(lambda frame: release.wait(10) and Thrift.answer(frame))), free_port()
    start(world, [listener(port, ours("inlet", codec={"name": "thrift"}), manager(route()))], [cluster(server.port, "thrift")],
          concurrency=3)
    peers = [Peer.connect(port) for _ in range(12)]
    for peer in peers:
        peer.send(Thrift.call(1, "hello"))
    wait_until(lambda: world.in_flight() == 12, "the gauge")
    world.counted("thrift", {"requests": 12})
    release.set()
    for peer in peers:
        assert Thrift.parse(peer.frame())["ok"]
    wait_until(lambda: world.in_flight() == 0, "the gauge to fall")
