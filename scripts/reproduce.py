"""The same as ``resnet-zoo reproduce``."""

from resnet_zoo.cli.reproduce import reproduce as main

if __name__ == "__main__":
    main()
