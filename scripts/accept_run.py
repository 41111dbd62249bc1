"""The same as ``resnet-zoo accept``."""

from resnet_zoo.cli.publish import accept as main

if __name__ == "__main__":
    main()
