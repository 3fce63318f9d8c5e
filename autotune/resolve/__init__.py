"""From past measurements to the configuration and the loader that training uses."""
