"""One file per backend; each is imported only when it is opened, so that a machine without its library still starts."""
