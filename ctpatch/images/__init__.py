"""Readers of CT images: DICOM series (single-frame and Enhanced), NIfTI, NRRD and MHA volumes."""
