#!/usr/bin/env python3
"""Small real files for the fuzzers to start from: one directory of them for each target.

usage: seeds.py DIR

Made by GNU tar, bsdtar, Python's tarfile, gzip and zstd, as far as they are there.
"""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

out = sys.argv[1]


def put(target, name, data):
    os.makedirs(os.path.join(out, target), exist_ok=True)
    with open(os.path.join(out, target, name), "wb") as file:
        file.write(data)


def run(*command, cwd, stdin=b""):
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=cwd, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout if done.returncode == 0 else None


def tree(root):
    """Something of everything that an ordinary user can make."""
    os.makedirs(os.path.join(root, "dir/sub"))
    open(os.path.join(root, "dir/file"), "w").write("content\n")
    open(os.path.join(root, "empty"), "w").close()
    open(os.path.join(root, "dir/.wh.gone"), "w").close()
    open(os.path.join(root, "dir/.wh..wh..opq"), "w").close()
    os.symlink("../dir/file", os.path.join(root, "dir/link"))
    os.link(os.path.join(root, "dir/file"), os.path.join(root, "hard"))
    os.mkfifo(os.path.join(root, "fifo"))
    os.chmod(os.path.join(root, "empty"), 0o4755)


def archives(root):
    long = os.path.join("d" * 90, "f" * 90)
    os.makedirs(os.path.join(root, os.path.dirname(long)))
    open(os.path.join(root, long), "w").write("long")
    with open(os.path.join(root, "sparse"), "wb") as file:
        file.write(b"x" * 10)
        file.truncate(100_000)
    for place, directories, files in os.walk(root, topdown=False):
        for name in directories + files:
            # The same times every time.
            os.utime(os.path.join(place, name), ns=(0, 1_350_244_992_023_960_108), follow_symlinks=False)
    flat = ["--sort=name", "--numeric-owner", "-b1"]
    for form in ["v7", "ustar", "gnu", "oldgnu", "pax"]:
        names = ["dir", "empty", "hard", "fifo"] if form != "v7" else ["dir", "empty", "hard"]
        yield "gnu-" + form, run("tar", "-c", "--format=" + form, *flat, *names, cwd=root)
        yield "gnu-long-" + form, run("tar", "-c", "--format=" + form, *flat, long, cwd=root)
    yield "gnu-sparse-old", run("tar", "-cS", "--format=gnu", *flat, "sparse", cwd=root)
    for version in ["0.0", "0.1", "1.0"]:
        command = ["tar", "-cS", "--format=pax", "--sparse-version=" + version, *flat, "sparse"]
        yield "gnu-sparse-" + version, run(*command, cwd=root)
    for form in ["ustar", "pax", "gnutar", "v7"]:
        yield "bsd-" + form, run("bsdtar", "-b1", "-c", "--format=" + form, "-f", "-", "dir", "empty", "hard", cwd=root)
        yield "bsd-long-" + form, run("bsdtar", "-b1", "-c", "--format=" + form, "-f", "-", long, cwd=root)
    for name, form in [("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for kind in [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE]:
                member = tarfile.TarInfo("member-%d" % kind[0])
                member.type, member.linkname = kind, "target" if kind == tarfile.SYMTYPE else ""
                member.devmajor, member.devminor = (1, 3) if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE) else (0, 0)
                archive.addfile(member)
            member = tarfile.TarInfo("é" * (40 if form == tarfile.USTAR_FORMAT else 120))
            member.size, member.uid = 3, 2_000_000
            if form == tarfile.PAX_FORMAT:
                member.mtime = -1.25
                member.pax_headers = {"SCHILY.xattr.user.note": "value", "comment": "x"}
            archive.addfile(member, io.BytesIO(b"abc"))
        # Without the padding to whole records.
        data = buffer.getvalue().rstrip(b"\0")
        yield "python-" + name, data + bytes(-len(data) % 512 + 1024)
    yield "empty", bytes(1024)


def main():
    with tempfile.TemporaryDirectory() as root:
        tree(root)
        for name, data in archives(root):
            if data is not None:
                put("tar", name, data[: 16 << 10])
    contents = [b"", b"x", b"some content, some content, some content\n" * 20, bytes(range(256)) * 4, bytes(5000)]
    for number, content in enumerate(contents):
        for level in [1, 9]:
            put("gzip", "%d-%d" % (number, level), gzip.compress(content, level, mtime=0))
            packed = run("zstd", "-%d" % level, "-c", "--check", cwd="/", stdin=content)
            if packed is not None:
                put("zstd", "%d-%d" % (number, level), packed)
    put("gzip", "two", gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0))
    fields = b"\x1f\x8b\x08\x1c\0\0\0\0\0\3\3\0abcname\0comment\0" + gzip.compress(b"x", mtime=0)[10:]
    put("gzip", "fields", fields)
    for level in ["-19", "--fast=3"]:
        packed = run("zstd", level, "-c", "--no-check", cwd="/", stdin=contents[2] + contents[3])
        if packed is not None:
            skippable = b"\x5f\x2a\x4d\x18\3\0\0\0abc"
            put("zstd", "skip" + level, skippable + packed + skippable + packed)
    digest = "sha256:" + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    oci, docker = "application/vnd.oci.image.", "application/vnd.docker."
    descriptor = {"mediaType": oci + "config.v1+json", "digest": digest, "size": 2}
    layers = [{"mediaType": oci + "layer.v1.tar+" + how, "digest": digest, "size": 32} for how in ["gzip", "zstd"]]
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    listed = {"mediaType": oci + "manifest.v1+json", "digest": digest, "size": 7, "platform": platform,
              "annotations": {"org.opencontainers.image.ref.name": "1"}}
    attested = {"mediaType": oci + "manifest.v1+json", "digest": digest, "size": 7,
                "platform": {"os": "unknown", "architecture": "unknown"}}
    for name, stated, document in [
        ("manifest", 2, {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": descriptor, "layers": layers}),
        ("bare", 0, {"schemaVersion": 2, "config": descriptor, "layers": layers[:1]}),
        ("docker", 4, {"schemaVersion": 2, "mediaType": docker + "distribution.manifest.v2+json",
                       "config": dict(descriptor, mediaType=docker + "container.image.v1+json"),
                       "layers": [dict(layers[0], mediaType=docker + "image.rootfs.diff.tar.gzip")]}),
        ("index", 1, {"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": [listed, attested]}),
        ("attested", 1, {"schemaVersion": 2, "manifests": [dict(attested, size=9), listed]}),
        ("config", 0, dict(platform, rootfs={"type": "layers", "diff_ids": [digest, digest]})),
        ("schema1", 6, {"schemaVersion": 1, "fsLayers": [{"blobSum": digest}]}),
    ]:
        put("document", name, bytes([stated]) + json.dumps(document, separators=(",", ":")).encode())
    for number, name in enumerate([
        "debian", "debian:12", "docker.io/library/debian:12@" + digest, "localhost:5000/a/b_c__d-e.f:T_a-g.1", digest,
        digest.replace(":", "-"), "linux/arm/v7", "linux/amd64", "[::1]:5000/x@" + digest, "dir:tag", "dir@" + digest,
        "example.org:443/a", "sha512:" + "0a" * 64,
    ]):
        put("name", str(number), name.encode())
    manifest = b'name = "a"\nversion = "1"\nworld = "decoder"\n[decoder]\nmedia-types = ["a/b"]\nmagic = ["fd37"]\n' \
        b'[capabilities]\nhttp = ["registry", "POST https://a.b:8443"]\nread = ["/etc"]\n[limits]\nmemory = "1MiB"\n'
    section = b"\x10cofferdam:plugin" + manifest
    length = bytes([len(section) & 0x7F | 0x80, len(section) >> 7])
    put("plugin", "manifest", manifest)
    put("plugin", "component", b"\0asm\x0d\0\x01\0\0" + length + section)
    for number, rule in enumerate(["https://example.com", "GET,POST http://[::1]:5000", "registry"]):
        put("plugin", str(number), rule.encode())
    for number in range(8):
        put("claim", str(number), bytes((number * 37 + at * at) % 256 for at in range(400)))


main()
