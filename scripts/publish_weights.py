"""The same as ``resnet-zoo publish``."""

from resnet_zoo.cli.publish import publish as main

if __name__ == "__main__":
    main()
