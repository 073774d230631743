#!/usr/bin/env bash
# MONAI 1.6.1: of an NRRD whose space is written LPS, not left-posterior-superior, NrrdReader turns the patient half round.
#
# Guess: affines are in RAS whatever space the header names, as with ITKReader, or an unknown space is refused. LPS is
#        the format's own short name of left-posterior-superior.
# Seen: the header's text is compared with the long name alone; any other space is taken for RAS. In LPS a voxel 100 mm to
#       the right and 50 mm in front of the origin lies 100 mm to the left and 50 mm behind it; in left-anterior-superior left
#       and right are swapped. No word of it. LoadImage without a reader takes NrrdReader where pynrrd is installed.
#       ITKReader and SimpleITK read all of them alike.
# Behind it here: NRRD_FIELDS in ctpatch/images/volume_header.py has the spaces that are read, by both names.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    monai==1.6.1 torch==2.14.1 pynrrd==1.1.3 SimpleITK==2.5.7 itk-io==5.4.7 numpy==2.4.6 2>/dev/null

cat > "$folder/space.py" <<'PY'
import sys, warnings

warnings.simplefilter("ignore")
import monai, nrrd
import numpy as np
import SimpleITK as sitk
from monai.transforms import LoadImage

path = f"{sys.argv[1]}/ct.nrrd"
voxels = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
steps, origin = np.diag([0.75, 0.75, 2.5]), np.array([-100.0, -50, 30])  # in LPS: to the right and in front
print("MONAI", monai.__version__, "where the first voxel lies in RAS (100, 50, 30):")
for space, signs, read in (("left-posterior-superior", (1, 1, 1), (1, 1)), ("right-anterior-superior", (-1, -1, 1), (1, 1)),
                           ("RAS", (-1, -1, 1), (1, 1)), ("LPS", (1, 1, 1), (-1, -1)),
                           ("left-anterior-superior", (1, -1, 1), (-1, 1))):  # fmt: skip
    nrrd.write(path, voxels, {"space": space, "space directions": steps * signs, "space origin": origin * signs})
    assert np.allclose(sitk.ReadImage(path).GetOrigin(), origin)
    by_itk = np.asarray(LoadImage(reader="ITKReader")(path).affine)[:3, 3]
    found = [np.asarray(LoadImage(reader=reader)(path).affine)[:3, 3] for reader in ("NrrdReader", None)]
    print(f"{space}: NrrdReader {found[0].tolist()}, LoadImage {found[1].tolist()}, ITKReader {by_itk.tolist()}")
    assert np.allclose(by_itk, (100, 50, 30)) and np.allclose(found, (100 * read[0], 50 * read[1], 30))
PY
"$folder/venv/bin/python" "$folder/space.py" "$folder" 2>/dev/null
