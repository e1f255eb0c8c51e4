"""The demo: both pipelines from end to end, as a client of the public REST API."""
