"""From files, archives and shards to pixels, labels and batches."""
