"""DICOM objects that tell what an analysis said: records in, a data set out. No sockets, no database."""
