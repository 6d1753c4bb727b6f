"""The bill and the scale of Serverless SuperRes, worked out before anybody pays.

Owns a model of Knative's pod autoscaler (rule by rule, checked against traces of Knative's own code), a simulation of
the service on top of it, prices, and `superres plan`. Knows nothing of Flask, Triton or torch.
"""
