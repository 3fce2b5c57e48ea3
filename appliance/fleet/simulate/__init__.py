"""Thousands of boxes in one process, which speak MQTT 5 and nothing of medicine: for figures and for demonstrations."""
