from setuptools import find_packages, setup

package_name = "arm_driver"

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
    description="Plays joint trajectories on a serial arm with Feetech servos",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "arm_controller = arm_driver.node:main",
            "arm_ports = arm_driver.ports:main",
        ],
    },
)
