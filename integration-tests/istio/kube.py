"""A real Kubernetes API: etcd, kube-apiserver and the controllers that fill EndpointSlices, on loopback."""

import base64
import json
import pathlib
import secrets
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from harness import free_port, wait_until
from processes import Registry, sh

CONTROLLERS = "endpointslice-controller,namespace-controller,serviceaccount-controller,garbage-collector-controller"


class ApiError(Exception):
    """The API server's answer to what it does not accept."""

    def __init__(self, what: str, status: int, message: str):
        super().__init__(f"{what}: {status} {message}")
        self.status, self.message = status, message


class Kubernetes:
    """The cluster's API, and a small client of it with all rights."""

    def __init__(self, registry: Registry, binaries: pathlib.Path, folder: pathlib.Path):
        self.registry, self.binaries, self.folder = registry, binaries, folder
        self.kubeconfig = folder / "kubeconfig"
        self.plurals: dict[tuple[str, str], tuple[str, bool]] = {}
        self.etcd_port, self.port, self.token = free_port(), free_port(), secrets.token_hex(16)

    def up(self):
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        sh("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "sa.key")
        (folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        etcd = f"http://127.0.0.1:{self.etcd_port}"
        self.registry.start([self.binaries / "etcd", "--data-dir", folder / "etcd", "--listen-client-urls", etcd,
                             "--advertise-client-urls", etcd, "--listen-peer-urls", "http://127.0.0.1:0", "--unsafe-no-fsync",
                             "--log-level", "warn"], folder / "etcd.log")
        self.start_api()
        self.registry.start([self.binaries / "kube-controller-manager", "--kubeconfig", self.kubeconfig, "--leader-elect=false",
                             "--secure-port", "0", "--service-account-private-key-file", folder / "sa.key", "--root-ca-file",
                             folder / "certs/apiserver.crt", "--endpointslice-updates-batch-period", "0s", "--controllers",
                             CONTROLLERS], folder / "kube-controller-manager.log")
        self.has_account("default")

    def start_api(self):
        """Starts the API server, or starts it again on the same port."""
        folder, key = self.folder, self.folder / "sa.key"
        self.process = self.registry.start(
            [self.binaries / "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{self.etcd_port}", "--bind-address",
             "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", str(self.port), "--endpoint-reconciler-type",
             "none", "--cert-dir", folder / "certs", "--token-auth-file", folder / "tokens.csv", "--authorization-mode", "RBAC",
             "--service-account-issuer", f"https://127.0.0.1:{self.port}", "--service-account-key-file", key,
             "--service-account-signing-key-file", key, "--service-cluster-ip-range", "10.96.0.0/16,fd96::/112",
             "--disable-admission-plugins", "ServiceAccount", "--allow-privileged=true"], folder / "kube-apiserver.log")
        certificate = folder / "certs" / "apiserver.crt"
        wait_until(certificate.exists, "the API server's certificate", 60)

        def ready():
            try:
                return self.request("GET", "/readyz") == "ok"
            except ApiError:
                return False
        wait_until(ready, "the API server", 90)
        self.write_kubeconfig(self.kubeconfig, self.token)

    def stop_api(self):
        self.registry.forget(self.process)

    def write_kubeconfig(self, path: pathlib.Path, token: str) -> pathlib.Path:
        """A kubeconfig for whoever has this token."""
        authority = base64.b64encode((self.folder / "certs/apiserver.crt").read_bytes()).decode()
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "bed",
            "clusters": [{"name": "bed", "cluster": {"server": f"https://127.0.0.1:{self.port}",
                                                     "certificate-authority-data": authority}}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": token}}]}))
        return path

    def account_token(self, namespace: str, account: str, audience: str | None = None) -> str:
        spec = {"expirationSeconds": 86400} | ({"audiences": [audience]} if audience else {})
        made = self.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
                            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
        return made["status"]["token"]

    # Requests

    def request(self, method: str, path: str, body=None, kind="application/json", patience=20):
        context = ssl.create_default_context(cafile=str(self.folder / "certs/apiserver.crt"))
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", data,
                                         {"Authorization": f"Bearer {self.token}", "Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            # It says so of kinds whose CRD has just changed.
            if error.code == 429 and patience > 0:
                time.sleep(0.25)
                return self.request(method, path, body, kind, patience - 1)
            text = error.read().decode()
            try:
                text = json.loads(text)["message"]
            except (ValueError, KeyError):
                pass
            raise ApiError(f"{method} {path}", error.code, text) from None
        return json.loads(text) if text[:1] == "{" else text

    def path(self, version: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self.plurals:
            for item in self.request("GET", base)["resources"]:
                if "/" not in item["name"]:
                    self.plurals[version, item["kind"]] = item["name"], item["namespaced"]
        plural, namespaced = self.plurals[version, kind]
        place = f"/namespaces/{namespace or 'default'}" if namespaced and (namespace or name) else ""
        return f"{base}{place}/{plural}" + (f"/{name}" if name else "")

    def path_of(self, item: dict) -> str:
        meta = item["metadata"]
        return self.path(item["apiVersion"], item["kind"], meta.get("namespace"), meta["name"])

    def apply(self, *items: dict | str, manager="bed", **parameters: str) -> dict:
        """Server-side apply of objects, or of a YAML text of some; gives the last as it is stored. Parameters: of the request, such
        as fieldValidation."""
        query = urllib.parse.urlencode({"fieldManager": manager, "force": "true"} | parameters)
        stored = {}
        for item in items:
            for one in yaml.safe_load_all(item) if isinstance(item, str) else [item]:
                if one:
                    stored = self.request("PATCH", f"{self.path_of(one)}?{query}", one,
                                          "application/apply-patch+yaml")
        return stored

    def get(self, version: str, kind: str, name: str, namespace: str | None = None) -> dict | None:
        try:
            return self.request("GET", self.path(version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, version: str, kind: str, namespace: str | None = None) -> list[dict]:
        return self.request("GET", self.path(version, kind, namespace))["items"]

    def delete(self, *items: dict):
        for item in items:
            try:
                self.request("DELETE", self.path_of(item))
            except ApiError as error:
                if error.status != 404:
                    raise

    def status(self, item: dict, **status):
        """Writes an object's status, as a controller or kubelet would."""
        self.request("PATCH", f"{self.path_of(item)}/status", {"status": status}, "application/merge-patch+json")

    # What tests need

    def has_account(self, namespace: str, account="default"):
        wait_until(lambda: self.get("v1", "ServiceAccount", account, namespace), f"service account {namespace}/{account}", 60)

    def namespace(self, name: str, **labels):
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.has_account(name)

    def definitions(self, path: pathlib.Path):
        """Creates CustomResourceDefinitions and waits until they are served."""
        names = []
        # As text: these files are large, and Python's YAML is slow.
        for text in path.read_text().split("\n---"):
            name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("  name: ")), None)
            if name:
                names.append(name)
                self.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", text, "application/yaml")

        def served(name):
            state = self.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)["status"].get("conditions") or []
            return any(one["type"] == "Established" and one["status"] == "True" for one in state)
        for name in names:
            wait_until(lambda: served(name), f"definition {name}", 30)
