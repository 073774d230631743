"""DICOM files: data sets by pydicom, headers by a walk over their elements, pixel data by pinned decoders."""
