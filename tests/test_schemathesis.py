"""Schemathesis, with all its checks, against the running service."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.contract import CLIENT_DOCUMENT, CONTRACT, EXTENSIONS, OFREP
from tests.processes import Service, clean_environment, make_token

# Statuses that HTTP defines or the security scheme implies, in addition to those in the contract.
IMPLIED_STATUSES = ("401", "405", "413", "415")


@pytest.mark.parametrize(
    ("document", "options"),
    [
        (CONTRACT, []),
        # Schemathesis regards an If-Match without quotation marks as valid, and expects that it is accepted.
        (CLIENT_DOCUMENT, ["--exclude-checks", "positive_data_acceptance"]),
        (EXTENSIONS, []),
        (OFREP, []),
    ],
    ids=["contract", "client", "extensions", "ofrep"],
)
def test_schemathesis_finds_no_fault(
    service: Service, tmp_path: Path, tenant: str, document: dict[str, Any], options: list[str]
) -> None:
    document = copy.deepcopy(document)
    for path in document["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            operation["responses"] = dict.fromkeys(IMPLIED_STATUSES, responses["500"]) | responses
    file = tmp_path / "document.json"
    file.write_text(json.dumps(document))
    # An event stream is endless: read its first event only. There is none if the request names the current version.
    (tmp_path / "schemathesis.toml").write_text("max-stream-events = 1\nrequest-timeout = 2\n")
    for enabled in (True, False, True, False):
        service.client(make_token(tenant)).post({"enabled": enabled})
    address = f"{service.url}{urlsplit(document['servers'][0]['url']).path}"
    arguments = ["--url", address, "--header", f"Authorization: Bearer {make_token(tenant)}", "--checks", "all"]
    limits = ["--max-examples", "100", "--seed", "1", "--generation-database", "none", "--no-color"]
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(file), *arguments, *limits, *options]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment({}), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 selected / 2 total" in done.stdout, done.stdout
