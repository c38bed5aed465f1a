from setuptools import find_packages, setup

package_name = "vla_sim"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Evergreen maintainers",
    maintainer_email="maintainers@evergreen-robotics.dev",
    description="MuJoCo tabletop: an SO-101 behind a simulated servo bus, eight MJPEG cameras, a scripted expert",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "simulator = vla_sim.simulator:main",
        ],
    },
)
