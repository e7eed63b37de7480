"""Who may ask: keys, hosts, and pages of other origins; what is written down of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import WRONG_USAGE, assert_complains, run
from served import Served, serving

HI = {"prompt": "Once upon a midnight", "max_tokens": 3}


def status_of(server: Served, path: str, **headers: str) -> int:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("POST" if path.startswith("/v1/comp") else "GET", path, HI, names)[0]


def test_keys(tmp_path: Path) -> None:
    """Any of the file's serves, and nothing else; health and the page need none, metrics do.  Neither a key nor a text
    is in the log."""
    keys = tmp_path / "keys"
    keys.write_text("# of the lab\nsecret-one\n\nsecret-two\n")
    with serving("--api-key-file", keys, "--allowed-host", "gpt.example.org") as server:
        for key in ("secret-one", "secret-two"):
            assert status_of(server, "/v1/completions", Authorization=f"Bearer {key}") == 200
        for wrong in (
            "Bearer secret",
            "Bearer secret-one2",
            "secret-one",
            "Basic secret-one",
            "Bearer # of the lab",
            "",
        ):
            status, headers, data = server.request("POST", "/v1/completions", HI, {"Authorization": wrong})
            assert status == 401 and headers["www-authenticate"] == "Bearer"
            assert json.loads(data)["error"]["code"] == "invalid_api_key"
        assert status_of(server, "/metrics") == 401 == status_of(server, "/nothing")
        open_paths = ("/health", "/ready", "/", "/pages/studio/app.js", "/pages/base.css")
        assert [status_of(server, path) for path in open_paths] == [200] * len(open_paths)
        assert status_of(server, "/health", Host="gpt.example.org") == 200
        assert server.stop() == 0
        log = "\n".join(server.log)
        assert "/v1/completions" in log and "secret" not in log and "midnight" not in log


def test_texts_in_the_log_where_they_are_asked_for() -> None:
    """With --log-text alone."""
    with serving("--log-text") as server:
        text = server.post("/v1/completions", **HI)["choices"][0]["text"]
        assert "midnight" in server.wait_for(repr(text))


FOREIGN = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "a@localhost"]


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_hosts(served: Served, host: str) -> None:
    """A name that somebody else's DNS points here is refused."""
    assert status_of(served, "/health", Host=host) == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "192.168.0.7"])
def test_own_hosts(served: Served, host: str) -> None:
    """This machine's own names and plain addresses are not."""
    assert status_of(served, "/health", Host=host) == 200


def test_pages_of_other_origins(served: Served) -> None:
    """May do nothing, unless the operator names their origin; then their preflight may send OpenAI's headers."""
    assert status_of(served, "/v1/completions", Origin="https://evil.example") == 403
    assert status_of(served, "/v1/completions", Origin="null") == 403
    assert status_of(served, "/v1/completions", Origin=served.url, Host=served.url[7:]) == 200
    assert "access-control-allow-origin" not in served.request("GET", "/health")[1]
    with serving("--cors-origin", "https://good.example") as server:
        asked = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
        status, headers, _ = server.request("OPTIONS", "/v1/completions", None, asked)
        assert status == 204 and headers["access-control-allow-origin"] == "https://good.example"
        assert {"authorization", "x-stainless-retry-count"} <= set(headers["access-control-allow-headers"].split(", "))
        status, headers, _ = server.request("POST", "/v1/completions", HI, {"Origin": "https://good.example"})
        assert status == 200 and headers["access-control-allow-origin"] == "https://good.example"
        assert status_of(server, "/v1/completions", Origin="https://evil.example") == 403


def test_other_machines_need_a_key() -> None:
    """A server that they reach is refused without one, unless that is said."""
    assert_complains(run("serve", "--host", "0.0.0.0"), WRONG_USAGE, "--no-key", "FASTGPT_API_KEY")
    with serving("--host", "0.0.0.0", "--no-key") as server:
        assert server.get("/health")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "65535"),
        (["--ssl-certfile", "a.pem"], "--ssl-keyfile"),
        (["--max-batch", "0"], "max_batch"),
        (["--request-timeout", "0"], "--request-timeout"),
        (["--host", "256.0.0.1"], "--host"),
        (["-m", "/nowhere.gguf", "--port", "0"], "nowhere"),
    ],
)
def test_options_that_cannot_be(options: list[str], words: str) -> None:
    """One line and no traceback, also for what comes to light after the server listens."""
    result = run("serve", *options)
    assert result.returncode in (1, WRONG_USAGE) and result.stdout == b""
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("fastgpt-c: ") and words in last and b"Traceback" not in result.stderr
