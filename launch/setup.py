from pathlib import Path

from setuptools import setup

package_name = "evergreen_bringup"
share = f"share/{package_name}"


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """Every file below `folder`, to the same place in the share folder."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            found.setdefault(f"{share}/{path.parent}", []).append(str(path))
    return list(found.items())


setup(
    name=package_name,
    version="0.1.0",
    packages=[package_name],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (share, ["package.xml", *map(str, sorted(Path().glob("*.launch.xml")))]),
        *tree("config"),
        *tree("rviz"),
        *tree("urdf"),
        (f"{share}/models/expert", ["../models/expert/manifest.json"]),  # what the demo runs unless told otherwise
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Evergreen maintainers",
    maintainer_email="maintainers@evergreen-robotics.dev",
    description="Launch files and configuration of Evergreen: the robot, and the same graph in simulation",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "robot_description = evergreen_bringup.node:main",
        ],
    },
)
