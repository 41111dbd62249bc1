"""The commands of ``resnet-zoo``, a module per subject; ``cli.py`` puts them together.

torch and rich are imported only inside the commands that need them.
"""
