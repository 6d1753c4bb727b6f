"""Estimates what Serverless SuperRes costs before you run it.

Contains a model of Knative's pod autoscaler (checked against traces of Knative's own code), a simulation of the service
on top of it, GPU prices, and the command `superres plan`. Imports neither Flask nor Triton nor torch.
"""
