"""Packs a folder, reproducibly, as a zip file for Windows and as .tar.gz for others: pack.py FOLDER OUT

Prints the path. Times are SOURCE_DATE_EPOCH, or that of the last commit.
"""

import gzip
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path


def source_date():
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    return int(subprocess.check_output(["git", "log", "-1", "--format=%ct"]))


def mode(path, root):
    return 0o755 if path.relative_to(root).parts[1:] in [("bdh-gpu",), ("bdh-gpu.exe",)] else 0o644


def pack_zip(path, files, root, date):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), time.gmtime(date)[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | mode(file, root)) << 16
            archive.writestr(entry, file.read_bytes())


def pack_tar(path, files, root, date):
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=date) as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for file in files:
                entry = tarfile.TarInfo(file.relative_to(root).as_posix())
                entry.size, entry.mtime, entry.mode = file.stat().st_size, date, mode(file, root)
                with open(file, "rb") as content:
                    archive.addfile(entry, content)


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    is_zip = "windows" in folder.name
    path = out / (folder.name + (".zip" if is_zip else ".tar.gz"))
    (pack_zip if is_zip else pack_tar)(path, files, folder.parent, source_date())
    print(path)


main()
