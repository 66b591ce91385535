"""Shape `native`: Istio's AuthorizationPolicy by who calls, on which port, from where."""

import pytest

from calls import eventually
from echo import BOTH, two_versions
from objects import authorization

PORT, OTHER = 9091, 9092
DENIED = {"6: RBAC: access denied"}


def thrift(port: int) -> dict:
    return {"name": f"thrift-{port}", "port": port, "appProtocol": "meltemi.dev/thrift"}


@pytest.fixture(scope="module")
def echo(controller, space):
    """Service `echo`. `client` and `plain`, which lacks the module, are of account `buyer`, `seller` is of its own."""
    service = two_versions(space, PORT, [thrift(PORT), thrift(OTHER)], client={"account": "buyer"},
                           plain={"account": "buyer", "module": None}, seller={"account": "seller"})
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(OTHER)
    return service


def sources(**of) -> dict:
    return {"from": [{"source": of}]}


def account(space, name: str) -> dict:
    return sources(principals=[f"cluster.local/ns/{space.name}/sa/{name}"])


def test_only_one_account_is_allowed(space, echo, applied):
    applied(authorization("buyers", "ALLOW", {"app": "echo"}, account(space, "buyer")))
    eventually(space.pods["seller"], echo.ip, PORT, DENIED, count=20)
    eventually(space.pods["client"], echo.ip, PORT, BOTH, count=20)
    eventually(space.pods["plain"], echo.ip, PORT, lambda seen: set(seen) <= BOTH, count=5)


def test_one_account_is_denied_one_method(space, echo, applied):
    seller = space.pods["seller"]
    rule = account(space, "seller") | {"to": [{"operation": {"paths": ["/slow"]}}]}
    applied(authorization("no-slow", "DENY", {"app": "echo"}, rule))
    eventually(seller, echo.ip, PORT, DENIED, method="slow", argument=1, count=10)
    eventually(seller, echo.ip, PORT, BOTH, count=20)
    eventually(space.pods["client"], echo.ip, PORT, {"v1: slept 1", "v2: slept 1"}, method="slow", argument=1, count=20)


def test_one_port_is_allowed(space, echo, applied):
    me = space.pods["client"]
    applied(authorization("first", "ALLOW", {"app": "echo"}, {"to": [{"operation": {"ports": [str(PORT)]}}]}))
    eventually(me, echo.ip, OTHER, DENIED, count=20)
    eventually(me, echo.ip, PORT, BOTH, count=20)


def test_one_address_is_denied(space, echo, applied):
    seller = space.pods["seller"]
    applied(authorization("away", "DENY", {"app": "echo"}, sources(ipBlocks=[f"{seller.ip}/32"])))
    eventually(seller, echo.ip, PORT, DENIED, count=20)
    eventually(space.pods["client"], echo.ip, PORT, BOTH, count=20)
