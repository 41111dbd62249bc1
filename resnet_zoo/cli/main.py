"""The ``resnet-zoo`` command: data on stdout, everything else on stderr.

Exit codes: 0 all good, 1 checked and wrong, 2 wrong usage or unknown name, 3 could not be checked, 70 an error that
nobody foresaw.
"""

from __future__ import annotations

import os

import click

from resnet_zoo import __version__
from resnet_zoo.cli import benchmark, catalog, check, completion, embed, export, finetune, predict, runs, site, weights
from resnet_zoo.cli.completion import with_completion
from resnet_zoo.cli.shell import ZooGroup, debug_option, examples

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
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "list --dataset cifar10",
        "verify",
        "predict resnet50 cat.jpg --weights resnet50.safetensors",
        "convert resnet50_8xb32_in1k_20210831-ea4938fc.pth resnet50.safetensors",
    )
    + AFTER_THE_OPTIONS,
)
@click.version_option(__version__, "-V", "--version", prog_name="resnet-zoo")
@debug_option
@click.option("--offline", is_flag=True, help="Never use the network.  [env: RESNET_ZOO_OFFLINE, HF_HUB_OFFLINE]")
@click.option("--mirror", metavar="URL|DIR", help="Look for weights here first.  [env: RESNET_ZOO_MIRROR]")
@click.option("--manifest", metavar="FILE", help="Manifest of a private zoo.  [env: RESNET_ZOO_MANIFEST]")
def main(debug: bool, offline: bool, mirror: str | None, manifest: str | None) -> None:  # noqa: ARG001  # ZooGroup reads debug
    """Fifteen residual networks whose every number can be checked."""
    given = {
        "RESNET_ZOO_OFFLINE": "1" if offline else None,
        "RESNET_ZOO_MIRROR": mirror,
        "RESNET_ZOO_MANIFEST": manifest,
    }
    os.environ.update({name: value for name, value in given.items() if value is not None})


COMMANDS = (
    *(catalog.list_command, catalog.show, catalog.env),
    *(check.verify, check.evaluate),
    *(predict.predict, embed.embed, finetune.finetune, export.export, benchmark.benchmark),
    *(runs.diff_log, site.site),
    *(weights.download, weights.convert, weights.cache),
    completion.completion,
)

for command in COMMANDS:
    main.add_command(command)
with_completion(main)


if __name__ == "__main__":
    main()
