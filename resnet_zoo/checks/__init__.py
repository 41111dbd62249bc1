"""Numbers held against what is published and, once they hold, written into the manifest."""
