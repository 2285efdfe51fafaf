"""The image: its recipe, and its root file system laid out from the programs at hand. No engine is needed, none is tried."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import PROGRAMS, ROOT, TOOLS, run

# Of the whole image, uncompressed. Where there is no release program that of the development profile stands in, which is larger.
LIMIT = 60_000_000


def programs():
    release = PROGRAMS.parent / "release"
    return release if (release / "tidegate-all").exists() else PROGRAMS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image") / "root"
    run(ROOT / "docker/rootfs.sh", programs(), folder, cwd=ROOT)
    yield folder
    shutil.rmtree(folder)


def test_the_recipe_is_well_formed():
    run(TOOLS / "python/bin/hadolint", ROOT / "docker/Dockerfile")


@pytest.mark.root
@pytest.mark.parametrize("program", ["ingest", "watermark-coordinator", "window-worker", "tidegate"])
def test_a_program_runs_in_it_without_root(root, program):
    said = run("chroot", "--userspec=65532:65532", root, f"/usr/local/bin/{program}", "--version")
    assert said.split()[0] == program


@pytest.mark.root
def test_a_name_is_resolved_in_it_and_the_health_check_tells_an_unready_service(root):
    check = re.search(r'^HEALTHCHECK .*CMD \["(.*)"\]$', (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    program, *arguments = check.group(1).split('", "')
    assert arguments == ["ready", "127.0.0.1:9100"]
    shutil.copy("/etc/hosts", root / "etc/hosts")
    done = subprocess.run(["chroot", "--userspec=65532:65532", root, f"/usr/local/bin/{program}", "ready", "localhost:1"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "refused" in done.stderr, done.stderr


@pytest.mark.root
def test_there_is_nothing_else_in_it_and_its_volume_is_its_users(root):
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    allowed = ("usr/local/bin/", "lib/", "lib64/", "usr/lib/", "usr/share/doc/tidegate/", "etc/")
    assert all(str(path).startswith(allowed) for path in files), files
    assert not any(re.search(r"/(sh|bash|apt|dpkg|perl)$", str(path)) for path in files)
    owner = os.stat(root / "var/lib/tidegate")
    assert (owner.st_uid, owner.st_gid) == (65532, 65532)


def test_it_is_small(root):
    files = [path for path in pathlib.Path(root).rglob("*") if path.is_file() and not path.is_symlink()]
    total = sum(path.stat().st_size for path in files)
    print(f"{total / 1e6:.1f} MB")
    assert total <= LIMIT, f"{total / 1e6:.1f} MB"
