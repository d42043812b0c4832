"""Manifests for Kubernetes, written without a connection to a cluster."""
