"""A pod: a network namespace with Istio's redirection, a Pod object, and a real agent that runs a stock Envoy."""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import setup
from harness import PEERS, wait_until
from processes import Process, sh

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PROXY_UID = "1337"
# Where an agent keeps what it has fetched; in a real pod a volume of the pod's own.
DATA = pathlib.Path("/var/lib/istio/data")
READY = ["curl", "-sf", "-o", "/dev/null", "localhost:15021/healthz/ready"]
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens",
        "java.base/java.math=ALL-UNNAMED"]


class Pod:
    """`module`: the folder with libmeltemi.so, or None for a pod that was injected without it. `gateway`: its proxy is no sidecar, but
    listens by itself. `ports`: what its container calls them. `proxy_metadata`: as an annotation would give it to the proxy. `only_6`:
    its proxy knows IPv6 alone; by its other address, of the link, which agents do not count, it calls what the bed has on IPv4."""

    def __init__(self, space, name: str, number: int, labels: dict, envoy: pathlib.Path | None, module: pathlib.Path | None,
                 account: str, istio_version: str, certificates=False, gateway=False, ports: dict[str, int] | None = None,
                 proxy_metadata: dict[str, str] | None = None, dual_stack=False, only_6=False):
        self.space, self.bed, self.name = space, space.bed, name
        self.ip, self.netns, self.link = self.bed.address(number, only_6), f"meltemi-{number}", f"meltemi{number}"
        self.ip_6, self.only_6 = self.bed.address_6(number) if dual_stack or only_6 else None, only_6
        self.labels, self.envoy, self.module = dict(labels), envoy, module
        if module:
            self.labels["meltemi.dev/module"] = "1"
        self.account, self.istio_version, self.certificates, self.gateway = account, istio_version, certificates, gateway
        self.ports, self.proxy_metadata = ports or {}, proxy_metadata or {}
        self.folder = self.bed.folder / space.name / name
        self.processes: dict[str, Process] = {}

    # Making and ending it

    def network(self):
        bed = self.bed
        sh("ip", "netns", "add", self.netns)
        sh("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        sh("ip", "link", "set", self.link, "master", bed.bridge, "up")
        for command in (f"addr add {self.ip}/24 dev eth0", "link set eth0 up", "link set lo up", f"route add default via {bed.host_of_link if self.only_6 else bed.host}"):
            sh("ip", "-n", self.netns, *command.split())
        hosts = pathlib.Path("/etc/netns") / self.netns
        hosts.mkdir(parents=True, exist_ok=True)
        (hosts / "hosts").write_text(f"127.0.0.1 localhost\n{self.ip} {socket.gethostname()}\n{bed.host} istiod.istio-system.svc\n")
        # Nobody answers there, and says so: a name that is not in `hosts` is not waited for.
        (hosts / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        if self.ip_6:
            # As Istio's init container does: what a sidecar passes on to its application comes from ::6.
            for command in (f"addr add {self.ip_6}/64 dev eth0 nodad", f"-6 route add default via {bed.host_6}", "addr add ::6/128 dev lo"):
                sh("ip", "-n", self.netns, *command.split())
        if self.envoy and not self.gateway:
            self.redirect("iptables", "127.0.0.6/32", "127.0.0.1/32", "127.0.0.0/8", bed.host)
            if self.ip_6:
                self.redirect("ip6tables", "::6/128", "::1/128", "::1/128", bed.host_6)

    def redirect(self, program: str, passed: str, me: str, loopback: str, host: str):
        """As Istio's own; the second and third are for pods that call themselves by a Service."""
        for rule in ("-N OUT", "-A OUTPUT -p tcp -j OUT", f"-A OUT -s {passed} -o lo -j RETURN",
                     f"-A OUT ! -d {me} -o lo -p tcp -m owner --uid-owner {PROXY_UID} -j REDIRECT --to-ports 15006",
                     f"-A OUT -m owner --uid-owner {PROXY_UID} -j RETURN", f"-A OUT -d {loopback} -j RETURN",
                     f"-A OUT -d {host} -j RETURN", "-A OUT -p tcp -j REDIRECT --to-ports 15001",
                     "-A PREROUTING -p tcp -j REDIRECT --to-ports 15006"):
            sh("ip", "netns", "exec", self.netns, program, "-w", "-t", "nat", *rule.split())

    def object(self):
        labels = dict(self.labels)
        if self.envoy and not self.gateway:
            labels |= {"security.istio.io/tlsMode": "istio", "service.istio.io/canonical-name": self.labels.get("app", self.name)}
        container = {"name": "app", "image": "none", "ports": [{"name": name, "containerPort": port} for name, port in self.ports.items()]}
        pod = self.meta = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "namespace": self.space.name, "labels": labels},
            "spec": {"serviceAccountName": self.account, "nodeName": "node", "containers": [container, *self.sidecar()]}}
        self.bed.kube.apply(pod)
        ips = [ip for ip in (None if self.only_6 else self.ip, self.ip_6) if ip]
        self.bed.kube.status(pod, phase="Running", podIP=ips[0], podIPs=[{"ip": ip} for ip in ips],
                             conditions=[{"type": "Ready", "status": "True"}])

    def sidecar(self) -> list[dict]:
        """As people see it who look at the pod."""
        path = [{"name": "ENVOY_DYNAMIC_MODULES_SEARCH_PATH", "value": str(self.module)}] if self.module else []
        return [{"name": "istio-proxy", "image": f"istio/proxyv2:{self.istio_version}", "env": path}] if self.envoy else []

    def agent(self):
        """Starts the sidecar as an injected container would."""
        folder, bed = self.folder, self.bed
        for part in ("data", "var/run/secrets/tokens", "var/run/secrets/istio", "etc/istio/pod", "etc/istio/proxy"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        token = bed.kube.account_token(self.space.name, self.account, "istio-ca")
        (folder / "var/run/secrets/tokens/istio-token").write_text(token)
        (folder / "var/run/secrets/istio/root-cert.pem").write_text(bed.root_certificate(self.space.name))
        (folder / "etc/istio/pod/labels").write_text("".join(f'{key}="{value}"\n' for key, value in self.labels.items()))
        shutil.copy(bed.binaries / "envoy_bootstrap.json", folder / "bootstrap.json")
        sh("chown", "-R", f"{PROXY_UID}:{PROXY_UID}", folder)
        proxy = {"discoveryAddress": "istiod.istio-system.svc:15012", "binaryPath": str(self.envoy), "configPath": "./etc/istio/proxy",
                 "proxyBootstrapTemplatePath": str(folder / "bootstrap.json"), "concurrency": 1, "proxyAdminPort": 15000,
                 "terminationDrainDuration": "1s", "drainDuration": "2s",
                 # Istio leaves these out by default.
                 "proxyStatsMatcher": {"inclusionPrefixes": ["cluster.inbound|", "cluster.outbound|", "dynamicmodulescustom.", "wasmcustom."]}}
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "POD_NAME": self.name, "POD_NAMESPACE": self.space.name,
            "INSTANCE_IP": self.ip_6 if self.only_6 else self.ip, "HOST_IP": bed.host, "SERVICE_ACCOUNT": self.account, "TRUST_DOMAIN": "cluster.local",
            "CA_ADDR": "istiod.istio-system.svc:15012", "PROXY_CONFIG": json.dumps(proxy), "ISTIO_META_CLUSTER_ID": "Kubernetes",
            "ISTIO_META_INTERCEPTION_MODE": "REDIRECT", "ISTIO_META_MESH_ID": "cluster.local",
            "ISTIO_META_WORKLOAD_NAME": self.labels.get("app", self.name), "ISTIO_META_ISTIO_VERSION": self.istio_version,
            "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(self.module or "")} | self.proxy_metadata
        if self.ip_6 and not self.only_6:
            environment["ISTIO_DUAL_STACK"] = "true"
        if self.certificates:
            # What istiod's CA has signed for this pod, as files for the application.
            environment["OUTPUT_CERTS"] = str(folder / "etc/istio/pod")
        DATA.mkdir(parents=True, exist_ok=True)
        # `ip netns exec` has given it a view of its own of what is mounted.
        self.start("agent", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', folder / "data", DATA, "setpriv", "--reuid", PROXY_UID, "--regid", PROXY_UID, "--clear-groups", bed.binaries / "pilot-agent",
                   "proxy", "router" if self.gateway else "sidecar", "--domain", f"{self.space.name}.svc.cluster.local", "--proxyLogLevel=warning",
                   "--templateFile", folder / "bootstrap.json", env=environment, cwd=folder)

    def ready(self):
        if self.envoy:
            def ready():
                if not self.processes["agent"].running():
                    raise RuntimeError(f"the sidecar of {self.name} has ended\n{self.log('agent')[-3000:]}")
                return self.run(*READY).returncode == 0
            wait_until(ready, f"the sidecar of {self.name}", 90)

    def stop(self):
        for name in list(self.processes):
            self.end(name)
        self.bed.kube.request("DELETE", self.bed.kube.path_of(self.meta) + "?gracePeriodSeconds=0")
        self.bed.remove_network(self)

    # Programs

    def start(self, name: str, *command, **options) -> Process:
        """Starts a program in the pod's network."""
        self.folder.mkdir(parents=True, exist_ok=True)
        process = self.bed.registry.start(["ip", "netns", "exec", self.netns, *command], self.folder / f"{name}.log", **options)
        self.processes[name] = process
        return process

    def end(self, name: str):
        self.bed.registry.forget(self.processes.pop(name))

    def run(self, *command, timeout=60) -> subprocess.CompletedProcess:
        """Runs a program in the pod's network and gives its output."""
        command = ["ip", "netns", "exec", self.netns, *map(str, command)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    @contextlib.contextmanager
    def inside(self):
        """The test's own thread in the pod's network: sockets that are made within stay there."""
        with open("/proc/thread-self/ns/net") as outside, open(f"/run/netns/{self.netns}") as within:
            if LIBC.setns(within.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield self
            finally:
                if LIBC.setns(outside.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")

    @contextlib.contextmanager
    def dialed(self, opening):
        """A context (a client, say) that is entered inside the pod's network and used from outside."""
        with contextlib.ExitStack() as stack:
            with self.inside():
                value = stack.enter_context(opening)
            yield value

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def thrift_server(self, port: int, *options, transport="framed", protocol="binary", version: str | None = None,
                      address="0.0.0.0"):
        name = f"thrift-{port}"
        self.start(name, sys.executable, PEERS / "thrift" / "server.py", port, "--address", address, "--version",
                   version or self.name, "--transport", transport, "--protocol", protocol, *options)
        wait_until(lambda: "READY" in self.log(name), f"Thrift server in {self.name}")

    def dubbo_server(self, port: int, *arguments):
        name = f"dubbo-{port}"
        self.start(name, *JAVA, "-cp", setup.dubbo_classpath().read_text(), f"-Dwho={self.name}", f"-Dhost={self.ip}",
                   "peer.Provider", port, *arguments)
        wait_until(lambda: "READY" in self.log(name), f"Dubbo provider in {self.name}", 90)

    def dubbo_calls(self, address: str, port: int, *operations, **defines) -> dict[str, str]:
        """Runs a Java Dubbo consumer in the pod; gives its lines by operation."""
        defines = [f"-D{key}={value}" for key, value in defines.items()]
        done = self.run(*JAVA, "-cp", setup.dubbo_classpath().read_text(), *defines, "peer.Consumer",
                        f"dubbo://{address}:{port}/peer.Demo", *operations, timeout=100)
        found = dict(re.findall(r"^(\S+) -> (.*) \(\d+ us\)$", done.stdout, re.M))
        if not found:
            raise AssertionError(done.stdout + done.stderr)
        return found

    # The sidecar

    def admin(self, path: str, method="GET") -> str:
        done = self.run("curl", "-sS", "-X", method, f"localhost:15000{path}")
        if done.returncode:
            raise OSError(f"admin of {self.name}: {done.stderr}")
        return done.stdout

    def config(self, resource: str | None = None) -> dict | list:
        """Envoy's config_dump: all of it, or the items of a resource such as `dynamic_listeners`."""
        if resource is None:
            return json.loads(self.admin("/config_dump?include_eds"))
        return json.loads(self.admin(f"/config_dump?resource={resource}")).get("configs", [])

    def listener(self, name: str) -> dict | None:
        """An active listener as Envoy has it."""
        for item in self.config("dynamic_listeners"):
            if item["name"] == name:
                return item.get("active_state", {}).get("listener")
        return None

    def cluster(self, name: str) -> dict | None:
        return next((item["cluster"] for item in self.config("dynamic_active_clusters") if item["cluster"]["name"] == name), None)

    def has(self, text: str, seconds=20):
        """Waits until Envoy's configuration says this."""
        wait_until(lambda: text in self.admin("/config_dump"), f"{text} in the Envoy of {self.name}", seconds)

    def lacks(self, text: str, seconds=20):
        """Waits until Envoy's configuration says this no longer."""
        wait_until(lambda: text not in self.admin("/config_dump"), f"no {text} in the Envoy of {self.name}", seconds)

    def takes(self, host: str, port: int, seconds=20):
        """Waits until an inlet in Envoy is configured for this port of a service."""
        self.has(f'\\"authority\\":\\"{host}:{port}\\"', seconds)

    def stats(self, pattern: str) -> dict[str, int]:
        pairs = (line.rsplit(": ", 1) for line in self.admin(f"/stats?filter={pattern}").splitlines() if ": " in line)
        return {name.removeprefix("dynamicmodulescustom."): int(value) for name, value in pairs if value.isdigit()}

    def rejected(self) -> dict[str, int]:
        """What Envoy has refused of its configuration, and how often."""
        return {name: value for name, value in self.stats("update_rejected|config_fail").items() if value}

    def access_log(self) -> list[dict]:
        """The lines of Istio's access log, each a JSON object."""
        path = self.folder / "access.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
