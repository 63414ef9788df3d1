"""Each system gets its memory as its users do: training with the plugin keeps what it frees (`host_memory`), the peers do not.

`use` switches between both within one process; the step after it pays for the change and must not count.
"""

from hmtl_plugin.host_memory import KEEP, set_thresholds

Thresholds = tuple[int, int]
KEPT: Thresholds = (KEEP, KEEP)
USUAL: Thresholds = (32 << 20, 64 << 20)
"""Where glibc's thresholds settle by themselves in a process with large blocks."""


def use(thresholds: Thresholds) -> None:
    """From now on; nothing happens where there is no glibc, for all systems alike."""
    set_thresholds(*thresholds)
