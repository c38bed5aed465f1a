"""Each package.xml names what its code imports, and nothing else."""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    **{path.parent.name: path.parent for path in ROOT.glob("src/*/package.xml")},
    "evergreen_bringup": ROOT / "launch",
}
ROSDEP_KEYS = {
    "boto3": "python3-boto3",
    "cryptography": "python3-cryptography",
    "cv2": "python3-opencv",
    "jsonschema": "python3-jsonschema",
    "matplotlib": "python3-matplotlib",
    "msgpack": "python3-msgpack",
    "numpy": "python3-numpy",
    "pandas": "python3-pandas",
    "rich": "python3-rich",
    "serial": "python3-serial",
    "urllib3": "python3-urllib3",
    "websockets": "python3-websockets",
    "yaml": "python3-yaml",
}
"""Import names whose rosdep key differs."""
WITHOUT_KEY = {
    "awscrt",  # comes with awsiotsdk
    "awsiot",
    "botocore",  # comes with boto3
    "draccus",
    "fast_simplification",
    "imageio_ffmpeg",
    "lerobot",
    "mcap",
    "mcap_ros2",
    "mujoco",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "safetensors",
    "simplejpeg",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
    "zstandard",
}
"""Not in rosdep's index; pyproject.toml and docker/ install them from PyPI."""
NOT_IMPORTED = {
    "evergreen_bringup": {
        "launch_ros",  # read the launch files
        "launch_xml",
        "arm_driver",  # started by them
        "gg_bridge",
        "vla_perception",
        "vla_policy",
        "vla_sim",
        "robot_state_publisher",
    },
    "evergreen": {"evergreen_bringup"},  # the demo plays its launch file
}


def imported(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_package_xml_names_the_real_dependencies(name: str) -> None:
    folder = PACKAGES[name]
    root = ET.parse(folder / "package.xml").getroot()
    declared = {element.text for tag in ("depend", "exec_depend") for element in root.iter(tag)}
    used = imported(folder / name) - {name} - WITHOUT_KEY
    wanted = {ROSDEP_KEYS.get(module, module) for module in used} | NOT_IMPORTED.get(name, set())
    assert declared == wanted


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_every_package_is_an_ament_package_with_a_valid_maintainer(name: str) -> None:
    """An invalid address makes colcon treat a package as plain Python, without a word."""
    root = ET.parse(PACKAGES[name] / "package.xml").getroot()
    assert root.findtext("export/build_type") == "ament_python"
    assert root.findtext("license") == "Apache-2.0"
    maintainer = root.find("maintainer")
    assert maintainer is not None
    local, _, domain = maintainer.get("email", "").partition("@")
    assert local
    assert "." in domain
    assert (PACKAGES[name] / "resource" / name).is_file()
