"""Roll-outs: a version of a package, wave by wave, to the boxes of a tenant, and the gates between the waves."""
