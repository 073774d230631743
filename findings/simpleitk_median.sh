#!/usr/bin/env bash
# SimpleITK 2.5.7: a lesion's median HU depends on voxels that are not its own: with metal in the scan it is 30 HU off.
#
# Guess: GetMedian of the two filters of label statistics is the median of the label's voxels, as GetMean is their mean; whole
#        numbers of 16 bits have a bin each since InsightSoftwareConsortium/ITK#2482, so that it is exact.
# Seen: it is read off a histogram of 256 (LabelStatistics) or 128 bins (LabelIntensityStatistics, where SimpleITK sets them)
#       from the least to the greatest value of the whole image. Of a lesion whose median is 38 HU, in a scan from -1024 to
#       3071 HU, they say 39.7 and 47.7; with a clip of 30,000 HU somewhere in it 6.1 and 66.7; in the lesion's own crop 38.0
#       and 37.9. In int16 and float32 alike; mean, least and greatest are right.
# Behind it here: the median HU of a lesion in ctpatch/report is numpy's, of its own voxels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.4.6 2>/dev/null

cat > "$folder/median.py" <<'PY'
import numpy as np
import SimpleITK as sitk

print("SimpleITK", sitk.Version.VersionString())
scan = np.full((20, 40, 40), -1024, np.int16)
scan[:, 5:35, 5:35] = 60
scan[0, 0, :5] = 3071
mask = np.zeros(scan.shape, np.uint8)
mask[8:12, 15:25, 15:25] = 1
scan[mask > 0] = np.rint(np.random.default_rng(0).normal(39, 12, 400))
right = float(np.median(scan[mask > 0]))
clip = scan.copy()
clip[0, 0, 20] = 30000
own = slice(8, 12), slice(15, 25), slice(15, 25)
for name, voxels, labels in (("scan", scan, mask), ("scan with a clip", clip, mask), ("crop", scan[own], mask[own])):
    for kind in (np.int16, np.float32):
        image, label = sitk.GetImageFromArray(voxels.astype(kind)), sitk.GetImageFromArray(labels)
        one, other = sitk.LabelStatisticsImageFilter(), sitk.LabelIntensityStatisticsImageFilter()
        one.Execute(image, label)
        other.Execute(label, image)
        found = one.GetMedian(1), other.GetMedian(1)
        print(f"{name}, {kind.__name__}: {found[0]:.1f} and {found[1]:.1f}, should be {right:g};",
              f"mean {one.GetMean(1):.2f} and {other.GetMean(1):.2f}")  # fmt: skip
        assert np.allclose((one.GetMean(1), other.GetMean(1)), voxels[labels > 0].mean(), atol=1e-4)
        least, most = {"scan": (1, 12), "scan with a clip": (25, 40), "crop": (0, 0.3)}[name]
        off = np.abs(np.array(found) - right)
        assert least <= off.max() <= most and off.min() >= least
PY
"$folder/venv/bin/python" "$folder/median.py"
