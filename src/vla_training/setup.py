from setuptools import find_packages, setup

package_name = "vla_training"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["configs/*.yaml", "prompts/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Evergreen maintainers",
    maintainer_email="maintainers@evergreen-robotics.dev",
    description="Records, trains, exports and evaluates policies",
    license="Apache-2.0",
)
