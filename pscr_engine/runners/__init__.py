"""Runners: they hand chunks of the manifest to pipelines and commit the parts."""
