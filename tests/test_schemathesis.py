"""Schemathesis, with all its checks, against the served application."""

import copy
import json
import subprocess
import sys
from pathlib import Path

from tests.contract import CONTRACT
from tests.processes import Service, clean_environment, make_token

# What HTTP defines and the security scheme implies is allowed beside what the contract documents.
BESIDE = ("401", "405", "413", "415")


def test_no_request_that_schemathesis_makes_up_finds_a_fault(service: Service, tmp_path: Path, tenant: str) -> None:
    contract = copy.deepcopy(CONTRACT)
    for operation in contract["paths"]["/config/sales_order/external_oms"].values():
        error = operation["responses"]["500"]
        operation["responses"] |= dict.fromkeys(BESIDE, error)
    document = tmp_path / "contract.json"
    document.write_text(json.dumps(contract))
    address = f"http://127.0.0.1:{service.port}/v0"
    arguments = ["--url", address, "--header", f"Authorization: Bearer {make_token(tenant)}", "--checks", "all"]
    limits = ["--max-examples", "100", "--seed", "1", "--generation-database", "none", "--no-color"]
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(document), *arguments, *limits]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment({}), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 selected / 2 total" in done.stdout, done.stdout
