#!/usr/bin/env python3
"""Checks reports against the official schema of CycloneDX 1.6: validate.py FILE…, or standard input without a file.

Needs `pip install 'cyclonedx-python-lib[json-validation]'`, which carries the schema. Also checks what the schema does not
say: package URLs can be parsed and are unique, and references are.
"""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL


def problems(text):
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        yield str(error)
        return
    seen = set()
    for component in json.loads(text)["components"]:
        reference = component["bom-ref"]
        if reference in seen:
            yield f"{reference}: twice"
        seen.add(reference)
        # Packages of a distribution that is not known have none.
        purl = component.get("purl")
        if purl is None:
            continue
        if purl != reference:
            yield f"{purl}: not the reference {reference}"
        # Slashes and colons may be written in two ways; what counts is that nothing is lost.
        parsed = PackageURL.from_string(purl)
        if parsed.version != component.get("version"):
            yield f"{purl}: not the version {component.get('version')}"


def main():
    texts = {path: open(path, encoding="utf-8").read() for path in sys.argv[1:]} or {"-": sys.stdin.read()}
    failed = False
    for path, text in texts.items():
        found = list(problems(text))
        for problem in found:
            print(f"{path}: {problem}", file=sys.stderr)
        failed |= bool(found)
        if not found:
            print(f"{path}: {len(json.loads(text)['components'])} components")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
