"""Asks a server what its document allows, and what it does not: no answer may be a fault, or outside the document.

    python tools/probe_server.py [--minutes 10] [-m MODEL]

Starts fastgpt-c serve and runs schemathesis (PyPI) against its /openapi.json.  The status is that of schemathesis.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

# What a request may get: positive ones may still be too long, and negative ones are refused by name.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("-m", "--model")
    options = parser.parse_args()
    scripts = Path(sysconfig.get_path("scripts"))
    command = [str(scripts / "fastgpt-c"), "serve", "--port", "0", "--request-timeout", "20"]
    process = subprocess.Popen(command + (["-m", options.model] if options.model else []), stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            found = re.search(rb"listening on (\S+)", line)
            url = found[1].decode() if found else url
            if b"is ready" in line:
                break
        tested = subprocess.Popen(
            [scripts / "schemathesis", "run", f"{url}/openapi.json", "--url", url, "--checks", CHECKS, "--no-color",
             "--request-timeout", "60", "--max-examples", str(int(200 * options.minutes))],
        )  # fmt: skip
        for _ in process.stderr:  # a full pipe would stop the server
            if tested.poll() is not None:
                break
        return tested.wait()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
