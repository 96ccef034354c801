"""A local S3 server, as a user's own endpoint would be."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest
from moto.server import ThreadedMotoServer


@dataclass
class S3:
    """A server with one bucket, and a client that nothing of the product knows of."""

    endpoint: str
    client: "object"
    bucket: str = "llmkt-tests"

    def url(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}"

    def keys(self, prefix: str) -> list[str]:
        """Names below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{prefix}/"
        )
        found = [of["Key"] for page in pages for of in page.get("Contents", [])]
        return sorted(key.removeprefix(f"{prefix}/") for key in found)

    def get(self, prefix: str, name: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=f"{prefix}/{name}")["Body"].read()

    def put(self, prefix: str, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{prefix}/{name}", Body=content)

    def delete(self, prefix: str, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{prefix}/{name}")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """The environment that a user would set, for this process and those that it starts."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    client = boto3.client("s3")
    found = S3(settings["AWS_ENDPOINT_URL"], client)
    client.create_bucket(Bucket=found.bucket)
    yield found
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    server.stop()
