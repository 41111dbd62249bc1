"""From a recipe or a tuning and images to weights and a run folder that anyone can check.

Read in this order: ``order`` (what happens when), ``augment`` and ``held_images`` (CIFAR), ``crops`` and ``imagenet``,
``learner`` (one step), ``snapshots``, ``loop``, ``reproduce``; and ``finetuning``, which stands on the same parts.
"""
