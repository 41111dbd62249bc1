"""The package itself: public names, and what importing it costs."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_zoo

PACKAGE = Path(resnet_zoo.__file__).parent
SUBMODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or not path.stem.startswith("_")
)


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", resnet_zoo.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(resnet_zoo, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert inspect.getdoc(value)
    assert value.__name__ == name


def test_public_names_are_sorted_and_given_once() -> None:
    assert list(resnet_zoo.__all__) == sorted(set(resnet_zoo.__all__))


def test_dir_has_every_public_name() -> None:
    assert set(resnet_zoo.__all__) <= set(dir(resnet_zoo))
    assert dir(resnet_zoo) == sorted(dir(resnet_zoo))


def test_every_error_is_public() -> None:
    from resnet_zoo import errors

    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.ZooError)}
    assert kinds <= set(resnet_zoo.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"'resnet_zoo' has no attribute 'create_modell'"):
        resnet_zoo.create_modell  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(resnet_zoo, "torch")


def test_an_unknown_name_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="create_modell"):
        exec("from resnet_zoo import create_modell")


def test_every_module_can_be_imported_and_says_what_it_is() -> None:
    assert [name for name in SUBMODULES if not importlib.import_module(f"resnet_zoo.{name}").__doc__] == []


def test_no_module_has_the_name_of_a_public_function() -> None:
    names = {module.rpartition(".")[2] for module in SUBMODULES if not module.startswith("cli.")}  # of commands
    assert not names & set(resnet_zoo.__all__)


def test_functions_stay_functions_once_their_modules_are_imported() -> None:
    for module in SUBMODULES:
        importlib.import_module(f"resnet_zoo.{module}")
    for name in ("evaluate", "verify", "predict", "create_model", "convert_checkpoint"):
        assert inspect.isfunction(getattr(resnet_zoo, name))


def test_importing_the_package_and_naming_its_errors_imports_no_torch() -> None:
    code = (
        "import sys, resnet_zoo; resnet_zoo.WeightsMismatchError, resnet_zoo.get_entry; print('torch' in sys.modules)"
    )
    assert _run(code) == "False\n"


@pytest.mark.slow
def test_everything_can_be_imported_at_once_and_brings_torch() -> None:
    assert _run("import sys; from resnet_zoo import *; create_model; print('torch' in sys.modules)") == "True\n"


def test_the_version_is_that_of_the_installed_distribution() -> None:
    from importlib import metadata

    assert resnet_zoo.__version__ == metadata.version("resnet-zoo")


def test_type_hints_are_shipped() -> None:
    assert (Path(resnet_zoo.__file__).parent / "py.typed").is_file()
