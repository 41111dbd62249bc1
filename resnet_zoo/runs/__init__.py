"""Run folders and training curves: read, compared, drawn."""
