"""What any package may need, without knowing of networks: files, strict JSON, progress, this machine."""
