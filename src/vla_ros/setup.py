from setuptools import find_packages, setup

package_name = "vla_ros"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    package_data={package_name: ["fastdds/*.xml"]},
    zip_safe=False,
    maintainer="Evergreen maintainers",
    maintainer_email="maintainers@evergreen-robotics.dev",
    description="Shared ROS 2 code of Evergreen: parameters, QoS, diagnostics, start-up",
    license="Apache-2.0",
)
