"""A real cluster on this machine: a control plane, and nodes with containerd, kubelet and kube-proxy of their own.

    with Cluster() as cluster:
        cluster.plane.kubectl("get", "nodes")

Linux and root are needed. docs/reference/test-cluster.md says what it is, and what it is not.
"""
