"""Packages for programs that use a service of Serverless SuperRes."""
