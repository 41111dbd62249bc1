"""``python -m resnet_zoo`` is the ``resnet-zoo`` command."""

from resnet_zoo.cli.main import main

if __name__ == "__main__":
    main()
