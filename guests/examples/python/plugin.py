"""The component: the world `inspector` over `licenses`. `wit_world` is made by componentize-py out of `wit/`."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.inspection import Interest, Subject
from wit_world.imports import log, settings
from wit_world.imports.tree import Entry, Node_File
from wit_world.imports.types import Failure_Refused, Refusal

import licenses

report = None
# Package, path and bytes of the file that is being read.
reading = None


def take():
    """Reads the file whose content is complete."""
    global reading
    if reading is None:
        return
    name, path, content = reading
    reading = None
    judge(path, report.add(name, bytes(content)))


def judge(path, reason):
    """Refuses the layer if there is a reason to."""
    if reason is not None:
        raise Err(Failure_Refused(Refusal(path, reason)))


class Inspection(exports.Inspection):
    def begin(self, subject: Subject) -> None:
        global report
        report = licenses.Report(settings.get("deny") or "")

    def see(self, entry: Entry) -> Interest:
        global reading
        take()
        name = licenses.package(entry.path)
        if name is None or not isinstance(entry.node, Node_File):
            return Interest.NONE
        if entry.node.value > licenses.FILE:
            judge(entry.path, report.skip(name))
            return Interest.NONE
        reading = (name, entry.path, bytearray())
        return Interest.CONTENT

    def content(self, bytes: bytes) -> None:
        reading[2].extend(bytes)

    def finish(self) -> bytes:
        take()
        log.message(log.Level.INFO, f"{len(report.packages)} packages with a copyright file")
        return report.json()
