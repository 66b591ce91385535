"""Processes and networks of the test bed, remembered on disk so that the next run cleans up after one that was killed."""

import atexit
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

STATE = pathlib.Path("/run/meltemi-testbed")
BRIDGE = "meltemi0"
PREFIX = "meltemi-"


def sh(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def birth(pid: int) -> str | None:
    """When a process began: with its id, its name for good."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


class Process:
    """A child in a session of its own, with a log."""

    def __init__(self, command, log: pathlib.Path, **options):
        self.log_path = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT,
                                          stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.pid, self.born = self.child.pid, birth(self.child.pid)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def running(self) -> bool:
        return self.child.poll() is None

    def stop(self, how=signal.SIGTERM, seconds=10):
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, how)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.child.wait()


class Registry:
    """All processes and network namespaces of the one bed that a machine can have."""

    def __init__(self):
        STATE.mkdir(parents=True, exist_ok=True)
        self.lock = open(STATE / "lock", "w")
        # Every user may read it: proxies run as another one. Stays after a run, for its logs.
        self.folder = STATE / "bed"
        self.processes: list[Process] = []
        self.namespaces: list[str] = []
        self.saving = threading.Lock()
        self.closed = False

    def acquire(self, seconds=1800):
        """Waits for the other bed of this machine to end, then removes what a killed one has left."""
        end, told = time.monotonic() + seconds, False
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError("another test bed has been running on this machine for too long") from None
                if not told:
                    print("test bed: waiting for another one on this machine", file=sys.stderr, flush=True)
                told = True
                time.sleep(1)
        atexit.register(self.close)
        clean()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(0o755)

    def save(self):
        partial = STATE / "state.partial"
        # Tests start some programs from several threads.
        with self.saving:
            partial.write_text(json.dumps({"processes": [[p.pid, p.born] for p in self.processes]}))
            partial.rename(STATE / "state.json")

    def start(self, command, log: pathlib.Path, **options) -> Process:
        process = Process(command, log, **options)
        self.processes.append(process)
        self.save()
        return process

    def forget(self, process: Process, how=signal.SIGTERM):
        """Ends a process before the bed does."""
        process.stop(how)
        if process in self.processes:
            self.processes.remove(process)
            self.save()

    def close(self):
        if self.closed:
            return
        self.closed = True
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + 3
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.child.wait(max(0.0, end - time.monotonic()))
            process.stop(signal.SIGKILL)
        self.processes = []
        clean()
        self.lock.close()
        atexit.unregister(self.close)


def clean():
    """Removes processes, network namespaces and the bridge that a bed has left behind."""
    state = STATE / "state.json"
    if state.exists():
        for pid, born in json.loads(state.read_text())["processes"]:
            if birth(pid) == born:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        state.unlink()
    for line in sh("ip", "netns", "list").splitlines():
        if line.startswith(PREFIX):
            remove_namespace(line.split()[0])
    if (pathlib.Path("/sys/class/net") / BRIDGE).exists():
        sh("ip", "link", "del", BRIDGE)


def remove_namespace(name: str):
    """Ends what still runs in a network namespace, and deletes it."""
    for pid in sh("ip", "netns", "pids", name).split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    sh("ip", "netns", "del", name)
    shutil.rmtree(pathlib.Path("/etc/netns") / name, ignore_errors=True)


def obstacle() -> str | None:
    """Why this machine cannot run a bed."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root (network namespaces and iptables)"
    missing = [tool for tool in ("ip", "iptables", "setpriv", "openssl") if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)} (Debian: apt-get install iproute2 iptables util-linux openssl)"
    probe = f"{PREFIX}probe{os.getpid()}"
    try:
        sh("ip", "netns", "add", probe)
        try:
            sh("ip", "netns", "exec", probe, "iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-m", "owner", "--uid-owner",
               "1337", "-j", "RETURN")
        finally:
            sh("ip", "netns", "del", probe)
    except RuntimeError as error:
        return f"may not make network namespaces here: {error}"
    return None
