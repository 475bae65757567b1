"""runbook: restores etcd on self-managed Kubernetes control planes."""

__version__ = "0.1.0"
