"""What stands between us and fairseq's training: launches checked, runs resumed, its step made cheaper. Importing this
puts it there and registers everything (`tasks`).
"""

from hmtl_plugin import tasks  # noqa: F401
from hmtl_plugin.fairseq_hooks import launch

launch.install()
