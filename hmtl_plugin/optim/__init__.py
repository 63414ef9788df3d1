"""The optimizers ``hmtl_adamw`` and ``hmtl_muon``; importing this registers them with fairseq."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig
from hmtl_plugin.optim.base import HmtlOptimizer
from hmtl_plugin.optim.muon import HmtlMuon, HmtlMuonConfig

__all__ = ["HmtlAdamW", "HmtlAdamWConfig", "HmtlMuon", "HmtlMuonConfig", "HmtlOptimizer"]
