"""Pre-training objectives, one file each; every module in this folder is imported and so registered."""

from importlib import import_module
from pkgutil import iter_modules

from hmtl_plugin import compat  # noqa: F401  before fairseq itself

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
