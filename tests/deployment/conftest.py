"""Images and manifests, checked without an engine or a cluster: resolved by the tools' own code, validated against the
schemas, and held against what the programs really take. `make deployment` builds what is needed first."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target" / "tools"
PROGRAMS = ROOT / "target" / "debug"
OVERLAYS = ["dev", "production"]
SERVICES = ["ingest", "watermark-coordinator", "window-worker"]


def run(*command, **options):
    """What a command prints; it has to succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"
    return done.stdout


def kustomize(folder):
    """The resources of an overlay."""
    return list(yaml.safe_load_all(run(TOOLS / "bin" / "kustomize", "build", ROOT / folder)))


@pytest.fixture(scope="session")
def overlays():
    return {name: kustomize(f"k8s/overlays/{name}") for name in OVERLAYS}


def composed(*files):
    return json.loads(run(TOOLS / "bin" / "compose", "-format=json", *files, cwd=ROOT / "docker"))


@pytest.fixture(scope="session")
def compose():
    return composed("compose.yaml")


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


def accepted(words, job, environment=None):
    """What a program makes of its command line: the services as their configuration, `tidegate` as its help."""
    program, *arguments = words
    arguments = [re.sub(r"^--job=.*", f"--job={job}", argument) for argument in arguments]
    if program == "tidegate":
        run(PROGRAMS / program, *arguments, "--help")
        return {}
    return json.loads(run(PROGRAMS / program, *arguments, "--print-config", env=environment))


def seconds(text):
    """`20s` → 20"""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def size(text):
    """`512Mi`, `512MiB`, `1Gi` → bytes"""
    number, unit = re.fullmatch(r"(\d+)([KMGT]i)B?", text).groups()
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[unit]


def pytest_collection_modifyitems(items):
    """Where a test's needs are missing it is skipped in words that are seen; where CI is set it fails instead."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            assert not os.environ.get("CI"), f"{item.name} needs root, and where CI is set it has to run"
            item.add_marker(pytest.mark.skip(reason="SKIPPED: needs root, for chroot"))
