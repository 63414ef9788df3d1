"""Pre-training objectives, one file each; every module in this folder is imported and so registered, and then the
entry points ``hmtl_plugin.objectives`` of packages that are installed.
"""

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from hmtl_plugin.errors import UserError

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
for _point in entry_points(group="hmtl_plugin.objectives"):
    try:
        _point.load()
    except Exception as error:
        raise UserError(
            f"the objective '{_point.name}' of the installed package {_point.value} cannot be imported: "
            f"{type(error).__name__}: {error}: mend or uninstall it"
        ) from error
