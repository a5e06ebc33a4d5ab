"""obstore's client for a bucket: credentials and endpoint from the environment, time limits, retries."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MissingDependencyError
from ..host import MadeOnce

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

log = logging.getLogger("pscr_engine")

Purpose = Literal["images", "files"]

# Environment variables that may name a plain http endpoint, by scheme.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_CONNECT = timedelta(seconds=5)


def require_obstore() -> None:
    """Raise MissingDependencyError unless obstore is installed."""
    if find_spec("obstore") is None:
        raise MissingDependencyError("obstore", "reading and writing object stores", "stores")


@MadeOnce
def bucket_client(scheme: str, bucket: str, purpose: Purpose) -> ObjectStore:
    """Return the client for a bucket; a process has one per bucket and purpose.

    Many images are requested at once, and none may pause for long; files (manifests, parts) may be large and slow
    to send. The client retries throttled requests, server errors and lost connections with exponential backoff
    and jitter, and continues a body that breaks off where it stopped.

    Raises:
        MissingDependencyError: obstore is not installed.
    """
    require_obstore()
    from obstore import store

    options: dict[str, Any] = {"client_options": _client(scheme, purpose), "retry_config": _retries(purpose)}
    match scheme:
        case "s3":
            if not any(os.environ.get(name) for name in _AWS_CREDENTIALS):
                log.info(
                    "no AWS credentials in the environment (profiles are not read): asking this host's metadata "
                    "service; AWS_SKIP_SIGNATURE=true is for public buckets"
                )
            return store.S3Store(bucket, **options)
        case "gs":
            return store.GCSStore(bucket, **options)
    return store.AzureStore(bucket, **options)


def _client(scheme: str, purpose: Purpose) -> ClientConfig:
    config: ClientConfig = {"connect_timeout": _CONNECT}
    endpoint = next((os.environ[name] for name in _ENDPOINTS[scheme] if os.environ.get(name)), "")
    if endpoint.lower().startswith("http://"):
        config["allow_http"] = True
    if purpose == "images":
        config["read_timeout"] = timedelta(seconds=20)
        config["timeout"] = timedelta(minutes=2)
    else:
        config["timeout"] = timedelta(minutes=10)
    return config


def _retries(purpose: Purpose) -> RetryConfig:
    return {
        "max_retries": 6 if purpose == "images" else 8,
        "retry_timeout": timedelta(minutes=1 if purpose == "images" else 3),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    }
