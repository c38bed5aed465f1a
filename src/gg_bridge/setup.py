from setuptools import find_packages, setup

package_name = "gg_bridge"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["config.schema.json", "recipes/recipe.schema.json"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Evergreen maintainers",
    maintainer_email="maintainers@evergreen-robotics.dev",
    description="Lets AWS IoT Greengrass replace the model that a robot runs",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "gg_bridge = gg_bridge.node:main",
        ],
    },
)
