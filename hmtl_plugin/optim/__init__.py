"""The optimizer ``hmtl_adamw``; importing this registers it with fairseq."""

from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig

__all__ = ["HmtlAdamW", "HmtlAdamWConfig"]
