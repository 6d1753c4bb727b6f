"""Knative's pod autoscaler and the pods that it scales, simulated event by event.

Comments and docstrings refer to these rules of Knative Serving (commit 98e5ef90):

1. Targets: the annotations of a revision over the cluster's defaults (`revision.py`).
2. Samples: the activator and the queue-proxies report their mean concurrency every second (`meters.py`).
3. Window means: samples become a stable mean and a panic mean (`buckets.py`).
4. Desired scale: every two seconds both means become a number of pods (`autoscaler.py`).
5. Panic: while the panic mean is far above what is ready, the number of pods only grows (`autoscaler.py`).
6. Scale-down delay and excess burst capacity (`autoscaler.py`).
7. Bounds, and whether requests go through the activator or directly to the pods (`pod_autoscaler.py`).
8. To zero: window, retention and grace period until the last pod is removed (`pod_autoscaler.py`).
9. From zero: the first request is evaluated immediately (`control.py`).

Marks such as AS:161-218 give lines of Knative's source. AS, MS: autoscaler.go and multiscaler.go in
pkg/autoscaler/scaling. BK: pkg/autoscaler/aggregation/bucketing.go. CO: pkg/autoscaler/metrics/collector.go. KPA, SC:
kpa.go and scaler.go in pkg/reconciler/autoscaling/kpa. SKS: pkg/reconciler/serverlessservice/serverlessservice.go.
"""
