"""Readers of contours and masks: RTSTRUCT, DICOM SEG, LIDC-IDRI XML, label maps."""
