"""DICOM without sockets and without a database: headers, character sets, geometry, pixels, codes."""
