"""The commands of the docs, run as they stand there; only ports are exchanged for free ones."""

import os
import re
import signal
import subprocess

import pytest

import features
from clients import client
from harness import DIST, ROOT, free_port, wait_until
from test_tls import Authority

PORTS = ("9090", "9091", "9001", "9002", "18000", "18080", "9901")


def blocks(page: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: what stands behind the fence, and the text."""
    return re.findall(r"^```(\S+(?: \S+)*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


class Shell:
    """A bash that is told one block after the other."""

    def __init__(self):
        self.process = subprocess.Popen(["bash"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def run(self, block: str) -> list[str]:
        self.process.stdin.write(f"{block}\necho; echo '== end'\n")
        self.process.stdin.flush()
        output = []
        for line in self.process.stdout:
            if line.strip() == "== end":
                return output
            output.append(line.strip())
        raise EOFError(f"the shell ended in:\n{block}")

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.communicate(timeout=20)


def anyhow(line: str) -> str:
    """A line without its numbers: counts differ from run to run."""
    return re.sub(r"\d+", "N", line.strip())


@pytest.fixture
def shell():
    shell = Shell()
    yield shell
    shell.close()


# The codec's crate is built from nothing the first time.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["quickstart.md", "codec.md"])
def test_commands_of(page, shell, envoy_binary, tmp_path):
    free = {port: str(free_port()) for port in PORTS}

    def exchanged(text: str) -> str:
        return re.sub(r"\b(%s)\b" % "|".join(PORTS), lambda port: free[port[0]], text)
    # What the commands read has ports as well.
    for file in [*ROOT.glob("examples/quickstart*/*.yaml"), *ROOT.glob("envoy-configs/*.yaml")]:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True, parents=True)
        copy.write_text(exchanged(file.read_text()))
    replaced = {
        "examples/quickstart": f"{tmp_path}/examples/quickstart", "envoy-configs/": f"{tmp_path}/envoy-configs/",
        "$(python3 scripts/setup.py --newest)": str(envoy_binary),
        # Other tests run Envoys beside this one.
        "-l warn": "-l warn --use-dynamic-base-id",
        # Built once for all versions of Envoy.
        "$CODEC/target": str(ROOT / ".cache" / "guide"),
    }
    steps = blocks((ROOT / "docs" / page).read_text())
    assert len(steps) > 6
    for index, (kind, text) in enumerate(steps):
        if kind != "bash":
            continue
        command = exchanged(text)
        for old, new in replaced.items():
            command = command.replace(old, new)
        if index + 1 == len(steps) or steps[index + 1][0] != "text":
            shell.run(command)
            continue
        expected = steps[index + 1][1].splitlines()

        got = []

        def shown():
            got[:] = [anyhow(line) for line in shell.run(command)]
            return all(any(line.endswith(anyhow(want)) for line in got) for want in expected)
        try:
            wait_until(shown, "the output")
        except TimeoutError:
            pytest.fail(f"{command}should print\n{steps[index + 1][1]}but does print\n" + "\n".join(got))


def test_examples_of_the_configuration_page(world, tmp_path):
    """Its objects are one configuration without a mistake, and Envoy takes it."""
    objects = [text for kind, text in blocks((ROOT / "docs" / "configuration.md").read_text()) if kind == "yaml"]
    assert len(objects) > 6
    ports = {port: str(free_port()) for port in ("9090", "9191", "9292", "20880")}
    text = re.sub(r"\b(%s)\b" % "|".join(ports), lambda port: ports[port[0]], "---\n".join(objects))
    authority = Authority(tmp_path, "clients")
    certificate, key = authority.issue("proxy")
    certificate.rename(tmp_path / "cert.pem")
    key.rename(tmp_path / "key.pem")
    (tmp_path / "servers.pem").write_bytes(authority.path.read_bytes())
    for folder in ("/var/log/meltemi", "/etc/meltemi/tls"):
        text = text.replace(folder, str(tmp_path))
    world.write("page", text)
    checked = subprocess.run([DIST / "meltemi", "check", world.config], capture_output=True, text=True)
    assert checked.stdout.endswith(" 0 error(s), 0 warning(s)\n"), checked.stdout
    world.serve()
    world.envoy(wait_for=[int(ports["9090"]), int(ports["9191"])])
    world.in_sync()
    assert world.refused() == []


def test_links_and_contents():
    """Pages that the pages name are there."""
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]
    missing = [
        f"{page.name}: {link}" for page in pages
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "envoy-configs").glob("*.yaml")))
def test_ready_made_bootstraps_work(world, file):
    ports = {port: str(free_port()) for port in ("9090", "9091")} | {"9901": str(world.envoy_admin)}
    text = (ROOT / "envoy-configs" / file).read_text()
    text = re.sub(r"(?<=port_value: )(9090|9091|9901)\b", lambda port: ports[port[0]], text)
    world.thrift_server("v1", int(ports["9091"]))
    world.static_envoy(text, wait_for=[int(ports["9090"])])
    with client(int(ports["9090"])) as demo:
        assert demo.hello("you") == "v1: hello you"


def test_the_table_of_wasm_is_what_the_tests_say():
    text = features.PAGE.read_text()
    assert features.page(text) == text, "integration-tests/features.py --write makes it"
