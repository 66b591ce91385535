"""Istio's own injection: the real template of its chart with ours beside it, asked as the API server asks it."""

import base64
import copy
import json
import pathlib
import ssl
import urllib.request

import yaml

from harness import ROOT

OURS = ROOT / "install" / "istio" / "values.yaml"


def config_map(chart: pathlib.Path, namespace: str) -> dict:
    """What Istio's chart makes of its defaults and our values."""
    values = yaml.safe_load((chart / "values.yaml").read_text())["_internal_defaults_do_not_set"]
    templates = {"sidecar": (chart / "files" / "injection-template.yaml").read_text(),
                 "gateway": (chart / "files" / "gateway-injection-template.yaml").read_text()}
    templates |= yaml.safe_load(OURS.read_text())["sidecarInjectorWebhook"]["templates"]
    values = {"global": values["global"], "sidecarInjectorWebhook": values["sidecarInjectorWebhook"], "revision": "",
              "pilot": {"cni": values["cni"], "env": values["env"]}, "gateways": values["gateways"]}
    config = {"defaultTemplates": ["sidecar"], "policy": "enabled", "templates": templates, "alwaysInjectSelector": [],
              "neverInjectSelector": [], "injectedAnnotations": {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-sidecar-injector", "namespace": namespace},
            "data": {"values": json.dumps(values), "config": json.dumps(config)}}


def inject(host: str, pod: dict) -> dict:
    """The pod as istiod's webhook at `host` makes it."""
    request = {"uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
               "namespace": pod["metadata"]["namespace"], "operation": "CREATE", "object": pod}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    call = urllib.request.Request(f"https://{host}:15017/inject", json.dumps(review).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=30, context=unverified) as answer:
        response = json.load(answer)["response"]
    assert response["allowed"] and "patch" in response, response
    return patched(pod, json.loads(base64.b64decode(response["patch"])))


def patched(item: dict, patch: list[dict]) -> dict:
    """A JSON patch of the operations that istiod uses."""
    item = copy.deepcopy(item)
    for step in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place = item
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            index = len(place) if last == "-" else int(last)
            if step["op"] != "add":
                place.pop(index)
            if step["op"] != "remove":
                place.insert(index, step["value"])
        elif step["op"] == "remove":
            del place[last]
        else:
            place[last] = step["value"]
    return item
