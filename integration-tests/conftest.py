"""Fixtures: one Envoy version a run of each test, and a world that ends with the test."""

import json
import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers" / "thrift"), str(HERE.parent / "scripts")]

import features  # noqa: E402
import setup  # noqa: E402
from harness import FILTER_HOST, World  # noqa: E402
from wire import Dubbo, Thrift  # noqa: E402

VERSIONS = os.environ.get("MELTEMI_ENVOYS", " ".join(setup.WASM_ENVOYS if FILTER_HOST == "wasm" else setup.ENVOYS)).split()

# Of the module alone, or of the control plane.
collect_ignore = ["test_control_plane.py", "test_declare.py", "test_docs.py", "test_image.py"] if FILTER_HOST == "wasm" else []


def pytest_collection_finish(session):
    if "MELTEMI_FEATURES" in os.environ:
        pathlib.Path(os.environ["MELTEMI_FEATURES"]).write_text(json.dumps(features.gather(session.items)))


def pytest_generate_tests(metafunc):
    if "envoy_version" in metafunc.fixturenames:
        metafunc.parametrize("envoy_version", VERSIONS, ids=[f"envoy-{version}" for version in VERSIONS])


@pytest.fixture(params=[Thrift, Dubbo], ids=lambda wire: wire.name)
def wire(request):
    """Each protocol, by frames made by hand."""
    return request.param


@pytest.fixture
def envoy_binary(envoy_version):
    return setup.envoy(envoy_version)


@pytest.fixture
def world(envoy_binary, tmp_path, request):
    world = World(envoy_binary, tmp_path)
    yield world
    world.close()
    # A crash is a failure whatever the test saw.
    assert world.crashed() == [], world.logs()
    report = getattr(request.node, "report", None)
    if report is not None and report.failed:
        print(world.logs())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.report = report
    return report
