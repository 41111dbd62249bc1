"""The ``resnet-zoo`` command: data on stdout, everything else on stderr.

Exit codes: 0 all good, 1 checked and wrong, 2 wrong usage or unknown name, 3 could not be checked, 70 an error that
nobody foresaw.
"""

from __future__ import annotations

import click

from resnet_zoo import __version__
from resnet_zoo.cli import (
    benchmark,
    catalog,
    check,
    completion,
    embed,
    export,
    finetune,
    predict,
    publish,
    reproduce,
    runs,
    site,
    weights,
)
from resnet_zoo.cli.completion import with_completion
from resnet_zoo.cli.options import HELP, with_common_options
from resnet_zoo.cli.shell import ZooGroup, examples

AFTER_THE_OPTIONS = """

\b
Exit codes:
  0 all good
  1 checked and wrong: a number, hash or file is not as expected
  2 wrong usage, or a name that does not exist
  3 could not be checked: weights, images or the network were unavailable
  70 an unexpected error, probably a fault of resnet-zoo; see --debug
  130 stopped by Ctrl-C
  141 the reader of the output closed the pipe

\b
Environment:
  RESNET_ZOO_HOME      cache folder (`resnet-zoo cache dir` prints it)
  RESNET_ZOO_MIRROR    same as --mirror
  RESNET_ZOO_OFFLINE   --offline if 1, true, yes or on; HF_HUB_OFFLINE too
  RESNET_ZOO_MANIFEST  same as --manifest
  RESNET_ZOO_DEBUG     same as --debug if 1
  NO_COLOR, COLUMNS    tables without colour; table width in characters
  HF_TOKEN, HF_HOME    read by the Hugging Face client, for hf-hub: addresses
  HTTPS_PROXY          read by every transfer; so is REQUESTS_CA_BUNDLE

Data goes to standard output, everything else to standard error.
"""
"""What holds for every command, for the help of the whole."""


@click.group(
    cls=ZooGroup,
    context_settings=HELP,
    epilog=examples(
        "list --dataset cifar10",
        "verify",
        "predict resnet50 cat.jpg --weights resnet50.safetensors",
        "convert resnet50_8xb32_in1k_20210831-ea4938fc.pth resnet50.safetensors",
    )
    + AFTER_THE_OPTIONS,
)
@click.version_option(__version__, "-V", "--version", prog_name="resnet-zoo")
def main() -> None:
    """Fifteen residual networks whose every number can be checked."""


COMMANDS = (
    *(catalog.list_command, catalog.show, catalog.env),
    *(check.verify, check.evaluate),
    *(predict.predict, embed.embed, finetune.finetune, export.export, benchmark.benchmark),
    *(reproduce.reproduce, runs.diff_log, publish.accept, publish.publish, site.site),
    *(weights.download, weights.convert, weights.cache),
    completion.completion,
)

for command in COMMANDS:
    main.add_command(command)
with_completion(with_common_options(main))


if __name__ == "__main__":
    main()
