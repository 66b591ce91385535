"""`meltemi istio remove`: everything of ours goes, and nothing else, though a control plane is at work."""

import subprocess

from cluster_objects import LABEL, VIRTUAL, cluster, controller, filters, router, service, space  # noqa: F401
from harness import DIST, wait_until


def remove(cluster, *options: str, to=subprocess.PIPE) -> str:
    command = [DIST / "meltemi", "istio", "remove", "--kubeconfig", cluster.kubeconfig, "--namespace", "meltemi-system", *options]
    return subprocess.run(command, check=True, stdout=to, stderr=subprocess.PIPE, text=True, timeout=60).stdout


def test_after_a_control_plane_that_is_gone_the_next_need_not_wait(cluster, space):
    with cluster.leading("before"):
        cluster.kube.apply(service(space))
        wait_until(lambda: len(filters(cluster.kube, space)) == 2, "what is written", 15)
    text = remove(cluster)
    assert text.count("deleted ") == 2 and "is taken" not in text and text.endswith("the mesh is as before\n"), text
    lease = cluster.kube.get("coordination.k8s.io/v1", "Lease", "meltemi", "meltemi-system")
    assert not lease["spec"].get("holderIdentity"), lease
    with cluster.leading("after"):
        wait_until(lambda: len(filters(cluster.kube, space)) == 2, "what is written again", 15)
        cluster.kube.delete(service(space))
        wait_until(lambda: not filters(cluster.kube, space), "nothing of it to be left", 15)


def test_a_mesh_is_as_before(cluster, space, controller):
    kube = cluster.kube
    # With our label, and not by us.
    theirs = {"apiVersion": VIRTUAL[0], "kind": VIRTUAL[1], "metadata": {"name": "theirs", "namespace": space, "labels": LABEL},
              "spec": {"hosts": ["theirs.test"], "http": [{"route": [{"destination": {"host": "theirs.test"}}]}]}}
    kube.apply(service(space), router(space), theirs)
    wait_until(lambda: kube.get(*VIRTUAL, "meltemi-orders", space) and len(filters(kube, space)) == 2, "what is written", 15)
    told = remove(cluster, "--dry-run").splitlines()
    assert len(told) == 3 and all(line.startswith("would delete ") for line in told), told
    assert len(filters(kube, space)) == 2, "a dry run deletes nothing"
    # Under the chart's own rights.
    text = remove(cluster)
    assert text.count("deleted ") == 3 and "the mesh is as before" in text, text
    assert not filters(kube, space) and kube.get(*VIRTUAL, "meltemi-orders", space) is None
    assert kube.get(*VIRTUAL, "theirs", space) and kube.get("meltemi.dev/v1alpha1", "MetaRouter", "orders", space)
    assert not controller.is_leader()
    # Who goes on running writes again; so the chart is removed first or soon after.
    wait_until(lambda: len(filters(kube, space)) == 2, "the control plane to write again", 60)
    # What is begun is ended, though nobody can read of it.
    with open("/dev/full", "w") as full:
        remove(cluster, to=full)
    assert not filters(kube, space)
