"""What every package needs and that knows nothing of networks: files, strict JSON, progress, this machine."""
