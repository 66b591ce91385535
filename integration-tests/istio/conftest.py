"""Fixtures: one mesh a session; modules of tests make namespaces in it."""

import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "scripts" / "testbed")]

import controller as control  # noqa: E402
import fetch  # noqa: E402
import setup  # noqa: E402
from bed import Bed  # noqa: E402
from harness import DIST  # noqa: E402

# Istio 1.31 runs on Envoy 1.39.
ENVOYS = os.environ.get("MELTEMI_ISTIO_ENVOYS", "1.39.3 1.40.0").split()


@pytest.fixture(scope="session")
def bed():
    reason = fetch.obstacle()
    if reason:
        pytest.skip(f"SKIPPED the Istio test bed: {reason}")
    bed = Bed(fetch.binaries())
    bed.up()
    yield bed
    bed.down()


@pytest.fixture(scope="module", params=ENVOYS, ids=[f"envoy-{version}" for version in ENVOYS])
def envoy(request):
    """The Envoy that pods run."""
    return setup.envoy(request.param)


@pytest.fixture(scope="module")
def space(bed, envoy, request):
    """A STRICT namespace for the module's tests; its pods carry our module unless they say otherwise."""
    name = f"{request.module.__name__.removeprefix('test_')}-{envoy.parents[2].name}".replace("_", "-").replace(".", "-")
    space = bed.space(name, envoy=envoy, module=DIST)
    yield space
    space.close()


@pytest.fixture(scope="module")
def controller(bed):
    """Our real control plane on the bed's cluster, with its CRDs."""
    reason = control.obstacle()
    if reason:
        pytest.skip(f"SKIPPED: {reason}")
    control.prepare(bed)
    controller = control.Controller(bed).start()
    yield controller
    controller.stop()


@pytest.fixture
def applied(space):
    """Applies objects to the namespace for one test."""
    items = []

    def apply(*more):
        items.extend(more)
        space.apply(*more)
    yield apply
    space.delete(*items)


@pytest.fixture(autouse=True)
def tell(request):
    """Says what the bed saw when a test fails."""
    yield
    report = getattr(request.node, "report", None)
    if report is not None and report.failed and "bed" in request.fixturenames:
        print(request.getfixturevalue("bed").logs()[-20000:])
