#!/usr/bin/env bash
# SimpleITK 2.5.7: a compressed .mha without the optional CompressedDataSize comes back with other voxels.
#
# Guess: without the size the stream is read to the end of the file, or the file is refused.
# Seen: no exception, and all voxels are wrong. The one sign is "Uncompress failed" on stderr.
#       MetaIO takes the size of the whole file for that of the stream, header and all; of a detached .mhd, whose data
#       file holds nothing else, it reads every voxel right.
# Behind it here: ctpatch/images/volume.py inflates itself and needs no size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6 2>/dev/null

cat > "$folder/read.py" <<'PY'
import pathlib, re, sys
import numpy as np
import SimpleITK as sitk

voxels = np.arange(1, 7 * 6 * 5 + 1, dtype=np.int16).reshape(5, 6, 7)
wrong = {}
for suffix in (".mhd", ".mha"):
    path = pathlib.Path(sys.argv[1], f"ct{suffix}")
    sitk.WriteImage(sitk.GetImageFromArray(voxels), path, useCompression=True)
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", b"", path.read_bytes()))
    found = sitk.GetArrayFromImage(sitk.ReadImage(path))
    wrong[suffix] = int((found != voxels).sum())
print(f"SimpleITK {sitk.Version.VersionString()}: of {voxels.size} voxels are wrong {wrong}")
assert wrong[".mhd"] == 0 and wrong[".mha"] > voxels.size / 2
PY
"$folder/venv/bin/python" "$folder/read.py" "$folder"
