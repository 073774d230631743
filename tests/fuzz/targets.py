"""All fuzz targets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import images, masks, segmentations, tables, volumes
from .target import Target

TARGETS: dict[str, Callable[[Path], Target]] = {
    "manifest": tables.manifest_target,
    "header": images.header_target,
    "series": images.series_target,
    "enhanced": images.enhanced_target,
    "rtstruct": masks.rtstruct_target,
    "lidc": masks.lidc_target,
    "seg": masks.seg_target,
    "volume": volumes.volume_target,
    "labelmap": volumes.labelmap_target,
    "segmentation": segmentations.segmentation_target,
    "scan": masks.scan_target,
    "store": tables.store_target,
    "part": tables.part_target,
}
"""What makes each of them, given a folder of its own."""
