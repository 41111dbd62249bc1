"""Training: from a recipe and images to weights and a run folder that anyone can check.

Read in this order: ``schedule`` and ``order`` (what happens when), ``augment`` and ``images`` (CIFAR), ``crops``,
``imagenet`` and its shards, ``learner`` (one step), ``checkpoints``, ``loop``, ``trainer``, ``reproduce``.
"""
