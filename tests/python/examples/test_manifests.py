"""The files of examples/kubernetes: Kubernetes' schemas take them, and they start command lines of this version."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from fastgpt_c.cli.commands import parser_of

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs pip install kubernetes-validate")
yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")

FILES = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))
VERSION = "1.37"


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def pod_specs(value: Any) -> list[dict[str, Any]]:
    """Of all templates in a document."""
    if isinstance(value, list):
        return [spec for one in value for spec in pod_specs(one)]
    if not isinstance(value, dict):
        return []
    own = [value["spec"]] if "containers" in value.get("spec", {}) else []
    return own + [spec for name, one in value.items() if name != "spec" or not own for spec in pod_specs(one)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_manifests_follow_the_schemas(path: Path) -> None:
    """Of Kubernetes itself, strictly: no property that it does not know.  A RayJob is KubeRay's; its pods are not."""
    found = documents(path)
    assert found
    for document in found:
        if document["apiVersion"].startswith("ray.io/"):
            for spec in pod_specs(document):
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
                kubernetes_validate.validate(pod, VERSION, strict=True)
        else:
            kubernetes_validate.validate(document, VERSION, strict=True)
    assert sum(len(pod_specs(document)) for document in found) == {"rayjob.yaml": 2}.get(path.name, 1)


def test_a_wrong_property_is_found() -> None:
    """The check can fail."""
    job = documents(ROOT / "examples" / "kubernetes" / "indexed-job.yaml")[0]
    job["spec"]["podFailurePolicy"]["rules"][0]["onExit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSION, strict=True)


def commands(path: Path) -> list[list[str]]:
    """Of containers, and of a RayJob's driver."""
    found: list[list[str]] = []
    for document in documents(path):
        if "entrypoint" in document.get("spec", {}):
            found.append(shlex.split(document["spec"]["entrypoint"]))
        for spec in pod_specs(document):
            for container in spec["containers"]:
                words = [*container.get("command", []), *container.get("args", [])]
                found.append(shlex.split(words[2])[1:] if words[:2] == ["sh", "-c"] else words)
    return [[re.sub(r"\$\w+", "7", word) for word in words] for words in found if words]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_are_of_this_version(path: Path) -> None:
    found = commands(path)
    assert found
    for program, command, *words in found:
        assert program == "fastgpt-c"
        parser_of(command).parse(words)


def test_the_array_has_options_of_this_version() -> None:
    text = (ROOT / "examples" / "slurm" / "batch.sbatch").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^exec (fastgpt-c .*)$", text, re.MULTILINE)
    numbered = line.replace("$SLURM_ARRAY_TASK_ID", "3").replace("$SLURM_ARRAY_TASK_COUNT", "9")
    program, command, *words = shlex.split(re.sub(r"\$\{?\w+(:-\w+)?\}?", "7", numbered))
    assert program == "fastgpt-c"
    assert parser_of(command).parse(words).shard == (3, 9)
