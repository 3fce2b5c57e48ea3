"""One service team and thousands of boxes, over MQTT: what they say to each other, the box's link, the server."""
