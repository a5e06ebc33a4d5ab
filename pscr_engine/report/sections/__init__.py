"""The sections of a report's page, one module per group of them."""
