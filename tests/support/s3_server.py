"""A local S3 server, as a user's own endpoint would be, and machines that share nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass
class S3:
    """A server with one bucket, and a client that the product knows nothing of."""

    environment: dict[str, str]
    client: Any
    bucket: str = "llmkt-tests"

    def url(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}"

    def keys(self, prefix: str) -> list[str]:
        """Names below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{prefix}/"
        )
        found = [stored["Key"] for page in pages for stored in page.get("Contents", [])]
        return sorted(key.removeprefix(f"{prefix}/") for key in found)

    def get(self, prefix: str, name: str) -> bytes:
        found = self.client.get_object(Bucket=self.bucket, Key=f"{prefix}/{name}")
        return found["Body"].read()

    def put(self, prefix: str, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{prefix}/{name}", Body=content)

    def delete(self, prefix: str, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{prefix}/{name}")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    """The server, and in the environment what a user would set."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        found = S3(environment, boto3.client("s3"))
        found.client.create_bucket(Bucket=found.bucket)
        yield found
    server.stop()


@pytest.fixture
def move(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Move this process to a machine, by its name, which uses the store at a URL."""

    def to(machine: str, url: str) -> None:
        monkeypatch.setenv("LLMKT_LOCAL_DIR", str(tmp_path / machine))
        monkeypatch.setenv("LLMKT_DATA_DIR", url)

    return to
