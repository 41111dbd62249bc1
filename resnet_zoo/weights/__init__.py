"""From a weight set, a file or a repository to checked tensors, and back to a file."""
