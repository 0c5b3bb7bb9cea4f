"""Prints the floors of pyproject.toml, one `name==floor` a line, of what is installed for users and tests."""

import re
import tomllib
from pathlib import Path

OF_DEVELOPERS = {"dev", "peers", "trainers", "servers", "torch", "docs"}

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
texts = [
    *project["dependencies"],
    *(text for name, each in extras.items() if name not in OF_DEVELOPERS for text in each),
]
floors = dict(found.groups() for text in texts if (found := re.match(r"([\w.-]+)>=([\w.]+)", text)))
for name, floor in sorted(floors.items()):
    print(f"{name}=={floor}{'.*' if floor.count('.') < 2 else ''}")
