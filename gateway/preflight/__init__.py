"""`superres preflight`: what a cluster lacks for an overlay of k8s/, read before anything is applied."""
