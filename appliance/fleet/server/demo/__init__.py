"""A whole fleet on one machine: a server, real box agents and simulated boxes, and what happens to them."""
