"""The fleet server: it takes in what boxes say, knows every box, and tells boxes what to do."""
